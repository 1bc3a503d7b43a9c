"""A study trains, goes on where it stopped, and reports."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from desk import Desk

from lib.core.evaluate import load_gt, load_predictions
from lib.core.results import write_predictions
from lib.core.study.definition import load_study
from lib.core.study.significance import difference, hits
from lib.core.trainer import Trainer

STUDY = {
    "CFG": "small.yaml",
    "SEEDS": [0, 3],
    "BASELINE": "dense",
    "VARIANTS": {"dense": {"MODEL.SPARSITY.PRUNE": "none"}, "full, method": {}},
    "RETESTS": {"full, dense": {"OF": "full, method", "MODEL.SPARSITY.PRUNE": "none"}},
}


def run(desk: Desk, *words: object) -> object:
    path = desk.folder / "study.yaml"
    if not path.exists():
        path.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    places = ("OUTPUT_DIR", desk.folder / "output", "LOG_DIR", desk.folder / "log")
    return desk.run("study", "--study", path, *words, *places, "DATASET.ROOT", desk.data)


def told(a: np.ndarray, b: np.ndarray) -> str:
    found = difference(a, b)
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def test_a_study_goes_on_where_it_stopped_and_reports(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(desk, "--report").fails_with("no variant is tested yet")
    runs, train = [], Trainer.run

    def spy(trainer: Trainer) -> None:
        if len(runs) == 3 and "stop" not in runs:
            runs.append("stop")
            raise KeyboardInterrupt
        runs.append(trainer.folder)
        train(trainer)

    monkeypatch.setattr(Trainer, "run", spy)
    assert run(desk).code == 130
    half = run(desk, "--report")
    assert half.code == 0, half.err
    done = run(desk)
    assert done.code == 0, done.err
    assert [Path(folder).name for folder in runs] == [
        "seed_0",
        "seed_0",
        "seed_3",
        "stop",
        "seed_3",
    ]
    again = run(desk)
    assert len(runs) == 5
    seeds, place = ("seed_0", "seed_3"), desk.folder / "output/synthetic/pose_tokenpose_s/study"
    folders = [place / name for name in ("dense", "full_method", "full_dense")]
    tables = [
        {
            row.split(" | ")[0].strip("| "): row.strip("| ").split(" | ")
            for row in table.splitlines()
        }
        for table in again.out.split("\n\n")
        if table.startswith("| ")
    ]
    summary, retests, *by_joint = tables
    assert {"dense", "full, method", "full, dense"} < summary.keys()
    assert summary["dense"][1] == "2"
    assert summary["dense"][4] == "–"  # it is not compared with itself
    gt = load_gt(desk.data / "annot/gt_valid.mat")
    found = {
        name: np.stack([hits(load_predictions(folder / seed / "pred.mat"), gt) for seed in seeds])
        for name, folder in zip(("dense", "full", "retest"), folders, strict=True)
    }
    assert summary["full, method"][4].strip("*") == told(found["dense"], found["full"])
    assert summary["full, dense"][4].strip("*") == told(found["dense"], found["retest"])
    assert retests["full, dense"][1] == "full, method"
    assert retests["full, dense"][2].strip("*") == told(found["full"], found["retest"])
    scores = json.loads((runs[1] / "results.json").read_text())["scores"]
    other = json.loads((runs[4] / "results.json").read_text())["scores"]
    for table, mean in zip(by_joint, ("Mean", "Mean@0.1"), strict=True):
        assert float(table["full, method"][-1]) == pytest.approx(
            (scores[mean] + other[mean]) / 2, abs=0.006
        )
    for name in ("RESULTS.md", "curves.png", "seeds.png"):
        assert (place / name).exists()


def test_a_changed_variant_is_trained_anew(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a variant of the same name left behind is not gone on from, nor are its tests kept."""
    begun, train = [], Trainer.run
    retest = desk.folder / "output/synthetic/pose_tokenpose_s/study/full_dense/seed_0/pred.mat"

    def spy(trainer: Trainer) -> None:
        begun.append((trainer.folder.parent.name, trainer.progress.epoch))
        train(trainer)

    monkeypatch.setattr(Trainer, "run", spy)
    assert run(desk).code == 0
    begun.clear()
    before = load_predictions(retest)
    changed = STUDY | {"VARIANTS": STUDY["VARIANTS"] | {"full, method": {"TRAIN.LR": 0.01}}}
    (desk.folder / "study.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    done = run(desk)
    assert "begun anew, since these are others now: TRAIN.LR" in done.err
    assert begun == [("full_method", 0)] * 2
    assert (load_predictions(retest) != before).any()


def test_two_commands_share_a_study(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one command trains a variant, another does the rest, and none is done twice."""
    runs, train = [], Trainer.run

    def spy(trainer: Trainer) -> None:
        runs.append(trainer.folder.parent.name)
        if len(runs) == 1:
            other = run(desk)
            assert other.code == 0, other.err
            assert "left to the commands that are at it: dense, seed 0" in other.err
        train(trainer)

    monkeypatch.setattr(Trainer, "run", spy)
    done = run(desk)
    assert done.code == 0, done.err
    assert runs == ["dense", "full_method", "dense", "full_method"]


def test_each_seed_can_start_from_weights_of_its_own(desk: Desk) -> None:
    start = "{seed}/weights.pth"
    changed = STUDY | {"VARIANTS": STUDY["VARIANTS"] | {"dense": {"MODEL.PRETRAINED": start}}}
    path = desk.folder / "study.yaml"
    path.write_text(yaml.safe_dump(changed))
    study = load_study(path)
    starts = [
        study.configuration(study.variants["dense"], seed, []).MODEL.PRETRAINED for seed in (0, 3)
    ]
    assert starts == ["0/weights.pth", "3/weights.pth"]


def test_only_what_is_named_is_trained(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, train = [], Trainer.run

    def spy(trainer: Trainer) -> None:
        runs.append(trainer.folder.parent.name)
        train(trainer)

    monkeypatch.setattr(Trainer, "run", spy)
    run(desk, "--only", "methods").fails_with("'methods', only 'dense', 'full, method'")
    run(desk, "--only", "full, dense").fails_with(
        "'full, method', seed 0, which is not trained yet"
    )
    assert run(desk, "--only", "dense", "--report").code == 2
    done = run(desk, "--only", "full, method", "--only", "full, dense", "TRAIN.END_EPOCH", 1)
    assert done.code == 0, done.err
    assert runs == ["full_method", "full_method"]
    assert "| full, dense | 2 |" in done.out
    assert "| dense |" not in done.out
    assert run(desk, "--only", "full, dense", "TRAIN.END_EPOCH", 1).code == 0


def test_nothing_is_trained_that_cannot_be_finished(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "run", lambda trainer: pytest.fail("a training began"))
    run(desk, "DATASET.TEST_SET", "nobody").fails_with("has no annot/gt_nobody.mat")
    changes = {"full, method": {"MODEL.PRETRAINED": "none/{seed}.pth"}}
    path = desk.folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | {"VARIANTS": STUDY["VARIANTS"] | changes}))
    run(desk).fails_with("'full, method', seed 0, starts from none/0.pth, which is not there")


def test_a_variant_waits_for_weights_that_another_leaves(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is listed first."""
    place = desk.folder / "output/synthetic/pose_tokenpose_s/study"
    start = str(place / "start/seed_{seed}/final_state.pth")
    variants = {"dense": {"MODEL.PRETRAINED": start}, "start": {}}
    path = desk.folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | {"VARIANTS": variants, "RETESTS": {}}, sort_keys=False))
    runs, train = [], Trainer.run

    def spy(trainer: Trainer) -> None:
        runs.append(trainer.folder.parent.name)
        train(trainer)

    monkeypatch.setattr(Trainer, "run", spy)
    done = run(desk)
    assert done.code == 0, done.err
    assert runs == ["start", "start", "dense", "dense"]


def test_a_command_without_work_is_no_error(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that it was asked for is another command's already."""
    train = Trainer.run

    def spy(trainer: Trainer) -> None:
        other = run(desk, "--only", "dense", "SEED", 7)
        assert other.code == 0, other.err
        assert "left to the commands that are at it: dense, seed 0" in other.err
        train(trainer)

    monkeypatch.setattr(Trainer, "run", spy)
    (desk.folder / "study.yaml").write_text(yaml.safe_dump(STUDY | {"SEEDS": [0]}))
    assert run(desk, "--only", "dense", "SEED", 7).code == 0


def test_retests_are_compared_with_their_own_weights(desk: Desk) -> None:
    """And a difference is bold where it is sure, but never of one seed."""
    place = desk.folder / "output/synthetic/pose_tokenpose_s/study"
    truth = load_gt(desk.data / "annot/gt_valid.mat")["pos_gt_src"].transpose(2, 0, 1)

    def differences(seeds: list[int]) -> tuple[str, str]:
        (desk.folder / "study.yaml").write_text(yaml.safe_dump(STUDY | {"SEEDS": seeds}))
        assert run(desk).code == 0
        for folder, off in (("dense", 999), ("full_method", 0), ("full_dense", 999)):
            for seed in seeds:
                write_predictions(place / folder / f"seed_{seed}/pred.mat", truth - 1 + off)
        found = {}
        for line in run(desk, "--report").out.splitlines():
            found.setdefault(line.split(" | ")[0], line.strip("| ").split(" | "))
            if line.startswith("| full, dense | full, method |"):
                retest = line.strip("| ").split(" | ")[2]
        return found["| full, method"][4], retest

    sure = "100.00 [{0}100.00, {0}100.00]"
    assert differences([0, 3]) == ("**+" + sure.format("+") + "**", "**-" + sure.format("-") + "**")
    assert differences([0]) == ("+" + sure.format("+"), "-" + sure.format("-"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"CFG": "none.yaml"}, "none.yaml"),
        ({"SEEDS": "all"}, "SEEDS"),
        ({"BASELINE": "sparse"}, "sparse"),
        ({"VARIANTS": {"a": {"MODEL.DEPTH": 3}}, "BASELINE": "a", "RETESTS": {}}, "MODEL.DEPTH"),
        ({"VARIANTS": {"a": 3}}, "a should hold"),
        ({"RETESTS": {"a": {"OF": "nobody"}}}, "nobody"),
        ({"SEED": 3}, "CFG"),
    ],
)
def test_a_bad_study_is_told_in_one_line(desk: Desk, change: dict, told: str) -> None:
    (desk.folder / "study.yaml").write_text(yaml.safe_dump(STUDY | change))
    run(desk).fails_with(told)


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[2].glob("experiments/*/study*.yaml"))
)
def test_every_study_here_loads(path: Path) -> None:
    study = load_study(path)
    for variant in study.variants.values():
        for seed in study.seeds:
            study.configuration(variant, seed, [])


def test_photographs_start_from_what_synthetic_people_leave() -> None:
    """Each variant from its own network, and from that of the same seed."""
    studies = Path(__file__).parents[2] / "experiments"
    real, made = (load_study(studies / name / "study.yaml") for name in ("lspet", "synthetic"))
    for variant in real.variants.values():
        for seed in real.seeds:
            if variant.weights_of is None:
                twin = made.variants[variant.name]
                folder = made.folder(made.configuration(twin, seed, []), twin, seed)
                start = real.configuration(variant, seed, []).MODEL.PRETRAINED
                assert Path(start) == folder / "final_state.pth"
                ours, theirs = dict(variant.changes), dict(twin.changes)
                assert ours.pop("MODEL.PRETRAINED") != theirs.pop("MODEL.PRETRAINED")
                assert ours == theirs
