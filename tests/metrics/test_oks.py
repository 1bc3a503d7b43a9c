"""OKS suppression equals the published one; AP is that of COCO's own tool, to the last digit."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from coco_set import detections
from pycocotools.coco import COCO as CocoFile
from pycocotools.cocoeval import COCOeval, Params
from yacs.config import CfgNode

from lib.config import get_cfg
from lib.dataset import PoseDataset, build_dataset
from lib.dataset.predictions import Predictions
from lib.dataset.skeleton import COCO
from lib.metrics import build_metric
from lib.metrics.oks import OksAP, oks_nms, score_results, soft_oks_nms
from lib.utils.errors import UserError

SIGMAS = np.array(COCO.sigmas)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_suppression_keeps_the_people_of_the_published_code(shared: Path, threshold: float) -> None:
    golden = np.load(shared / "golden/oks_nms.npz")
    people = (golden["keypoints"], golden["score"], golden["area"], threshold, SIGMAS)
    assert oks_nms(*people).tolist() == golden[f"keep_{threshold}"].tolist()
    assert oks_nms(*people, 0.2).tolist() == golden[f"keep_vis_{threshold}"].tolist()
    assert soft_oks_nms(*people).tolist() == golden[f"soft_{threshold}"].tolist()


def random_people(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(0, 30, (count, 17, 3))
    return keypoints, rng.random(count), rng.uniform(2000, 4000, count)


def test_suppression_of_few_people() -> None:
    for count in (0, 1):
        assert oks_nms(*random_people(count), 0.9, SIGMAS).tolist() == list(range(count))
        assert soft_oks_nms(*random_people(count), 0.9, SIGMAS).tolist() == list(range(count))
    keypoints, scores, areas = random_people(40)
    everyone = np.argsort(-scores)
    assert oks_nms(keypoints, scores, areas, 1.0, SIGMAS).tolist() == everyone.tolist()
    assert len(soft_oks_nms(keypoints, scores, areas, 0.9, SIGMAS)) == 20
    twice = np.concatenate([everyone, everyone])
    kept = oks_nms(keypoints[twice], scores[twice], areas[twice], 0.999, SIGMAS)
    assert kept.tolist() == list(range(40))  # of two equal people, the first


def set_up(root: Path) -> CfgNode:
    cfg = get_cfg()
    cfg.DATASET.DATASET, cfg.DATASET.ROOT, cfg.MODEL.NUM_JOINTS = "coco", str(root), 17
    cfg.DATASET.TEST_SET, cfg.MODEL.IMAGE_SIZE = "val2017", [48, 64]
    return cfg


def noisy(dataset: PoseDataset, pixels: float) -> Predictions:
    rng = np.random.default_rng(1)
    joints = np.stack([record.joints for record in dataset.records]).astype(np.float64)
    scores = rng.uniform(0.1, 1, joints.shape[:2])
    return Predictions(joints + pixels * rng.standard_normal(joints.shape), scores)


def library_scores(gt: Path, results: Path) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = CocoFile(str(gt))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


@pytest.fixture(params=["drawn", "real"])
def root(request: pytest.FixtureRequest, coco: Path) -> Path:
    if request.param == "drawn":
        return coco
    return request.getfixturevalue("shared") / "data/coco"


@pytest.mark.parametrize("pixels", [0, 3, 9])
def test_scores_are_those_of_the_library(root: Path, tmp_path: Path, pixels: float) -> None:
    cfg = set_up(root)
    dataset, metric = build_dataset(cfg, "test"), build_metric(cfg)
    predictions = noisy(dataset, pixels)
    scores = metric.evaluate(predictions, dataset)
    if pixels == 0:
        assert scores["AP"] == scores["AR"] == 1
    results = metric.save_predictions(tmp_path, predictions, dataset)
    gt = root / "annotations/person_keypoints_val2017.json"
    expected = [np.nan if x == -1 else x for x in library_scores(gt, results)]
    np.testing.assert_array_equal(list(scores.values()), expected)
    np.testing.assert_equal(score_results(gt, results, COCO), scores)
    total, count = metric.contributions(predictions, dataset).sum(axis=0)
    assert total / count == pytest.approx(scores["AP"])


def test_ids_from_0_cost_nobody(coco: Path, tmp_path: Path) -> None:
    gt = json.loads((coco / "annotations/person_keypoints_val2017.json").read_text())
    for index, entry in enumerate(gt["annotations"]):
        entry["id"] = index  # COCO's tool takes 0 for nobody
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    people = [entry | {"score": 1.0} for entry in gt["annotations"] if entry["num_keypoints"]]
    (tmp_path / "results.json").write_text(json.dumps(people))
    assert score_results(tmp_path / "gt.json", tmp_path / "results.json", COCO)["AP"] == 1


def test_a_person_s_score_is_the_box_s_times_that_of_its_joints(coco: Path, tmp_path: Path) -> None:
    cfg = set_up(coco)
    gt = coco / "annotations/person_keypoints_val2017.json"
    (tmp_path / "found.json").write_text(json.dumps(detections(gt)))
    cfg.TEST.USE_GT_BBOX, cfg.TEST.COCO_BBOX_FILE = False, str(tmp_path / "found.json")
    dataset = build_dataset(cfg, "test")  # the first two people have the score 0.4
    predictions = noisy(dataset, 3)
    predictions.scores[0] = [0.15] * 10 + [0.5] * 6 + [0.8]
    predictions.scores[1] = 0.05  # below the threshold
    file = OksAP(joint_threshold=0.2).save_predictions(tmp_path, predictions, dataset)
    first, second = json.loads(file.read_text())[:2]
    assert (first["image_id"], first["category_id"]) == (7, 1)
    assert first["score"] == pytest.approx(0.4 * (6 * 0.5 + 0.8) / 7)
    assert second["score"] == 0
    np.testing.assert_array_equal(
        np.reshape(first["keypoints"], (17, 3))[:, :2], predictions.joints[0]
    )


def test_repeated_people_are_written_once(coco: Path, tmp_path: Path) -> None:
    dataset = build_dataset(set_up(coco), "test")
    predictions = noisy(dataset, 0)
    predictions.joints[1] = predictions.joints[0] + 1
    for metric, count in ((OksAP(), 9), (OksAP(oks_threshold=1.0), 10), (OksAP(soft=True), 10)):
        file = metric.save_predictions(tmp_path, predictions, dataset)
        assert len(json.loads(file.read_text())) == count


def test_predictions_that_are_not_numbers_are_written_as_numbers(
    coco: Path, tmp_path: Path
) -> None:
    dataset, metric = build_dataset(set_up(coco), "test"), OksAP()
    predictions = noisy(dataset, 0)
    predictions.joints[0], predictions.scores[0] = np.nan, np.nan
    file = metric.save_predictions(tmp_path, predictions, dataset)
    assert "NaN" not in file.read_text()
    assert metric.evaluate(predictions, dataset)["AP"] < 1
    assert np.isinf(metric.errors(predictions, dataset)[0]).sum() == 15


def test_errors_give_oks(coco: Path) -> None:
    dataset = build_dataset(set_up(coco), "test")
    predictions = noisy(dataset, 0)
    predictions.joints[:] += [3, 4]
    errors = OksAP().errors(predictions, dataset)
    expected = np.exp(-25 / (2 * 1800.5 * (2 * SIGMAS) ** 2))
    seen = dataset.records[0].visible > 0
    np.testing.assert_allclose(np.exp(-(errors[0] ** 2) / 2)[seen], expected[seen])
    assert np.isnan(errors[0][~seen]).all()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ([], "empty"),
        ({}, "empty"),
        (3, "must be a list of COCO's results"),
        ([3], "must be a list of COCO's results"),
        ([{"image_id": 7}], "category_id"),
        ([{"category_id": 1}], "image_id"),
        ([{"image_id": 999, "category_id": 1}], "image_id"),
        ([{"image_id": [7], "category_id": 1}], "must be a list of COCO's results"),
        ([{"image_id": 7, "category_id": 1, "keypoints": [0] * 48, "score": 1}], "keypoints"),
        ([{"image_id": 7, "category_id": 1, "keypoints": [0] * 51, "score": "high"}], "score"),
        ([{"image_id": 7, "keypoints": [0] * 51, "score": 1, "category_id": 2}], "category_id"),
        (
            [{"image_id": 7, "keypoints": [0] * 51, "score": 1, "category_id": 1, "bbox": 3}],
            "COCO's results",
        ),
    ],
)
def test_wrong_results_are_errors_of_one_line(
    coco: Path, tmp_path: Path, content: object, word: str
) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    gt = coco / "annotations/person_keypoints_val2017.json"
    with pytest.raises(UserError, match=f"results.json.*{word}"):
        score_results(gt, path, COCO)


def test_sigmas_are_those_of_the_library() -> None:
    np.testing.assert_array_equal(SIGMAS, Params("keypoints").kpt_oks_sigmas)
