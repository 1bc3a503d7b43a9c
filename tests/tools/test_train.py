"""tools/train.py on synthetic people, then test.py and evaluate.py; resume; errors of bad input."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest.mock import ANY

import pytest
import torch
from desk import ROOT, Desk, read_events
from scipy.io import loadmat

from lib.config import load_cfg
from lib.core import training_checkpoint
from lib.core.results import hold
from lib.models import build_model
from lib.utils.checkpoint import read_checkpoint, read_weights, save_checkpoint
from lib.utils.distributed import Distributed


def test_train_test_and_evaluate_agree(desk: Desk) -> None:
    trained = desk.on_cfg("train", "DEBUG.DEBUG", "True", *_all_debug_images())
    assert trained.code == 0, trained.err
    for name in ("checkpoint.pth", "model_best.pth", "final_state.pth", "train.log"):
        assert (desk.results / name).stat().st_size > 0
    for name in ("gt", "pred", "hm_gt", "hm_pred"):
        assert (desk.results / f"train_001_{name}.jpg").exists()
    assert list((desk.folder / "log").rglob("events*"))
    assert "CPU" in trained.err or "cuda" in trained.err

    tested = desk.on_cfg("test", "TEST.MODEL_FILE", desk.results / "final_state.pth")
    assert tested.code == 0, tested.err
    header, _, *rows = (line for line in tested.out.splitlines() if line.startswith("|"))
    names = ["Arch", "Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle"]
    names += ["Mean", "Mean@0.1", "Mean@0.11"]
    assert [cell.strip() for cell in header.strip("|").split("|")] == names
    assert [row.split("|")[1].strip() for row in rows] == ["pose_tokenpose_s", "mean pose"]
    assert loadmat(desk.results / "pred.mat")["preds"].shape == (6, 16, 2)
    results = json.loads((desk.results / "results.json").read_text())

    scored = desk.run(
        "evaluate", "--gt", desk.data / "annot/gt_valid.mat", "--pred", desk.results / "pred.mat",
        "--json", desk.folder / "scores.json",
    )  # fmt: skip
    assert scored.code == 0, scored.err
    again = json.loads((desk.folder / "scores.json").read_text())
    assert again == pytest.approx(results["scores"])


def _all_debug_images() -> list[str]:
    images = ("BATCH_IMAGES_GT", "BATCH_IMAGES_PRED", "HEATMAPS_GT", "HEATMAPS_PRED")
    return [word for name in images for word in (f"DEBUG.SAVE_{name}", "True")]


def test_a_resumed_training_ends_with_the_same_weights(desk: Desk) -> None:
    # With settings that make a step draw random numbers or keep state.
    desk.check_exact_resume("MODEL.DROP_PATH", 0.5, "TRAIN.EMA_DECAY", 0.9, "DATASET.COLOR", 0.2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_and_no_worker(desk: Desk, number: signal.Signals) -> None:
    words = desk.words("TRAIN.END_EPOCH", 1000, "WORKERS", 2)
    command = [sys.executable, str(ROOT / "tools/train.py"), *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for line in process.stderr:
        if "epoch 1 step" in line:
            break
    os.killpg(process.pid, number)  # as terminals and schedulers do: to the workers too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert read_checkpoint(desk.results / "checkpoint.pth")["format"] == 2
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_set_without_annotation_is_predicted_but_not_scored(desk: Desk) -> None:
    entries = json.loads((desk.data / "annot/valid.json").read_text())
    bare = [{key: entry[key] for key in ("image", "center", "scale")} for entry in entries]
    (desk.data / "annot/test.json").write_text(json.dumps(bare))
    trained = desk.on_cfg("train", "TRAIN.END_EPOCH", 1, "DATASET.TEST_SET", "test")
    assert trained.code == 0, trained.err
    assert "DATASET.TEST_SET test: no scores and no model_best" in trained.err
    assert "PCKh@0.5 needs annot/gt_<set>.mat" in trained.err
    assert not (desk.results / "model_best.pth").exists()
    tested = desk.on_cfg("test", "DATASET.TEST_SET", "test")
    assert tested.code == 0, tested.err
    assert "|" not in tested.out
    assert loadmat(desk.results / "pred.mat")["preds"].shape == (6, 16, 2)


def test_training_on_a_zip_equals_training_on_a_folder(desk: Desk) -> None:
    assert desk.on_cfg("train", "TRAIN.END_EPOCH", 1).code == 0
    folder = read_checkpoint(desk.results / "final_state.pth")
    shutil.make_archive(str(desk.data / "images"), "zip", desk.data / "images")
    shutil.rmtree(desk.data / "images")
    shutil.rmtree(desk.results)
    assert desk.on_cfg("train", "TRAIN.END_EPOCH", 1, "DATASET.DATA_FORMAT", "zip").code == 0
    zipped = read_checkpoint(desk.results / "final_state.pth")
    assert all(torch.equal(folder[name], zipped[name]) for name in folder)


@pytest.mark.parametrize("kind", ["jpg", "zip"])
def test_missing_images_of_the_training_are_reported_before_it(desk: Desk, kind: str) -> None:
    """Also those of a set whose test images are there; a limited number may be missing."""
    for number in (4, 17):
        (desk.data / f"images/train_{number:06d}.jpg").unlink()
    shutil.make_archive(str(desk.data / "images"), "zip", desk.data / "images")
    opts = ("DATASET.DATA_FORMAT", kind, "TRAIN.END_EPOCH", 1, "DATASET.SKIP_BAD_IMAGES")
    failed = desk.on_cfg("train", *opts, 1)
    failed.fails_with("train_000004.jpg")
    failed.fails_with("missing images: 2 of 20")
    assert "training on" not in failed.err
    passed = desk.on_cfg("train", *opts, 2)
    assert passed.code == 0, passed.err
    assert "(2 of at most 2)" in passed.err


def test_a_test_on_images_of_the_training_is_a_warning(desk: Desk) -> None:
    _edit(desk.data / "annot/train.json", lambda a: a[3].update(image="./valid_000002.jpg"))
    desk.on_cfg("train", "TRAIN.RESUME", True).fails_with("checkpoint.pth")  # no need to train
    desk.on_cfg("train", "TRAIN.RESUME", True, "DATASET.TEST_SET", "train")
    log = (desk.results / "train.log").read_text()
    assert "TEST_SET share 1 of 6 test images (valid_000002.jpg)" in log
    assert "TEST_SET share 20 of 20 test images" in log


def test_warnings_of_libraries_are_lines_without_code(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    original = torch.cuda.is_available

    def warning() -> bool:
        warnings.warn("CUDA initialization: the driver\nis too old", UserWarning, stacklevel=1)
        return original()

    monkeypatch.setattr(torch.cuda, "is_available", warning)
    stopped = desk.on_cfg("train", "WORKERS", 2, "TRAIN.RESUME", True)
    stopped.fails_with("checkpoint.pth")
    assert "WORKERS 2 on 1 cores" in stopped.err
    assert "CUDA initialization: the driver is too old\n" in stopped.err
    for raw in ("UserWarning", ".py", "This DataLoader"):
        assert raw not in stopped.err


def test_a_loss_that_is_not_finite_names_epoch_step_and_images(desk: Desk) -> None:
    failed = desk.on_cfg("train", "TRAIN.LR", 1e30, "TRAIN.OPTIMIZER", "sgd")
    assert failed.code == 2
    assert "epoch 0, step" in failed.err
    assert "train_0000" in failed.err
    assert "TRAIN.LR" in failed.err


def _replace(path: Path, content: bytes) -> None:
    assert path.exists()
    path.write_bytes(content)


def _edit(path: Path, change: Callable[[list[dict]], object]) -> None:
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))


BAD_DATA = {
    "no root": (lambda data: shutil.rmtree(data), "train.json"),
    "no annotation": (lambda data: (data / "annot/train.json").unlink(), "train.json"),
    "annotation is not JSON": (
        lambda data: _replace(data / "annot/train.json", b"[{"), "train.json",
    ),
    "fewer joints": (
        lambda data: _edit(data / "annot/train.json", lambda a: a[3]["joints"].pop()), "record 3",
    ),
    "a joint is not a number": (
        lambda data: _edit(
            data / "annot/train.json", lambda a: a[2]["joints"][1].__setitem__(0, float("nan"))
        ),
        "record 2",
    ),
    "no box": (
        lambda data: _edit(data / "annot/valid.json", lambda a: a[1].update(scale=0)), "record 1",
    ),
    "no image": (lambda data: (data / "images/train_000004.jpg").unlink(), "train_000004.jpg"),
    "bad image": (
        lambda data: _replace(data / "images/train_000005.jpg", b"no image"), "train_000005.jpg",
    ),
    "bad gt": (
        lambda data: _replace(data / "annot/gt_valid.mat", b"no mat"), "gt_valid.mat",
    ),
    "gt of other people": (
        lambda data: _edit(data / "annot/valid.json", lambda a: a.pop()), "gt_valid.mat",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_an_error_of_one_line(desk: Desk, case: str) -> None:
    damage, text = BAD_DATA[case]
    damage(desk.data)
    desk.on_cfg("train").fails_with(text)
    if "image" in case:  # read by a worker
        desk.on_cfg("train", "WORKERS", 1).fails_with(text)


@pytest.mark.parametrize(
    ("opts", "text"),
    [
        (["MODEL.DEPTH", "3"], "MODEL.DEPTH"),
        (["MODEL.SPARSITY.KEEP_RATO", "0.5"], "MODEL.SPARSITY.KEEP_RATIO"),
        (["MODEL.SPARSITY.PRUNE_LAYERS", "[1, 3]"], "MODEL.SPARSITY.PRUNE_LAYERS"),
        (["MODEL.SPARSITY.KEEP_RATIO", "0"], "MODEL.SPARSITY.KEEP_RATIO"),
        (["MODEL.SPARSITY.KEEP_RATIO", "1.5"], "MODEL.SPARSITY.KEEP_RATIO"),
        (["MODEL.PATCH_SIZE", "[3, 3]"], "MODEL.PATCH_SIZE"),
        (["MODEL.NAME", "pose_tokenpose_x"], "pose_tokenpose_s"),
        (["MODEL.NUM_JOINTS", "17"], "MODEL.NUM_JOINTS"),
        (["TRAIN.LR", "fast"], "TRAIN.LR"),
        (["DATASET.DATASET", "mpi"], "mpii"),
        (["DATASET.DATA_FORMAT", "zip"], "images.zip"),
        (["OUTPUT_DIR", "/dev/null/out"], "/dev/null/out"),
        (["TRAIN.RESUME", "True"], "checkpoint.pth"),
        (["MODEL.PRETRAINED", "nothing.pth"], "nothing.pth"),
        (["TRAIN.LR"], "TRAIN.LR"),
    ],
)
def test_bad_keys_are_errors_of_one_line(desk: Desk, opts: list[str], text: str) -> None:
    outcome = desk.run(
        "train", "--cfg", desk.yaml, "DATASET.ROOT", desk.data,
        "OUTPUT_DIR", desk.folder / "output", "LOG_DIR", desk.folder / "log", *opts,
    )  # fmt: skip
    outcome.fails_with(text)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("MODEL: [", "small.yaml"),
        ("", "small.yaml"),
        ("- 1\n- 2\n", "small.yaml"),
        ("MODEL: !!python/object/apply:os.mkdir ['trap']", "small.yaml"),
    ],
)
def test_bad_yaml_is_an_error_of_one_line(desk: Desk, content: str, text: str) -> None:
    desk.yaml.write_text(content)
    desk.on_cfg("train").fails_with(text)
    assert not (ROOT / "trap").exists()
    desk.yaml.unlink()
    desk.on_cfg("train").fails_with(text)


def test_bad_checkpoints_are_errors_of_one_line(desk: Desk) -> None:
    desk.on_cfg("test", "TEST.MODEL_FILE", "none.pth").fails_with("none.pth")
    desk.on_cfg("test").fails_with("final_state.pth")
    bad = desk.folder / "bad.pth"
    bad.write_bytes(b"PK\x03\x04 cut off")
    desk.on_cfg("test", "TEST.MODEL_FILE", bad).fails_with("bad.pth")
    torch.save({"some.other.network": torch.zeros(3)}, bad)
    desk.on_cfg("test", "TEST.MODEL_FILE", bad).fails_with("bad.pth")


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_replaced_and_counted(desk: Desk, workers: int) -> None:
    for number in (4, 5):
        (desk.data / f"images/train_{number:06d}.jpg").write_bytes(b"not an image")
    opts = ("WORKERS", workers, "TRAIN.END_EPOCH", 2, "DATASET.SKIP_BAD_IMAGES")
    passed = desk.on_cfg("train", *opts, 2)
    assert passed.code == 0, passed.err
    for number, name in ((1, "train_000004.jpg"), (2, "train_000005.jpg")):
        assert passed.err.count(f"{name} is unreadable") == 1
        assert f"({number} of at most 2)" in passed.err
    state = read_checkpoint(desk.results / "checkpoint.pth")
    assert sorted(state["progress"]["bad_images"]) == [4, 5]
    shutil.rmtree(desk.results)
    desk.on_cfg("train", *opts, 1).fails_with("DATASET.SKIP_BAD_IMAGES")
    (desk.data / "images/valid_000001.jpg").write_bytes(b"not an image")
    desk.on_cfg("train", *opts, 2).fails_with("valid_000001.jpg")  # never in a test


def test_a_damaged_checkpoint_is_named_and_the_previous_one_is_used(desk: Desk) -> None:
    assert desk.on_cfg("train").code == 0
    whole = read_checkpoint(desk.results / "final_state.pth")
    newest = desk.results / "checkpoint.pth"
    newest.write_bytes(newest.read_bytes()[:-1000])
    resumed = desk.on_cfg("train", "AUTO_RESUME", "True")
    assert resumed.code == 0, resumed.err
    assert f"cannot read {newest}, it may be damaged" in resumed.err
    assert "resuming from" in resumed.err
    assert "checkpoint_previous.pth" in resumed.err
    assert (desk.results / "checkpoint_damaged.pth").exists()
    for path in (newest, desk.results / "checkpoint_previous.pth"):
        assert read_checkpoint(path)["format"] == 2
    again = read_checkpoint(desk.results / "final_state.pth")
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    for path in desk.results.glob("checkpoint*.pth"):
        path.write_bytes(b"")
    (desk.results / "checkpoint_damaged.pth").unlink()
    desk.on_cfg("train", "AUTO_RESUME", "True").fails_with("checkpoint_previous.pth")


def test_an_unreadable_test_image_loses_no_epoch(desk: Desk) -> None:
    (desk.data / "images/valid_000001.jpg").write_bytes(b"not an image")
    desk.on_cfg("train").fails_with("valid_000001.jpg")
    progress = read_checkpoint(desk.results / "checkpoint.pth")["progress"]
    assert (progress["epoch"], progress["step"]) == (0, 3)
    (desk.data / "images/valid_000001.jpg").unlink()
    desk.on_cfg("train", "AUTO_RESUME", "True").fails_with("valid_000001.jpg")


def test_a_test_that_fails_ends_its_workers(desk: Desk) -> None:
    assert desk.on_cfg("train", "TRAIN.END_EPOCH", 1).code == 0
    (desk.data / "images/valid_000001.jpg").write_bytes(b"not an image")
    words = desk.words("WORKERS", 2, "TEST.BATCH_SIZE_PER_GPU", 1)
    command = [sys.executable, str(ROOT / "tools/test.py"), *words]
    failed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert failed.returncode == 2
    assert "valid_000001.jpg" in failed.stderr.strip().splitlines()[-1]


def test_a_requeued_run_resumes_at_its_own_checkpoint(desk: Desk) -> None:
    assert desk.on_cfg("train", "TRAIN.END_EPOCH", 1).code == 0
    other = desk.folder / "other.pth"
    shutil.copy(desk.results / "checkpoint.pth", other)
    again = ("AUTO_RESUME", "True", "TRAIN.RESUME", "True", "TRAIN.CHECKPOINT", other)
    first = desk.on_cfg("train", *again, "TRAIN.END_EPOCH", 2)
    assert first.code == 0, first.err
    second = desk.on_cfg("train", *again, "TRAIN.END_EPOCH", 3)
    assert "checkpoint.pth: epoch 2, step 0" in second.err
    assert "TRAIN.END_EPOCH: changed since" in second.err  # and nothing else


def test_checkpoints_are_written_every_few_steps_or_minutes(desk: Desk) -> None:
    with pytest.MonkeyPatch.context() as patch:
        saved = []
        patch.setattr(training_checkpoint, "save", lambda *rest: saved.append(rest[2].step))
        opts = ("TRAIN.END_EPOCH", 1, "TRAIN.BATCH_SIZE_PER_GPU", 2)
        assert desk.on_cfg("train", *opts, "TRAIN.CHECKPOINT_STEPS", 4).code == 0
        assert saved == [4, 8, 10, 0]  # before the test and after it
        saved.clear()
        shutil.rmtree(desk.results)
        assert desk.on_cfg("train", *opts, "TRAIN.CHECKPOINT_MINUTES", 1e-9).code == 0
        assert saved == [*range(1, 11), 10, 0]


def test_results_hold_their_provenance(desk: Desk) -> None:
    assert desk.on_cfg("train", "TRAIN.END_EPOCH", 1, "SEED", 5).code == 0
    fingerprints = []
    for changes in range(2):
        assert desk.on_cfg("test", "SEED", 5).code == 0
        folder = desk.results / "test_2" if changes else desk.results
        results = json.loads((folder / "results.json").read_text())
        assert results["data"]["people"] == 6
        assert results["versions"]["torch"] == torch.__version__.split("+")[0]
        assert results["weights"].endswith("final_state.pth")
        assert "SEED: 5" in results["config"]
        fingerprints.append(results["data"]["fingerprint"])
        if not changes:
            with (desk.data / "images/valid_000001.jpg").open("ab") as file:
                file.write(b"\0")
    assert fingerprints[0] != fingerprints[1]
    provenance = read_checkpoint(desk.results / "checkpoint.pth")["provenance"]
    assert provenance["data"]["people"] == 20


def test_safetensors_score_the_same(desk: Desk) -> None:
    assert desk.on_cfg("train", "TRAIN.END_EPOCH", 1, "TRAIN.EMA_DECAY", 0.9).code == 0
    state = read_checkpoint(desk.results / "checkpoint.pth")
    final = read_checkpoint(desk.results / "final_state.pth")
    name = "head.1.weight"
    assert torch.equal(final[name], state["ema"][name])  # the average is saved
    assert not torch.equal(final[name], state["model"][name])
    assert torch.equal(final[name], read_weights(desk.results / "checkpoint.pth")[name])
    tables = [
        desk.on_cfg("test", "TEST.MODEL_FILE", desk.results / f"final_state.{suffix}").out
        for suffix in ("pth", "safetensors")
    ]
    assert tables[0] == tables[1]


def test_resume_requires_the_same_steps(desk: Desk) -> None:
    assert desk.on_cfg("train", "TRAIN.END_EPOCH", 1).code == 0
    desk.on_cfg("train", "AUTO_RESUME", "True", "TRAIN.OPTIMIZER", "sgd").fails_with("SGD")
    changed = ("AUTO_RESUME", "True", "TRAIN.BATCH_SIZE_PER_GPU", 4)
    desk.on_cfg("train", *changed).fails_with("steps_per_epoch 3, this run has 5")


def test_a_broken_training_checkpoint_is_an_error_of_one_line(desk: Desk) -> None:
    assert desk.on_cfg("train", "TRAIN.END_EPOCH", 1).code == 0
    path = desk.results / "checkpoint.pth"
    (desk.results / "checkpoint_previous.pth").unlink()
    whole = read_checkpoint(path)
    for key, value in (
        ("optimizer", 3),
        ("progress", {"epoch": "x"}),
        ("format", 0),
        ("format", 1),
        ("identity", {}),
    ):
        save_checkpoint(whole | {key: value}, path)
        desk.on_cfg("train", "AUTO_RESUME", "True").fails_with("checkpoint.pth")


def test_options_can_follow_keys(desk: Desk) -> None:
    outcome = desk.run(
        "train", "--cfg", desk.yaml, "DATASET.ROOT", desk.data, "MODEL.SPARSITY.JOINT_HOPS", "-1",
        "TRAIN.END_EPOCH", "1", "--modelDir", desk.folder / "out", "--logDir", desk.folder / "log",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert (desk.folder / "out/synthetic/pose_tokenpose_s/small/final_state.pth").exists()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").glob("[!o]*/*/*.yaml")), ids=lambda p: p.stem
)
def test_every_published_configuration_builds(path: Path) -> None:
    """But those of `own`, which need the skeleton file that docs/own_data.md makes."""
    cfg = load_cfg(path)
    with torch.device("cpu" if "tokenpose" in cfg.MODEL.NAME else "meta"):  # draws no weights
        build_model(cfg)


@pytest.mark.parametrize(("interval", "tested"), [(1, [0, 1, 2]), (2, [1, 2]), (9, [2])])
def test_epochs_are_tested_at_intervals_and_at_the_end(
    desk: Desk, interval: int, tested: list[int]
) -> None:
    opts = ("TRAIN.END_EPOCH", 3, "TRAIN.LR_STEP", [2], "TEST.INTERVAL", interval)
    trained = desk.on_cfg("train", *opts)
    assert trained.code == 0, trained.err
    history = json.loads((desk.results / "history.json").read_text())
    assert [entry["epoch"] for entry in history] == [0, 1, 2]
    assert [entry["epoch"] for entry in history if "Mean" in entry] == tested
    assert desk.run("plot", desk.results).code == 0


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".log"}


def test_a_new_training_does_not_replace_another(desk: Desk) -> None:
    other = desk.folder / "other.pth"
    assert desk.on_cfg("train", "TRAIN.END_EPOCH", 1).code == 0
    before = _contents(desk.results)
    desk.on_cfg("train", "SEED", 2).fails_with("AUTO_RESUME true continues it; for a new one")
    shutil.copy(desk.results / "checkpoint.pth", other)
    resumed = ("TRAIN.RESUME", True, "TRAIN.CHECKPOINT", other)
    desk.on_cfg("train", *resumed).fails_with("small has a training (checkpoint.pth,")
    assert _contents(desk.results) == before
    assert desk.on_cfg("train", "TRAIN.RESUME", True, "TRAIN.END_EPOCH", 2).code == 0
    for path in desk.results.glob("checkpoint*.pth"):
        path.unlink()
    before = _contents(desk.results)
    desk.on_cfg("train", "AUTO_RESUME", True).fails_with(
        "(final_state.pth, final_state.safetensors,"
    )
    assert _contents(desk.results) == before
    elsewhere = ("OUTPUT_DIR", desk.folder / "elsewhere", "LOG_DIR", desk.folder / "elsewhere/log")
    assert desk.on_cfg("train", *resumed, *elsewhere, "TRAIN.END_EPOCH", 2).code == 0


def test_a_finished_training_is_left_as_it_is(desk: Desk) -> None:
    assert desk.on_cfg("train").code == 0
    before, logs = _contents(desk.results), list((desk.folder / "log").rglob("events*"))
    again = desk.on_cfg("train", "AUTO_RESUME", True)
    assert again.code == 0
    assert "the training is finished" in again.err
    assert "epochs 2 to 1" not in again.err
    assert _contents(desk.results) == before | {".lock_holder": ANY}
    assert list((desk.folder / "log").rglob("events*")) == logs


def test_a_training_in_a_folder_that_another_one_holds_names_it(desk: Desk) -> None:
    desk.results.mkdir(parents=True)
    with hold(desk.results, Distributed(torch.device("cpu"))):
        desk.on_cfg("train").fails_with(f"is in use by process {os.getpid()} on ")
    assert {path.name for path in desk.results.iterdir()} == {".lock", ".lock_holder", "train.log"}
    assert not (desk.folder / "log").exists()


def test_the_results_of_different_tests_are_all_kept(desk: Desk) -> None:
    desk.save_random_weights()
    desk.save_random_weights(desk.folder / "same.pth")
    tests = [
        (), ("MODEL.SPARSITY.PRUNE", "token"), ("TEST.FLIP_TEST", False),
        ("DATASET.TEST_SET", "train"), ("TEST.MODEL_FILE", desk.folder / "same.pth"),
    ]  # fmt: skip
    tables: list[str] = []
    kept: dict[Path, str] = {}  # file -> what was tested
    for opts in (*tests, *reversed(tests)):
        tested = desk.on_cfg("test", *opts)
        assert tested.code == 0, tested.err
        tables.append(tested.out)
        files = desk.results.rglob("results.json")
        read = {path: json.loads(path.read_text()) for path in files}
        assert kept.items() <= {path: read[path]["tested"] for path in read}.items()
        kept = {path: read[path]["tested"] for path in read}
    assert tables == tables[::-1]
    folders = {path.parent for path in kept}
    assert folders == {desk.results, *(desk.results / f"test_{number}" for number in (2, 3, 4))}
    for folder in folders:
        assert loadmat(folder / "pred.mat")["preds"].size
    log = (desk.results / "test.log").read_text()
    assert all(table in log for table in tables)
    assert log.count("| mean pose |") == len(tables)


def test_the_log_holds_what_people_look_for(desk: Desk) -> None:
    (desk.data / "images/valid_000001.jpg").write_bytes(b"not an image")
    trained = desk.on_cfg("train")
    trained.fails_with("valid_000001.jpg")
    log = (desk.results / "train.log").read_text()
    assert log.splitlines()[-1].endswith(trained.err.splitlines()[-1])
    assert trained.err.count("valid_000001.jpg") == 1
    assert re.search(r"pose_tokenpose_s: 0\.\d+ million parameters, 0\.\d+ GMACs", log)
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:", line) for line in log.splitlines())


def test_tensorboard_shows_training_and_validation_by_step(desk: Desk) -> None:
    assert desk.train_and_stop(4, "TRAIN.EMA_DECAY", 0.5).code == 130
    resumed = desk.on_cfg("train", "TRAIN.EMA_DECAY", 0.5, "AUTO_RESUME", True)
    assert resumed.code == 0, resumed.err
    events = [
        e for path in sorted((desk.folder / "log").rglob("events*")) for e in read_events(path)
    ]
    assert [e.step for e in events if e.HasField("session_log")] == [0, 4]
    steps: dict[str, list[int]] = {}
    for event in events:
        for value in event.summary.value:
            steps.setdefault(value.tag, []).append(event.step)
    every, tested = [2, 3, 5, 6], [3, 6]  # PRINT_FREQ is 2, an epoch has 3 steps
    for tag in ("train/loss", "train/accuracy", "train/lr"):
        assert steps.pop(tag) == every
    assert {"valid/loss", "valid/accuracy", "valid/Mean", "valid/Mean_0.1"} <= steps.keys()
    assert all(at == tested for at in steps.values())
    text = (desk.results / "train.log").read_text()
    assert re.search(r"epoch 1: PCKh@0.5 [\d.]+, best so far [\d.]+; validation loss 0\.\d+", text)
    assert text.count("| pose_tokenpose_s |") == 2


def test_the_validation_loss_is_the_mean_over_people(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []
    for size in (1, 4, 6):  # batches of 4 and 2 people
        text = desk.on_cfg("train", "TRAIN.END_EPOCH", 1, "TEST.BATCH_SIZE_PER_GPU", size).err
        losses.append(float(re.findall(r"validation loss ([\d.]+)", text)[0]))
        shutil.rmtree(desk.results)
    assert losses == pytest.approx([losses[0]] * 3, abs=2e-6)
    assert losses[0] > 0


@pytest.mark.parametrize(
    "opts", [("DATASET.ROOT", "none"), ("GPUS", "[7]"), ("TRAIN.RESUME", True), ("TRAIN.LR", "x")]
)
def test_a_failed_command_leaves_no_empty_folder(
    desk: Desk, opts: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: opts[0] == "GPUS")
    for tool in ("train", "test"):
        assert desk.on_cfg(tool, *opts).code == 2
    assert not [
        path for path in desk.folder.rglob("*") if path.is_dir() and not any(path.iterdir())
    ]
    assert not (desk.folder / "log").exists()
