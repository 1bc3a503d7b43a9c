"""Samples: crops with their joints, which depend on the configuration, epoch and index only."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from yacs.config import CfgNode

from lib.dataset import DATASETS, SKELETONS, build_dataset, build_skeleton, resolve_path
from lib.dataset.images import decode_image
from lib.dataset.transforms import crop_matrix, transform_points
from lib.utils.errors import UserError


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_sample_is_the_crop_with_its_joints(
    cfg: CfgNode, assert_same: Callable[..., None]
) -> None:
    dataset = build_dataset(cfg, "test")
    assert len(dataset) == 7
    sample = dataset[3]
    record = dataset.records[3]
    assert sample["image"].shape == (48, 32, 3)
    assert sample["image"].dtype == np.uint8
    assert sample["joints"].dtype == sample["visible"].dtype == np.float32
    matrix = crop_matrix(record.center, record.scale, 0, (32, 48))
    np.testing.assert_allclose(sample["joints"], transform_points(record.joints, matrix), atol=1e-4)
    np.testing.assert_array_equal(sample["visible"], record.visible)
    np.testing.assert_array_equal(sample["center"], record.center)
    assert sample["index"] == 3
    assert_same(sample, dataset[5, 3])  # without augmentation all epochs are the same


def test_joints_follow_the_image(cfg: CfgNode, root: Path) -> None:
    """Discs drawn at the joints are at the joints of the sample, whatever the augmentation.

    Each disc has its own colour, so pixels show whether mirror pairs were swapped.
    """
    image = np.zeros((900, 1200, 3), np.uint8)
    joints = np.stack([300 + 40 * np.arange(16), 250 + 97 * (np.arange(16) % 5)], 1)
    for j, (x, y) in enumerate(joints.tolist()):
        cv2.circle(image, (x, y), 15, (0, 0, 80 + 11 * j), -1)
    cv2.imwrite(str(root / "images" / "0.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 100])
    person = {"image": "0.jpg", "center": [600, 450], "scale": 3.2, "joints_vis": [0] + [1] * 15}
    write(root / "annot" / "train.json", [{**person, "joints": (joints + 1).tolist()}])
    cfg.MODEL.IMAGE_SIZE, cfg.DATASET.PROB_HALF_BODY = [256, 256], 0.3
    dataset = build_dataset(cfg, "train")
    order, inside_count, mirrored = np.array(dataset.skeleton.flip_order), 0, 0
    for epoch in range(12):
        sample = dataset[epoch, 0]
        x, y = np.rint(sample["joints"]).astype(int).T
        inside = (x > 0) & (y > 0) & (x < 255) & (y < 255)
        red = sample["image"][y[inside], x[inside], 0].astype(int)
        straight, swapped = 80 + 11 * np.arange(16)[inside], 80 + 11 * order[inside]
        fits = [np.abs(red - expected).max() < 8 for expected in (straight, swapped)]
        assert sum(fits) == 1
        hidden = 5 if fits[1] else 0  # the right ankle becomes the left one
        assert np.flatnonzero(sample["visible"] == 0).tolist() == [hidden]
        inside_count, mirrored = inside_count + inside.sum(), mirrored + fits[1]
    assert inside_count > 100
    assert 0 < mirrored < 12


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_of_too_many_pixels_are_not_decoded(
    cfg: CfgNode, split: Literal["train", "test"]
) -> None:
    cfg.DATASET.MAX_PIXELS = 200 * 120
    assert build_dataset(cfg, split)[0]["image"].size
    cfg.DATASET.MAX_PIXELS -= 1
    with pytest.raises(UserError, match=r"0\.jpg.*DATASET\.MAX_PIXELS"):
        build_dataset(cfg, split)[0]


def test_training_decodes_at_the_size_that_the_crop_needs(
    cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors = []

    def spy(data: bytes, name: str, reduce: int, max_pixels: int) -> np.ndarray:
        factors.append(reduce)
        return decode_image(data, name, reduce)

    monkeypatch.setattr("lib.dataset.pose_dataset.decode_image", spy)
    cfg.DATASET.SCALE_FACTOR = cfg.DATASET.PROB_HALF_BODY = 0.0
    for split, expected in (("train", [1, 2, 1, 4, 4, 4, 4]), ("test", [1] * 7)):
        factors.clear()
        dataset = build_dataset(cfg, split)
        for index in range(7):
            dataset[index]
        assert factors == expected  # boxes of 50, 75, (a PNG), 125, 150, 175, 200 pixels; crop 32


def test_zip_and_bgr_change_only_source_and_channels(
    cfg: CfgNode, assert_same: Callable[..., None]
) -> None:
    files = build_dataset(cfg, "train")
    cfg.DATASET.DATA_FORMAT = "zip"
    assert_same(build_dataset(cfg, "train")[1, 4], files[1, 4])
    cfg.DATASET.COLOR_RGB = False
    bgr = build_dataset(cfg, "train")[1, 4]["image"]
    np.testing.assert_array_equal(bgr[..., ::-1], files[1, 4]["image"])


def test_epoch_and_seed_change_the_sample(cfg: CfgNode, assert_same: Callable[..., None]) -> None:
    dataset = build_dataset(cfg, "train")
    assert_same(dataset[0], dataset[0, 0])
    assert not np.array_equal(dataset[0, 1]["joints"], dataset[1, 1]["joints"])
    cfg.SEED = 1
    assert not np.array_equal(build_dataset(cfg, "train")[0, 1]["joints"], dataset[0, 1]["joints"])


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "coco"])
def test_every_dataset_in_mpii_s_layout_builds(cfg: CfgNode, name: str, root: Path) -> None:
    cfg.DATASET.DATASET = name
    dataset = build_dataset(cfg, "test")
    assert dataset.annotation.gt_path == root / "annot" / "gt_valid.mat"
    cfg.DATASET.TEST_SET = "test"
    dataset = build_dataset(cfg, "test")
    assert dataset.annotation.gt_path is None
    assert not dataset[0]["visible"].any()


def test_the_biased_crop_is_a_key(cfg: CfgNode) -> None:
    cfg.DATASET.UNBIASED = False
    dataset = build_dataset(cfg, "test")
    record, sample = dataset.records[1], dataset[1]
    matrix = crop_matrix(record.center, record.scale, 0, (32, 48), unbiased=False)
    np.testing.assert_allclose(sample["joints"], transform_points(record.joints, matrix), rtol=1e-5)


def test_wrong_keys_are_named(cfg: CfgNode, one_line: Callable[..., None]) -> None:
    cfg.DATASET.DATASET = "cocoa"
    one_line(lambda: build_dataset(cfg, "train"), "DATASET.DATASET", "cocoa", "mpii")
    cfg.DATASET.DATASET, cfg.MODEL.NUM_JOINTS = "mpii", 17
    one_line(lambda: build_dataset(cfg, "train"), "MODEL.NUM_JOINTS", "17", "16")
    cfg.DATASET.SKELETON = "horse"
    one_line(lambda: build_dataset(cfg, "train"), "DATASET.SKELETON", "horse", "coco")


def test_the_skeleton_is_a_name_in_the_configuration(cfg: CfgNode) -> None:
    assert build_skeleton(cfg) is SKELETONS["mpii"]
    cfg.DATASET.SKELETON, cfg.MODEL.NUM_JOINTS = "coco", 17
    assert build_skeleton(cfg) is SKELETONS["coco"]


def test_the_next_readable_person_replaces_an_unreadable_one(
    cfg: CfgNode, root: Path, assert_same: Callable[..., None], one_line: Callable[..., None]
) -> None:
    for name in ("5.jpg", "6.jpg"):
        (root / "images" / name).unlink()
    one_line(lambda: build_dataset(cfg, "train")[5], "5.jpg")
    cfg.DATASET.SKIP_BAD_IMAGES = 1
    dataset = build_dataset(cfg, "train")
    assert_same(dataset[5], dataset[0] | {"requested": 5})
    one_line(lambda: build_dataset(cfg, "test")[5], "5.jpg")
    for path in (root / "images").iterdir():
        path.unlink()
    one_line(lambda: dataset[0], "cannot read the image")


def test_absolute_paths_are_not_changed(cfg: CfgNode, tmp_path: Path) -> None:
    cfg.DATA_DIR = "elsewhere"
    assert resolve_path(cfg, tmp_path) == tmp_path
    assert resolve_path(cfg, "x") == Path("elsewhere/x")


def test_real_people_are_read(cfg: CfgNode, shared: Path) -> None:
    cfg.DATA_DIR, cfg.DATASET.ROOT = str(shared / "data"), "mpii"
    cfg.DATASET.TEST_SET = cfg.DATASET.TRAIN_SET = "sample"
    cfg.MODEL.IMAGE_SIZE = [256, 256]
    plain, varied = build_dataset(cfg, "test"), build_dataset(cfg, "train")
    assert len(plain) == 5
    assert plain.annotation.gt_path is not None
    for index in range(5):
        sample = plain[index]
        visible = sample["visible"] > 0
        inside = ((sample["joints"] >= 0) & (sample["joints"] <= 255)).all(1)
        assert inside[visible].mean() > 0.9
        assert sample["image"].mean() > 10
        assert varied[0, index]["image"].mean() > 5
