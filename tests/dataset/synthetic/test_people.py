"""Synthetic people: repeatable, annotated like MPII, written completely or not at all."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from lib.dataset.synthetic import people as synthetic
from lib.dataset.synthetic.people import make_synthetic, sample_person
from lib.dataset.synthetic.pose import Pose
from lib.utils.errors import UserError

COUNTS = {"train": 12, "valid": 4}


def files(root: Path) -> dict[str, bytes]:
    """Return the content of each file, without the date in the header of a .mat."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()[128 * (path.suffix == ".mat") :]
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "data"
    assert make_synthetic(root, COUNTS, seed=3, image_size=64)
    return root


@pytest.fixture(scope="module")
def samples() -> list[tuple[np.ndarray, dict, np.ndarray]]:
    return [sample_person(0, "valid", index, 64) for index in range(150)]


def test_workers_do_not_change_the_files(data: Path, tmp_path: Path) -> None:
    make_synthetic(tmp_path / "workers", COUNTS, seed=3, image_size=64, workers=1)
    assert files(tmp_path / "workers") == files(data)


def test_a_person_depends_on_seed_set_and_index_only() -> None:
    image, record, box = sample_person(3, "train", 1, 64)
    again = sample_person(3, "train", 1, 64)
    np.testing.assert_array_equal(image, again[0])
    assert record == again[1]
    np.testing.assert_array_equal(box, again[2])
    for other in ((4, "train", 1), (3, "valid", 1), (3, "train", 2)):
        assert not np.array_equal(image, sample_person(*other, 64)[0])


def test_files_have_the_layout_of_mpii(data: Path) -> None:
    hidden = 0
    for name, count in COUNTS.items():
        records = json.loads((data / "annot" / f"{name}.json").read_text())
        assert len(records) == count
        gt = scipy.io.loadmat(data / "annot" / f"gt_{name}.mat")
        for index, record in enumerate(records):
            assert set(record) == {"image", "center", "scale", "joints", "joints_vis"}
            assert cv2.imread(str(data / "images" / record["image"])).shape == (64, 64, 3)
            visible = np.array(record["joints_vis"], dtype=bool)
            assert (gt["jnt_missing"][:, index] == ~visible).all()
            joints = np.where(visible[:, None], record["joints"], 0)
            np.testing.assert_allclose(gt["pos_gt_src"][:, :, index], joints)
            box = sample_person(3, name, index, 64)[2]
            np.testing.assert_allclose(gt["headboxes_src"][..., index], box)
            hidden += (~visible).sum()
    assert hidden, "no joint of these people is outside: draw more people"


def test_the_mat_file_has_the_arrays_of_mpii(data: Path, shared: Path) -> None:
    ours = scipy.io.loadmat(data / "annot" / "gt_valid.mat")
    theirs = scipy.io.loadmat(shared / "data" / "mpii" / "annot" / "gt_valid.mat")
    assert set(ours) == set(theirs)
    for key in ("jnt_missing", "pos_gt_src", "headboxes_src"):
        assert ours[key].dtype == theirs[key].dtype
        assert ours[key].shape == (*theirs[key].shape[:-1], COUNTS["valid"])
    np.testing.assert_array_equal(ours["dataset_joints"], theirs["dataset_joints"])


def test_few_joints_are_outside_the_image(samples: list) -> None:
    hidden = 0
    for _, record, _ in samples:
        joints, visible = np.array(record["joints"]), np.array(record["joints_vis"], dtype=bool)
        assert ((joints[visible] >= 1) & (joints[visible] <= 64)).all()
        assert (joints[~visible] == -1).all()
        hidden += (~visible).sum()
        assert visible[[8, 9]].all()
    assert 0.005 < hidden / (16 * len(samples)) < 0.05


def test_a_joint_is_visible_if_and_only_if_it_is_inside_the_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = []
    place = synthetic._place

    def spy(rng: np.random.Generator, pose: Pose, size: float, side: int) -> np.ndarray:
        drawn.append((pose, size, place(rng, pose, size, side)))
        return drawn[-1][2]

    monkeypatch.setattr(synthetic, "_place", spy)
    for index in range(40):
        _, record, _ = sample_person(0, "train", index, 64)
        pose, size, origin = drawn[-1]
        true = pose.joints[:, :2] * size + origin
        outside = ((true < 0) | (true > 63)).any(axis=1)
        np.testing.assert_array_equal(outside, np.array(record["joints_vis"]) == 0)
        np.testing.assert_allclose(
            np.array(record["joints"])[~outside], true[~outside] + 1, atol=1e-4
        )


def test_the_head_box_contains_the_head_and_has_mpiis_size(samples: list) -> None:
    shares, lengths = [], []
    for _, record, (low, high) in samples:
        neck, top = np.array(record["joints"])[[8, 9]]
        for joint in (neck, top):
            assert (joint >= low - 1e-3).all()
            assert (joint <= high + 1e-3).all()
        assert (low >= 1 - 1e-6).all()
        assert (high <= 64 + 1e-6).all()
        head = 0.6 * np.linalg.norm(high - low)
        shares.append(head / (200 * record["scale"]))
        lengths.append(np.linalg.norm(top - neck) / head)
    # In MPII both are the same for everyone.
    assert np.median(shares) == pytest.approx(0.125, rel=0.03)
    assert np.median(lengths) == pytest.approx(4 / 3, rel=0.01)


def test_people_are_inside_the_box_of_the_reader(samples: list) -> None:
    records = [record for _, record, _ in samples]
    scale = np.array([record["scale"] for record in records])[:, None, None]
    center = np.array([record["center"] for record in records])[:, None]
    joints = np.array([record["joints"] for record in records])
    visible = np.array([record["joints_vis"] for record in records], dtype=bool)
    in_box = (joints - center - scale * [0, 15]) / (250 * scale)
    assert (abs(in_box) < 0.5).all(axis=-1)[visible].mean() > 0.98
    whole = in_box[visible.all(axis=1), :10]
    middle = (whole.min(axis=1) + whole.max(axis=1)) / 2
    np.testing.assert_allclose(middle.mean(axis=0), 0, atol=0.01)
    assert 0.01 < middle.std() < 0.05  # as varied as boxes drawn by hand


def test_data_of_the_same_settings_is_kept(data: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    assert not make_synthetic(data, COUNTS, seed=3, image_size=64)
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


def test_other_synthetic_data_is_replaced_only_on_request(tmp_path: Path) -> None:
    root = tmp_path / "data"
    make_synthetic(root, {"train": 1}, seed=0, image_size=64)
    with pytest.raises(UserError, match="--overwrite"):
        make_synthetic(root, {"train": 1}, seed=1, image_size=64)
    assert make_synthetic(root, {"train": 1}, seed=1, image_size=64, overwrite=True)
    assert not make_synthetic(root, {"train": 1}, seed=1, image_size=64)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_other_content_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="not a folder of synthetic people"):
        make_synthetic(tmp_path, {"train": 1}, seed=0, overwrite=True)
    assert (tmp_path / "photo.jpg").read_bytes() == b"mine"


def test_a_failed_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic, "_write_person", full)
    with pytest.raises(UserError, match="No space left"):
        make_synthetic(tmp_path / "data", {"train": 1}, seed=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"counts": {"train": 0}}, "train"),
        ({"image_size": 8}, "image size"),
        ({"seed": -1}, "seed"),
    ],
)
def test_impossible_values_are_named(tmp_path: Path, wrong: dict, name: str) -> None:
    with pytest.raises(UserError, match=name):
        make_synthetic(tmp_path / "data", **({"counts": {"train": 1}, "seed": 0} | wrong))


def test_a_path_under_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(UserError, match="choose another"):
            make_synthetic(root, {"train": 1}, seed=0, image_size=64)
