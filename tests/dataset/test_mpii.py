"""People in MPII's layout: read, refused where wrong, served the same by any number of workers."""

import gc
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from lib.config import get_cfg
from lib.dataset import DATASETS, build_dataset, build_test_loader, build_train_loader, rooted
from lib.dataset.images import ImageFolder, ImageZip, decode_image
from lib.dataset.loader import EpochBatchSampler, evaluation_order
from lib.dataset.mpii import Record, fits_its_box, read_records
from lib.dataset.transforms import crop_matrix, transform_points
from lib.utils.errors import UserError

PERSON = {
    "image": "a.jpg",
    "center": [101.0, 61.0],
    "scale": 0.4,
    "joints": [[71.0 + 4 * j, 31.0 + 3 * j] for j in range(16)],
    "joints_vis": [0] + [1] * 15,
}


def make_dataset(root: Path, people: int = 7) -> None:
    """Write a data set of `people`, each with a picture of its own, as files and as a zip."""
    (root / "annot").mkdir(parents=True)
    (root / "images").mkdir()
    entries = []
    for i in range(people):
        picture = np.random.default_rng(i).integers(0, 255, (15, 25, 3), np.uint8)
        name = f"{i}.png" if i == 2 else f"{i}.jpg"
        cv2.imwrite(str(root / "images" / name), cv2.resize(picture, (200, 120)))
        entries.append({**PERSON, "image": name, "scale": 0.2 + 0.1 * i})
    for image_set in ("train", "valid", "test"):
        (root / "annot" / f"{image_set}.json").write_text(json.dumps(entries))
        (root / "annot" / f"gt_{image_set}.mat").write_bytes(b"")
    with zipfile.ZipFile(root / "images.zip", "w") as file:
        for path in (root / "images").iterdir():
            file.write(path, path.name)


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    make_dataset(tmp_path / "people")
    cfg = get_cfg()
    cfg.DATA_DIR, cfg.DATASET.ROOT, cfg.WORKERS = str(tmp_path), "people", 0
    cfg.MODEL.IMAGE_SIZE, cfg.MODEL.HEATMAP_SIZE = [32, 48], [8, 12]
    cfg.DATASET.PROB_HALF_BODY = 0.5
    cfg.TRAIN.BATCH_SIZE_PER_GPU = cfg.TEST.BATCH_SIZE_PER_GPU = 3
    return cfg


def one_line(act: Callable[[], Any], *words: str) -> None:
    """`act` raises a UserError of a single line that holds all `words`."""
    with pytest.raises(UserError) as raised:
        act()
    message = str(raised.value)
    assert message.isprintable()
    assert len(message) < 600
    for word in words:
        assert word in message


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(other[key]), err_msg=key)


# Records


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_record_is_read_as_the_family_does(tmp_path: Path) -> None:
    (record,) = read_records(write(tmp_path / "train.json", [PERSON]), 16)
    assert record.image == "a.jpg"
    np.testing.assert_allclose(record.center, (100, 60 + 15 * 0.4))
    np.testing.assert_allclose(record.scale, (0.5, 0.5))
    np.testing.assert_array_equal(record.joints[:2], [(70, 30), (74, 33)])
    np.testing.assert_array_equal(record.visible, [0] + [1] * 15)
    assert record.joints.dtype == record.visible.dtype == np.float32


def test_a_set_without_annotation_has_no_visible_joint(tmp_path: Path) -> None:
    person = {key: PERSON[key] for key in ("image", "center", "scale")}
    path = write(tmp_path / "test.json", [person])
    (record,) = read_records(path, 16, with_joints=False)
    assert record.joints.shape == (16, 2)
    assert not record.visible.any()
    one_line(lambda: read_records(path, 16), "test.json", "record 0", "joints")


@pytest.mark.parametrize(
    ("content", "word"),
    [("{", "JSON"), ("", "JSON"), ("[" * 100000, "JSON"), ({}, "list"), ([], "empty")],
)
def test_an_annotation_that_is_no_list_is_refused(tmp_path: Path, content: Any, word: str) -> None:
    path = write(tmp_path / "train.json", content)
    one_line(lambda: read_records(path, 16), str(path), word)


def test_an_annotation_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_bytes(b"\xff\xfe\xfa")
    one_line(lambda: read_records(tmp_path / "train.json", 16), "train.json", "JSON")


def test_a_missing_annotation_is_named(tmp_path: Path) -> None:
    one_line(lambda: read_records(tmp_path / "train.json", 16), "train.json")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"image": None}, "image"),
        ({"image": ""}, "image"),
        ({"image": "a\nb.jpg"}, "image"),
        ({"image": "\u2028"}, "image"),
        ({"image": "\ud800.jpg"}, "image"),
        ({"image": 256 * "x"}, "image"),
        ({"image": 500 * ["x"]}, "image"),
        ({"center": None}, "center"),
        ({"center": [-1, -1]}, "no box"),
        ({"center": ["a", 1]}, "center"),
        ({"center": [1, 10**400]}, "center"),
        ({"scale": 0}, "no box"),
        ({"scale": -1}, "no box"),
        ({"scale": float("inf")}, "scale"),
        ({"joints": PERSON["joints"][:15]}, "joints"),
        ({"joints": [[1, 2, 3]] * 16}, "joints"),
        ({"joints": [[1, 2]] * 15 + [[1]]}, "joints"),
        ({"joints": [[1, float("nan")]] * 16}, "joints"),
        ({"joints_vis": [1] * 17}, "joints_vis"),
    ],
)
def test_a_wrong_record_is_named(tmp_path: Path, change: dict, word: str) -> None:
    path = write(tmp_path / "train.json", [PERSON, {**PERSON, **change}])
    one_line(lambda: read_records(path, 16), str(path), "record 1", word)


@pytest.mark.parametrize("key", ["image", "center", "scale", "joints", "joints_vis"])
def test_a_missing_field_is_named(tmp_path: Path, key: str) -> None:
    person = {k: v for k, v in PERSON.items() if k != key}
    path = write(tmp_path / "train.json", [PERSON, person, 7])
    one_line(lambda: read_records(path, 16), "record 1", f"`{key}`")


def test_select_data_keeps_people_whose_joints_lie_about_their_center() -> None:
    def person(offset: float, visible: int) -> Record:
        joints = np.full((16, 2), 100, np.float32)
        joints[visible:] = 9999  # hidden joints do not count
        shown = (np.arange(16) < visible).astype(np.float32)
        return Record("a.jpg", np.array([100.0 + offset, 100]), np.ones(2), joints, shown)

    # Box of 200 pixels: deviation 40. One joint: above 0.45, so within 40·sqrt(2·ln(1/0.45)).
    assert fits_its_box(person(50.0, 1))
    assert not fits_its_box(person(51.0, 1))
    # Sixteen joints: above 0.6375, so within 37.95 pixels.
    assert fits_its_box(person(37.9, 16))
    assert not fits_its_box(person(38.0, 16))
    assert not fits_its_box(person(0.0, 0))


# Images


def test_zip_and_folder_give_the_same_bytes(cfg: CfgNode) -> None:
    root = rooted(cfg, cfg.DATASET.ROOT)
    folder, archive = ImageFolder(root / "images"), ImageZip(root / "images.zip")
    for name in ("0.jpg", "2.png"):
        assert folder.read(name) == archive.read(name)
    copy = pickle.loads(pickle.dumps(archive))  # noqa: S301 -- what a spawned worker gets
    assert copy.read("1.jpg") == archive.read("1.jpg")


def test_a_zip_is_opened_again_in_a_forked_process(
    cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = ImageZip(rooted(cfg, "people") / "images.zip")
    archive.read("1.jpg")
    parents = archive._handle
    archive.read("1.jpg")
    assert archive._handle is parents
    monkeypatch.setattr("os.getpid", lambda: -7)
    archive.read("1.jpg")
    assert archive._handle is not parents


@pytest.mark.parametrize(
    "name", ["../annot/train.json", "a/../../x", "/etc/passwd", "..\\x", "C:\\x", "a\0b", ""]
)
def test_names_do_not_climb_out(cfg: CfgNode, name: str) -> None:
    root = rooted(cfg, "people")
    one_line(lambda: ImageFolder(root / "images").read(name), "images", "inside")
    one_line(lambda: ImageZip(root / "images.zip").read(name), "images.zip", "inside")


def test_what_cannot_be_read_is_named(cfg: CfgNode) -> None:
    root = rooted(cfg, "people")
    one_line(lambda: ImageFolder(root / "images").read("no.jpg"), "no.jpg")
    one_line(lambda: ImageZip(root / "images.zip").read("no.jpg"), "images.zip", "no.jpg")
    one_line(lambda: ImageFolder(root / "nothing"), "nothing")
    one_line(lambda: ImageZip(root / "nothing.zip"), "nothing.zip")
    (root / "images.zip").write_bytes(b"no zip")
    one_line(lambda: ImageZip(root / "images.zip").read("0.jpg"), "images.zip")
    for data in (b"", b"text", b"\xff\xd8\xff"):
        one_line(lambda data=data: decode_image(data, "odd.jpg"), "odd.jpg")


def test_pictures_are_decoded_to_bgr_as_stored() -> None:
    red = np.zeros((10, 20, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    plain = cv2.imencode(".jpg", red)[1].tobytes()
    exif = bytes.fromhex(  # orientation 6: to be turned by 90 degrees
        "ffe10022457869660000" "4d4d002a00000008" "0001" "011200030000000100060000" "00000000"
    )  # fmt: skip
    for data in (plain, plain[:2] + exif + plain[2:]):
        image = decode_image(data, "red.jpg")
        assert image.shape == (10, 20, 3)
        assert (image.mean((0, 1)) > (-1, -1, 250)).all()
        assert (image.mean((0, 1)) < (5, 5, 256)).all()


# Samples


def test_a_sample_is_the_crop_with_its_joints(cfg: CfgNode) -> None:
    dataset = build_dataset(cfg, "test")
    assert len(dataset) == 7
    sample = dataset[3]
    record = dataset.records[3]
    assert sample["image"].shape == (48, 32, 3)
    assert sample["image"].dtype == np.uint8
    assert sample["joints"].dtype == sample["visible"].dtype == np.float32
    there = crop_matrix(record.center, record.scale, 0, (32, 48))
    np.testing.assert_allclose(sample["joints"], transform_points(record.joints, there), atol=1e-4)
    np.testing.assert_array_equal(sample["visible"], record.visible)
    np.testing.assert_array_equal(sample["center"], record.center)
    assert sample["index"] == 3
    assert_same(sample, dataset[5, 3])  # no augmentation: all epochs are the same


def test_joints_stay_on_what_they_mark(cfg: CfgNode) -> None:
    """A disc at every joint is found again under the joint, however the sample was augmented.

    The colour of each disc names the joint's mirror pair, so pixels show that pairs were swapped.
    """
    root = rooted(cfg, "people")
    picture = np.zeros((900, 1200, 3), np.uint8)
    joints = np.stack([300 + 40 * np.arange(16), 250 + 97 * (np.arange(16) % 5)], 1)
    for j, (x, y) in enumerate(joints.tolist()):
        cv2.circle(picture, (x, y), 15, (0, 0, 80 + 11 * j), -1)
    cv2.imwrite(str(root / "images" / "0.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 100])
    person = {"image": "0.jpg", "center": [600, 450], "scale": 3.2, "joints_vis": [0] + [1] * 15}
    write(root / "annot" / "train.json", [{**person, "joints": (joints + 1).tolist()}])
    cfg.MODEL.IMAGE_SIZE, cfg.DATASET.PROB_HALF_BODY = [256, 256], 0.3
    dataset = build_dataset(cfg, "train")
    order, seen, mirrored = np.array(dataset.skeleton.flip_order), 0, 0
    for epoch in range(12):
        sample = dataset[epoch, 0]
        x, y = np.rint(sample["joints"]).astype(int).T
        inside = (x > 0) & (y > 0) & (x < 255) & (y < 255)
        red = sample["image"][y[inside], x[inside], 0].astype(int)
        straight, swapped = 80 + 11 * np.arange(16)[inside], 80 + 11 * order[inside]
        fits = [np.abs(red - expected).max() < 8 for expected in (straight, swapped)]
        assert sum(fits) == 1
        hidden = 5 if fits[1] else 0  # the right ankle is the left one in the mirror
        assert np.flatnonzero(sample["visible"] == 0).tolist() == [hidden]
        seen, mirrored = seen + inside.sum(), mirrored + fits[1]
    assert seen > 100
    assert 0 < mirrored < 12


def test_training_decodes_no_more_than_the_crop_needs(
    cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def spy(data: bytes, name: str, reduce: int) -> np.ndarray:
        asked.append(reduce)
        return decode_image(data, name, reduce)

    monkeypatch.setattr("lib.dataset.mpii.decode_image", spy)
    cfg.DATASET.SCALE_FACTOR = cfg.DATASET.PROB_HALF_BODY = 0.0
    for split, expected in (("train", [1, 2, 1, 4, 4, 4, 4]), ("test", [1] * 7)):
        asked.clear()
        dataset = build_dataset(cfg, split)
        for index in range(7):
            dataset[index]
        assert asked == expected  # boxes of 50, 75, (a PNG), 125, 150, 175, 200 pixels; crop 32


def test_zip_and_bgr_change_the_source_and_the_order_alone(cfg: CfgNode) -> None:
    files = build_dataset(cfg, "train")
    cfg.DATASET.DATA_FORMAT = "zip"
    assert_same(build_dataset(cfg, "train")[1, 4], files[1, 4])
    cfg.DATASET.COLOR_RGB = False
    bgr = build_dataset(cfg, "train")[1, 4]["image"]
    np.testing.assert_array_equal(bgr[..., ::-1], files[1, 4]["image"])


def test_epoch_and_seed_change_the_sample(cfg: CfgNode) -> None:
    dataset = build_dataset(cfg, "train")
    assert_same(dataset[0], dataset[0, 0])
    assert not np.array_equal(dataset[0, 1]["joints"], dataset[1, 1]["joints"])
    cfg.SEED = 1
    assert not np.array_equal(build_dataset(cfg, "train")[0, 1]["joints"], dataset[0, 1]["joints"])


@pytest.mark.parametrize("data_format", ["jpg", "zip"])
def test_workers_change_nothing(cfg: CfgNode, data_format: str) -> None:
    cfg.DATASET.DATA_FORMAT = data_format
    rounds = {}
    for workers in (0, 2):
        cfg.WORKERS = workers
        loader = build_train_loader(cfg, build_dataset(cfg, "train"))
        rounds[workers] = []
        for epoch in (0, 1):  # the workers live on and learn the new epoch
            loader.batch_sampler.set_state(epoch)
            rounds[workers] += list(loader)
    assert len(rounds[0]) == 6
    for alone, shared_out in zip(rounds[0], rounds[2], strict=True):
        assert_same(alone, shared_out)
    assert rounds[0][0]["image"].dtype == torch.uint8
    assert not torch.equal(rounds[0][0]["index"], rounds[0][3]["index"])


def test_the_loader_leaves_the_random_state_alone(cfg: CfgNode) -> None:
    loader = build_train_loader(cfg, build_dataset(cfg, "train"))
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_workers_error_is_one_line(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    # torch waits this many seconds (5) for workers of a round that broke off, then ends them.
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2, raising=False)
    path = rooted(cfg, "people") / "images" / "4.jpg"
    path.unlink()
    cfg.WORKERS = 1
    loader = build_test_loader(cfg, build_dataset(cfg, "test"))
    message = ""
    try:
        list(loader)
    except UserError as error:  # pytest.raises would keep the loader alive beyond the test
        message = str(error)
    del loader
    gc.collect()
    assert message == f"{path}: cannot read the image (No such file or directory)"


def test_a_worker_that_dies_while_it_hands_over_is_told(
    cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = build_test_loader(cfg, build_dataset(cfg, "test"))

    def broken(loader: DataLoader) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(DataLoader, "__iter__", broken)
    with pytest.raises(UserError, match=r"a loader process died .*reset by peer.* lower WORKERS"):
        next(iter(loader))


# Order


def test_going_on_in_the_middle_takes_what_is_left() -> None:
    sampler = EpochBatchSampler(23, 4, seed=5)
    sampler.set_state(2)
    whole = list(sampler)
    assert sorted(index for batch in whole for _, index in batch) == list(range(23))
    assert {epoch for batch in whole for epoch, _ in batch} == {2}
    again = EpochBatchSampler(23, 4, seed=5)
    again.set_state(2, 3)
    assert list(again) == whole[3:]
    assert len(again) == len(whole) == 6


def test_order_derives_from_seed_and_epoch() -> None:
    def order(seed: int, epoch: int, shuffle: bool = True) -> list:
        sampler = EpochBatchSampler(50, 50, seed=seed, shuffle=shuffle)
        sampler.set_state(epoch)
        return [index for batch in sampler for _, index in batch]

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)
    assert order(1, 1, shuffle=False) == list(range(50))


@pytest.mark.parametrize(("length", "world_size"), [(23, 4), (8, 2), (3, 5)])
def test_processes_share_the_samples(length: int, world_size: int) -> None:
    parts = [EpochBatchSampler(length, 2, rank=r, world_size=world_size) for r in range(world_size)]
    indices = [[index for batch in part for _, index in batch] for part in parts]
    assert len({len(part) for part in indices}) == 1
    assert {index for part in indices for index in part} == set(range(length))
    orders = [evaluation_order(length, rank, world_size) for rank in range(world_size)]
    assert [index for order in orders for index in order] == list(range(length))


def test_a_step_of_all_processes_is_a_step_of_one() -> None:
    """Part by part: what one process accumulates, the others compute at the same time."""
    alone = list(EpochBatchSampler(24, 8, seed=3))
    parts = [list(EpochBatchSampler(24, 4, seed=3, rank=rank, world_size=2)) for rank in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == alone


# Configuration and real data


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_builds(cfg: CfgNode, name: str) -> None:
    cfg.DATASET.DATASET = name
    dataset = build_dataset(cfg, "test")
    assert dataset.gt_path == rooted(cfg, "people") / "annot" / "gt_valid.mat"
    cfg.DATASET.TEST_SET = "test"
    dataset = build_dataset(cfg, "test")
    assert dataset.gt_path is None
    assert not dataset[0]["visible"].any()


def test_select_data_holds_for_training_alone(cfg: CfgNode) -> None:
    annotation = rooted(cfg, "people") / "annot"
    far = {**PERSON, "image": "0.jpg", "center": [500, 61]}
    for image_set in ("train", "valid"):
        write(annotation / f"{image_set}.json", [far, {**PERSON, "image": "1.jpg"}])
    assert len(build_dataset(cfg, "train")) == 2
    cfg.DATASET.SELECT_DATA = True
    assert [record.image for record in build_dataset(cfg, "train").records] == ["1.jpg"]
    assert len(build_dataset(cfg, "test")) == 2
    write(annotation / "train.json", [far])
    one_line(lambda: build_dataset(cfg, "train"), "train.json", "DATASET.SELECT_DATA")


def test_wrong_keys_are_named(cfg: CfgNode) -> None:
    cfg.DATASET.DATASET = "coco"
    one_line(lambda: build_dataset(cfg, "train"), "DATASET.DATASET", "coco", "mpii")
    cfg.DATASET.DATASET, cfg.MODEL.NUM_JOINTS = "mpii", 17
    one_line(lambda: build_dataset(cfg, "train"), "MODEL.NUM_JOINTS", "17", "16")


def test_absolute_roots_are_left_alone(cfg: CfgNode, tmp_path: Path) -> None:
    cfg.DATA_DIR = "elsewhere"
    assert rooted(cfg, tmp_path) == tmp_path
    assert rooted(cfg, "x") == Path("elsewhere/x")


def test_real_people_are_read(cfg: CfgNode, shared: Path) -> None:
    cfg.DATA_DIR, cfg.DATASET.ROOT = str(shared / "data"), "mpii"
    cfg.DATASET.TEST_SET = cfg.DATASET.TRAIN_SET = "sample"
    cfg.MODEL.IMAGE_SIZE = [256, 256]
    plain, varied = build_dataset(cfg, "test"), build_dataset(cfg, "train")
    assert len(plain) == 5
    assert plain.gt_path is not None
    for index in range(5):
        sample = plain[index]
        shown = sample["visible"] > 0
        inside = ((sample["joints"] >= 0) & (sample["joints"] <= 255)).all(1)
        assert inside[shown].mean() > 0.9
        assert sample["image"].mean() > 10
        assert varied[0, index]["image"].mean() > 5
