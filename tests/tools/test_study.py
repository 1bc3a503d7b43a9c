"""tools/study.py trains, resumes and reports."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from desk import Desk, Outcome

from lib.analysis.study.definition import Study, load_study
from lib.analysis.study.report import difference
from lib.config import load_cfg
from lib.core.trainer import Trainer
from lib.dataset import build_dataset
from lib.dataset.images import read_image
from lib.dataset.predictions import Predictions
from lib.metrics import build_metric

STUDY = {
    "CFG": "small.yaml",
    "SEEDS": [0, 3],
    "BASELINE": "dense",
    "VARIANTS": {"dense": {"MODEL.SPARSITY.PRUNE": "none"}, "full, method": {}},
    "RETESTS": {"full, dense": {"OF": "full, method", "MODEL.SPARSITY.PRUNE": "none"}},
}
EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def write(desk: Desk, **changes: object) -> Study:
    path = desk.folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes, sort_keys=False))
    return load_study(path)


def run(desk: Desk, *words: object) -> Outcome:
    if not (desk.folder / "study.yaml").exists():
        write(desk)
    return desk.run("study", "--study", desk.folder / "study.yaml", *words, *options(desk))


def options(desk: Desk) -> list[str]:
    folders = ("OUTPUT_DIR", desk.folder / "output", "LOG_DIR", desk.folder / "log")
    return [str(word) for word in (*folders, "DATASET.ROOT", desk.data, "TRAIN.END_EPOCH", 1)]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The variants that are trained, in order."""
    names, train = [], Trainer.run

    def spy(trainer: Trainer) -> None:
        names.append(trainer.folder.parent.name)
        train(trainer)

    monkeypatch.setattr(Trainer, "run", spy)
    return names


def tables(report: str) -> list[dict[str, list[str]]]:
    """The tables of a report: first cell of each row -> cells."""
    blocks = [
        [line.strip("| ").split(" | ") for line in block.splitlines()]
        for block in report.split("\n\n")
        if block.startswith("| ")
    ]
    return [{row[0]: row for row in table} for table in blocks]


def test_a_study_resumes_where_it_stopped_and_reports(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(desk, "--report").fails_with("no variant is tested yet")
    runs, train = [], Trainer.run

    def spy(trainer: Trainer) -> None:
        if len(runs) == 3 and "stop" not in runs:
            runs.append("stop")
            raise KeyboardInterrupt
        runs.append(trainer.folder.name)
        train(trainer)

    monkeypatch.setattr(Trainer, "run", spy)
    assert run(desk).code == 130
    half = run(desk, "--report")
    assert half.code == 0, half.err
    done = run(desk)
    assert done.code == 0, done.err
    assert runs == ["seed_0", "seed_0", "seed_3", "stop", "seed_3"]
    again = run(desk)
    assert len(runs) == 5
    assert "higher is better" in again.out
    report = load_study(desk.folder / "study.yaml").folder(load_cfg(desk.yaml, options(desk)))
    assert read_image(report / "scores.png").size
    summary, retests, scores = tables(again.out)
    assert {"dense", "full, method", "full, dense"} < summary.keys()
    assert summary["dense"][1] == "2"
    assert summary["dense"][4] == "–"  # the baseline is not compared with itself

    study = load_study(desk.folder / "study.yaml")
    jobs = [study.job("full, method", seed, options(desk)) for seed in (0, 3)]
    metric, dataset = build_metric(jobs[0].cfg), build_dataset(jobs[0].cfg, "test")

    def compared(variant: str, other: str) -> str:
        a, b = (
            np.stack(
                [
                    metric.contributions(metric.load_predictions(job.folder, dataset), dataset)
                    for job in (study.job(name, seed, options(desk)) for seed in (0, 3))
                ]
            )
            for name in (other, variant)
        )
        result = difference(a, b)
        return f"{result.mean:+.2f} [{result.low:+.2f}, {result.high:+.2f}]"

    assert summary["full, method"][4].strip("*") == compared("full, method", "dense")
    assert summary["full, dense"][4].strip("*") == compared("full, dense", "dense")
    assert retests["full, dense"][1] == "full, method"
    assert retests["full, dense"][2].strip("*") == compared("full, dense", "full, method")
    results = [json.loads((job.folder / "results.json").read_text())["scores"] for job in jobs]
    for column, name in enumerate(scores["variant"][1:], 1):
        mean = np.mean([result[name] for result in results])
        assert float(scores["full, method"][column]) == pytest.approx(mean, abs=0.006)


def test_a_changed_variant_is_trained_from_the_start(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its old checkpoint nor the retests of its old weights are kept."""
    started, train = [], Trainer.run

    def spy(trainer: Trainer) -> None:
        started.append((trainer.folder.parent.name, trainer.progress.epoch))
        train(trainer)

    monkeypatch.setattr(Trainer, "run", spy)
    assert run(desk).code == 0
    started.clear()
    retest = load_study(desk.folder / "study.yaml").job("full, dense", 0, options(desk)).folder
    before = (retest / "pred.mat").read_bytes()
    write(desk, VARIANTS=STUDY["VARIANTS"] | {"full, method": {"TRAIN.LR": 0.01}})
    done = run(desk)
    assert "config changed (TRAIN.LR), retraining" in done.err
    assert started == [("full_method", 0)] * 2
    assert (retest / "pred.mat").read_bytes() != before


def test_two_commands_share_a_study(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one command trains a variant, another does the rest, and nothing is done twice."""
    names, train = [], Trainer.run

    def spy(trainer: Trainer) -> None:
        names.append(trainer.folder.parent.name)
        if len(names) == 1:
            other = run(desk)
            assert other.code == 0, other.err
            assert "dense, seed 0: another command trains it" in other.err
        train(trainer)

    monkeypatch.setattr(Trainer, "run", spy)
    done = run(desk)
    assert done.code == 0, done.err
    assert names == ["dense", "full_method", "dense", "full_method"]


def test_each_seed_can_start_from_its_own_weights(desk: Desk) -> None:
    start = {"MODEL.PRETRAINED": "{seed}/weights.pth"}
    study = write(desk, VARIANTS=STUDY["VARIANTS"] | {"dense": start})
    starts = [study.job("dense", seed).cfg.MODEL.PRETRAINED for seed in (0, 3)]
    assert starts == ["0/weights.pth", "3/weights.pth"]


def test_only_the_chosen_variants_are_trained(desk: Desk, trained: list[str]) -> None:
    run(desk, "--only", "methods").fails_with("'methods', only 'dense', 'full, method'")
    run(desk, "--only", "full, dense").fails_with("'full, dense', seed 0, needs")
    assert run(desk, "--only", "dense", "--report").code == 2
    done = run(desk, "--only", "full, method", "--only", "full, dense")
    assert done.code == 0, done.err
    assert trained == ["full_method", "full_method"]
    assert "| full, dense | 2 |" in done.out
    assert "| dense |" not in done.out
    assert run(desk, "--only", "full, dense").code == 0


def test_missing_files_are_reported_before_any_training(desk: Desk, trained: list[str]) -> None:
    (desk.data / "annot/nobody.json").write_bytes((desk.data / "annot/valid.json").read_bytes())
    run(desk, "DATASET.TEST_SET", "nobody").fails_with("nobody has no annotation")
    write(desk, VARIANTS=STUDY["VARIANTS"] | {"full, method": {"MODEL.PRETRAINED": "{seed}.pth"}})
    run(desk).fails_with("'full, method', seed 0, needs 0.pth, which is not trained")
    assert not trained


def test_a_variant_can_start_from_the_weights_of_an_earlier_one(
    desk: Desk, trained: list[str]
) -> None:
    folder = desk.folder / "output/synthetic/pose_tokenpose_s/study"
    start = {"MODEL.PRETRAINED": str(folder / "start/seed_{seed}/final_state.pth")}
    write(desk, VARIANTS={"dense": start, "start": {}}, RETESTS={})
    run(desk).fails_with("list its variant before")
    write(desk, VARIANTS={"start": {}, "dense": start}, RETESTS={})
    done = run(desk)
    assert done.code == 0, done.err
    assert trained == ["start", "dense", "start", "dense"]


def test_a_command_succeeds_if_another_one_does_all_work(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Trainer.run

    def spy(trainer: Trainer) -> None:
        other = run(desk, "--only", "dense", "SEED", 7)
        assert other.code == 0, other.err
        assert "dense, seed 0: another command trains it" in other.err
        train(trainer)

    monkeypatch.setattr(Trainer, "run", spy)
    write(desk, SEEDS=[0])
    assert run(desk, "--only", "dense", "SEED", 7).code == 0


def test_significant_differences_are_bold_if_there_are_several_seeds(desk: Desk) -> None:
    """Retests are compared with the variant whose weights they have."""
    study = write(desk)
    assert run(desk).code == 0
    for variant, offset in (("dense", 999), ("full, method", 0), ("full, dense", 999)):
        for seed in (0, 3):
            job = study.job(variant, seed, options(desk))
            dataset = build_dataset(job.cfg, "test")
            joints = np.stack([record.joints for record in dataset.records]) + offset
            predictions = Predictions(joints, np.ones(joints.shape[:2]))
            build_metric(job.cfg).save_predictions(job.folder, predictions, dataset)

    def differences(seeds: list[int]) -> tuple[str, str]:
        write(desk, SEEDS=seeds)
        summary, retests, _ = tables(run(desk, "--report").out)
        return summary["full, method"][4], retests["full, dense"][2]

    clear = "100.00 [{0}100.00, {0}100.00]"
    bold = ("**+" + clear.format("+") + "**", "**-" + clear.format("-") + "**")
    assert differences([0, 3]) == bold
    assert differences([0]) == tuple(text.strip("*") for text in bold)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"CFG": "none.yaml"}, "none.yaml"),
        ({"SEEDS": "all"}, "SEEDS"),
        ({"BASELINE": "sparse"}, "sparse"),
        ({"VARIANTS": {"a": {"MODEL.DEPTH": 3}}, "BASELINE": "a", "RETESTS": {}}, "MODEL.DEPTH"),
        ({"VARIANTS": {"a": {"MODEL.DIM": 3}}, "BASELINE": "a", "RETESTS": {}}, "MODEL.DIM"),
        ({"VARIANTS": {"a": 3}}, "must map names"),
        ({"VARIANTS": STUDY["VARIANTS"] | {"full method": {}}}, "share a folder"),
        ({"RETESTS": {"a": {"OF": "nobody"}}}, "nobody"),
        ({"SEED": 3}, "CFG"),
    ],
)
def test_a_wrong_study_is_one_line(desk: Desk, changes: dict, message: str) -> None:
    path = desk.folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes))
    run(desk).fails_with(message)


def test_a_study_refuses_to_test_on_images_of_the_training(desk: Desk, trained: list[str]) -> None:
    path = desk.data / "annot/train.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([entries[0] | {"image": "valid_000003.jpg"}, *entries[1:]]))
    run(desk).fails_with("share 1 of 6 test images (valid_000003.jpg)")
    run(desk, "DATASET.TEST_SET", "train").fails_with("share 20 of 20 test images")
    assert not trained


def test_a_study_reports_missing_images_before_any_training(desk: Desk, trained: list[str]) -> None:
    other = {"DATASET.TRAIN_SET": "other"}
    entries = json.loads((desk.data / "annot/train.json").read_text())
    entries[3]["image"] = "none.jpg"
    (desk.data / "annot/other.json").write_text(json.dumps(entries))
    write(desk, VARIANTS=STUDY["VARIANTS"] | {"other data": other})
    run(desk).fails_with("none.jpg")
    assert not trained


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*/study*.yaml")))
def test_every_published_study_loads(path: Path) -> None:
    assert load_study(path).jobs([])


def test_photographs_start_from_the_networks_of_synthetic_people() -> None:
    """Each variant from its own network, of the same seed."""
    real, synthetic = (
        load_study(EXPERIMENTS / name / "study.yaml") for name in ("lspet", "synthetic")
    )
    for job in real.jobs([]):
        if job.owner is None:
            twin = synthetic.job(job.variant, job.seed)
            assert job.start == twin.folder / "final_state.pth"
            ours, theirs = dict(real.changes[job.variant]), dict(synthetic.changes[job.variant])
            assert ours.pop("MODEL.PRETRAINED") != theirs.pop("MODEL.PRETRAINED")
            assert ours == theirs
