"""tools/train.py in several processes equals one process; a failure ends all with its error."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from desk import ROOT, Desk
from scipy.io import loadmat, savemat

from lib.config import load_cfg
from lib.models import build_model
from lib.utils.checkpoint import read_checkpoint

# sgd, since adam divides by the size of the gradient, which amplifies the rounding of other sums.
FROZEN = (
    "TRAIN.BATCH_NORM", "frozen", "TRAIN.END_EPOCH", 3, "TRAIN.LR_STEP", "[2]",
    "TRAIN.OPTIMIZER", "sgd", "TRAIN.LR", 10,
)  # fmt: skip


def launch(desk: Desk, processes: int, tool: str, *opts: object) -> subprocess.CompletedProcess:
    """Run a command in several processes."""
    return torchrun(processes, ROOT / "tools" / f"{tool}.py", *desk.words(*opts))


def torchrun(processes: int, script: Path, *words: str) -> subprocess.CompletedProcess:
    """Run a script under torchrun, each process with one thread."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc_per_node={processes}", str(script), *words,
    ]  # fmt: skip
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)


def final_weights(desk: Desk) -> dict[str, torch.Tensor]:
    return read_checkpoint(desk.results / "final_state.pth")


def scores_by_epoch(desk: Desk) -> list[dict[str, float]]:
    """The scores of each epoch, without the loss, which is the main process's own."""
    entries = json.loads((desk.results / "history.json").read_text())
    return [{name: entry[name] for name in entry if name != "loss"} for entry in entries]


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Relative distance of two sets of weights, ‖a - b‖/‖a‖."""
    floats = [name for name, value in a.items() if value.is_floating_point()]
    squares = sum((a[name].double() - b[name].double()).square().sum() for name in floats)
    return (squares / sum(a[name].double().square().sum() for name in floats)).sqrt().item()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute with one thread, as each process of `torchrun` does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_two_processes_give_the_result_of_one(desk: Desk) -> None:
    one = desk.on_cfg("train", *FROZEN)  # 9 steps of 8 people (4 in an epoch's last)
    assert one.code == 0, one.err
    alone, scores = final_weights(desk), scores_by_epoch(desk)
    torch.manual_seed(0)
    initial = build_model(load_cfg(desk.yaml)).state_dict()
    assert distance(alone, initial) > 1e-3
    split = ("TRAIN.BATCH_SIZE_PER_GPU", 2, "TRAIN.ACCUMULATE", 2)
    shutil.rmtree(desk.results)
    two = launch(desk, 2, "train", *FROZEN, *split)
    assert two.returncode == 0, two.stderr
    assert distance(alone, final_weights(desk)) <= 1e-6
    # Each process tests three of the six people.
    for entry, expected in zip(scores_by_epoch(desk), scores, strict=True):
        assert entry == pytest.approx(expected, nan_ok=True)
    assert one.out == two.stdout


def test_timm_backbones_train_in_several_processes_with_frozen_stages(desk: Desk) -> None:
    """No weight waits for a gradient: not those behind the features, nor the frozen ones."""
    opts = (
        "MODEL.BACKBONE", "tf_efficientnet_lite0", "MODEL.BACKBONE_STRIDE", 8,
        "MODEL.PATCH_SIZE", [1, 1], "MODEL.HEAD", "filter", "MODEL.FILTER.STRIDES", [4, 8],
        "TRAIN.FROZEN_STAGES", 2, "TRAIN.BACKBONE_LR", 0.0001, "TRAIN.END_EPOCH", 1,
    )  # fmt: skip
    two = launch(desk, 2, "train", *opts)
    assert two.returncode == 0, two.stderr


def test_batches_of_one_person_have_gradients_as_ddp_expects(desk: Desk) -> None:
    opts = ("TRAIN.BATCH_SIZE_PER_GPU", 1, "TRAIN.ACCUMULATE", 2, "TRAIN.END_EPOCH", 1)
    two = launch(desk, 2, "train", *opts)
    assert two.returncode == 0, two.stderr
    assert "strides" not in two.stderr


def test_a_process_can_have_no_people_to_test(desk: Desk) -> None:
    desk.save_random_weights()
    entries = json.loads((desk.data / "annot/valid.json").read_text())
    (desk.data / "annot/one.json").write_text(json.dumps(entries[:1]))
    gt = loadmat(desk.data / "annot/gt_valid.mat")
    one = {name: gt[name][..., :1] for name in ("jnt_missing", "pos_gt_src", "headboxes_src")}
    savemat(desk.data / "annot/gt_one.mat", one | {"dataset_joints": gt["dataset_joints"]})
    alone = desk.on_cfg("test", "DATASET.TEST_SET", "one")
    assert alone.code == 0, alone.err
    joints = loadmat(desk.results / "pred.mat")["preds"]
    (desk.results / "pred.mat").unlink()
    two = launch(desk, 2, "test", "DATASET.TEST_SET", "one")
    assert two.returncode == 0, two.stderr
    assert abs(loadmat(desk.results / "pred.mat")["preds"] - joints).max() < 1e-2
    assert two.stdout == alone.out


@pytest.mark.usefixtures("one_thread")
def test_two_processes_equal_one_that_accumulates_bit_for_bit(desk: Desk) -> None:
    same = (
        "TRAIN.BATCH_NORM", "frozen", "TRAIN.END_EPOCH", 3, "TRAIN.BATCH_SIZE_PER_GPU", 5,
        "TRAIN.OPTIMIZER", "adam",
    )  # fmt: skip
    one = desk.on_cfg("train", *same, "TRAIN.ACCUMULATE", 2)  # 6 steps of 10 people
    assert one.code == 0, one.err
    alone = final_weights(desk)
    shutil.rmtree(desk.results)
    two = launch(desk, 2, "train", *same)
    assert two.returncode == 0, two.stderr
    assert all(torch.equal(value, alone[name]) for name, value in final_weights(desk).items())
    assert one.out == two.stdout


COLLECTIVES = """
import torch
from lib.utils.distributed import all_gather, all_reduce_any, broadcast_buffers
from lib.utils.distributed import cleanup_distributed, init_distributed
distributed = init_distributed()
norm = torch.nn.BatchNorm1d(1)
norm.running_mean += 3 + distributed.rank
broadcast_buffers(norm, distributed)
flags = all_reduce_any([distributed.rank == 1, False], distributed)
values = all_gather((flags, norm.running_mean.item()), distributed)
if distributed.is_main:
    print(values)
cleanup_distributed(distributed)
"""


def test_collectives_give_all_processes_the_same(tmp_path: Path) -> None:
    (tmp_path / "collectives.py").write_text(COLLECTIVES)
    done = torchrun(2, tmp_path / "collectives.py")
    assert done.stdout.strip() == str([([True, False], 3.0)] * 2), done.stderr


def test_the_tested_statistics_are_the_saved_ones(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = []
    monkeypatch.setattr(
        "lib.core.tester.broadcast_buffers", lambda model, distributed: tested.append(model)
    )
    assert desk.on_cfg("train", "TRAIN.END_EPOCH", 1, "TRAIN.EMA_DECAY", 0.5).code == 0
    final = final_weights(desk)
    assert all(torch.equal(value, final[name]) for name, value in tested[0].state_dict().items())


def test_a_process_that_fails_ends_the_others_with_its_error(desk: Desk) -> None:
    (desk.data / "images/train_000005.jpg").write_bytes(b"not an image")
    failed = launch(desk, 2, "train")
    assert failed.returncode != 0
    assert "error: " in failed.stderr
    assert "train_000005.jpg" in failed.stderr
    assert "train_000005.jpg" in (desk.results / "train.log").read_text()
    assert not (desk.results / "final_state.pth").exists()


def test_a_dead_worker_ends_the_run_with_an_error(desk: Desk) -> None:
    command = [
        sys.executable, str(ROOT / "tools/train.py"),
        *desk.words("WORKERS", 2, "TRAIN.END_EPOCH", 1000),
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "epoch 0 step" in line:
            break
    os.kill(_children(process.pid)[0], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert "Traceback" not in err
    assert "a loader process died" in err.strip().splitlines()[-1]


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    if not path.exists():
        pytest.skip("this system does not list child processes")
    return [int(child) for child in path.read_text().split()]
