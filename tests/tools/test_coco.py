"""COCO from training to results through the commands, on drawn and on real photographs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from coco_set import detections
from desk import SMALL, Desk

from lib.dataset.skeleton import COCO

GT = "annotations/person_keypoints_val2017.json"
MODEL = SMALL["MODEL"] | {"NUM_JOINTS": 17, "IMAGE_SIZE": [24, 32], "HEATMAP_SIZE": [12, 16]}
DATA = {"DATASET": "coco", "TRAIN_SET": "train2017", "TEST_SET": "val2017", "PROB_HALF_BODY": 0.3}


@pytest.fixture(params=["drawn", "real"])
def coco_desk(request: pytest.FixtureRequest, desk: Desk, coco: Path) -> Desk:
    shutil.rmtree(desk.data)
    real = request.param == "real"
    source = request.getfixturevalue("shared") / "data/coco" if real else coco
    shutil.copytree(source, desk.data, copy_function=shutil.copyfile)
    train = SMALL["TRAIN"] | {"END_EPOCH": 1}
    desk.yaml.write_text(yaml.safe_dump(SMALL | {"DATASET": DATA, "MODEL": MODEL, "TRAIN": train}))
    desk.results = desk.folder / "output/coco/pose_tokenpose_s/small"
    return desk


def test_it_trains_and_tests_with_annotated_and_detected_boxes(coco_desk: Desk) -> None:
    desk = coco_desk
    trained = desk.on_cfg("train")
    assert trained.code == 0, trained.err
    assert "best OKS-AP" in trained.out
    tested = desk.on_cfg("test")
    assert tested.code == 0, tested.err
    assert "| Arch | AP | AP .5 | AP .75 | AP (M) | AP (L) | AR |" in tested.out
    results, scores = (desk.results / name for name in ("keypoints_results.json", "results.json"))
    evaluated = desk.run(
        "evaluate", "--gt", desk.data / GT, "--pred", results, "--json", desk.folder / "s.json"
    )
    assert evaluated.code == 0, evaluated.err
    tabled = json.loads((desk.folder / "s.json").read_text())
    assert tabled == json.loads(scores.read_text())["scores"]

    (desk.folder / "found.json").write_text(json.dumps(detections(desk.data / GT)))
    keys = ("TEST.USE_GT_BBOX", False, "TEST.COCO_BBOX_FILE", desk.folder / "found.json")
    hrnet = ("DATASET.UNBIASED", False, "TEST.SHIFT_HEATMAP", True, "TEST.REFINEMENT", "quarter")
    tested = desk.on_cfg("test", *keys, *hrnet, "TEST.SOFT_NMS", True)
    assert tested.code == 0, tested.err
    people = json.loads(scores.read_text())["people"]
    assert people == len(json.loads((desk.folder / "found.json").read_text()))


def test_a_set_without_annotation_gets_results_and_no_scores(coco_desk: Desk) -> None:
    desk = coco_desk
    desk.save_random_weights()
    found = desk.folder / "found.json"
    found.write_text(json.dumps(detections(desk.data / GT)))
    content = json.loads((desk.data / GT).read_text())
    info = desk.data / "annotations/image_info_test2017.json"
    info.write_text(json.dumps({"images": content["images"]}))
    (desk.data / "images/val2017").rename(desk.data / "images/test2017")
    keys = ("TEST.USE_GT_BBOX", False, "TEST.COCO_BBOX_FILE", found)
    tested = desk.on_cfg("test", "DATASET.TEST_SET", "test2017", *keys)
    assert tested.code == 0, tested.err
    assert "no scores" in tested.out
    entries = json.loads((desk.results / "keypoints_results.json").read_text())
    assert {entry["image_id"] for entry in entries} <= {x["id"] for x in content["images"]}
    assert all(np.isfinite(entry["keypoints"]).all() for entry in entries)


def test_a_missing_image_is_an_error_before_any_work(coco_desk: Desk) -> None:
    path = sorted((coco_desk.data / "images/val2017").iterdir())[0]
    path.unlink()
    coco_desk.save_random_weights()
    coco_desk.on_cfg("test").fails_with(path.name)


def test_wrong_results_are_errors(coco_desk: Desk) -> None:
    wrong = coco_desk.folder / "wrong.json"
    wrong.write_text("[]")
    coco_desk.run("evaluate", "--gt", coco_desk.data / GT, "--pred", wrong).fails_with("wrong.json")
    wrong.write_text("{}")
    coco_desk.run("evaluate", "--gt", wrong, "--pred", wrong).fails_with("wrong.json")


def test_seventeen_joints_are_predicted_and_drawn(coco_desk: Desk) -> None:
    desk = coco_desk
    desk.save_random_weights()
    image, out = sorted((desk.data / "images/val2017").iterdir())[0], desk.folder / "people"
    done = desk.on_cfg(
        "predict", "--input", image, "--boxes", desk.data / GT, "--kpt-thr", -1, "--out", out
    )
    assert done.code == 0, done.err
    entries = json.loads((out / "keypoints.json").read_text())
    assert entries
    assert entries[0]["image_id"] == int(image.stem)
    assert all(tuple(entry["keypoint_names"]) == COCO.names for entry in entries)
    assert all(len(entry["keypoints"]) == 51 for entry in entries)
    assert (out / image.name).read_bytes() != image.read_bytes()


@pytest.mark.parametrize("coco_desk", ["drawn"], indirect=True)
def test_a_study_and_plots_know_average_precision(coco_desk: Desk) -> None:
    desk = coco_desk
    study = {
        "CFG": "small.yaml",
        "VARIANTS": {"dense": {"MODEL.SPARSITY.PRUNE": "none"}, "full": {}},
    }
    path = desk.folder / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    folders = ("OUTPUT_DIR", desk.folder / "output", "LOG_DIR", desk.folder / "log")
    done = desk.run("study", "--study", path, *folders, "DATASET.ROOT", desk.data)
    assert done.code == 0, done.err
    assert "OKS-AP (higher is better)" in done.out
    assert "0.0000" in done.out
    runs = [file.parent for file in (desk.folder / "output").rglob("results.json")]
    plotted = desk.run("plot", *runs)
    assert plotted.code == 0, plotted.err
