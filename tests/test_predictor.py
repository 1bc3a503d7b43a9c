"""The Predictor finds what the test of a data set finds, in batches as one by one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from yacs.config import CfgNode

from lib.core import tester as testing
from lib.dataset.media import read_picture
from lib.dataset.transforms import view_to_box
from lib.models import build_model
from lib.predictor import Person, Predictor
from lib.utils.checkpoint import save_atomically
from lib.utils.distributed import World
from lib.utils.errors import UserError

Make = Callable[..., tuple[CfgNode, Path]]
CPU = torch.device("cpu")


@pytest.fixture
def make(small_cfg: Callable[..., CfgNode], tmp_path: Path) -> Make:
    """Make a small network's configuration and a file of random weights."""

    def write(**sparsity: object) -> tuple[CfgNode, Path]:
        cfg = small_cfg(**sparsity)
        cfg.WORKERS = 0
        torch.manual_seed(0)
        save_atomically(build_model(cfg).state_dict(), tmp_path / "weights.pth")
        return cfg, tmp_path / "weights.pth"

    return write


def picture(width: int = 90, height: int = 70, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def assert_same(one: list[Person], other: list[Person]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.joints, b.joints, atol=1e-3)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)
        np.testing.assert_array_equal(a.box, b.box)
        assert a.box_score == b.box_score


@pytest.mark.parametrize("options", [{}, {"rgb": False, "flip": False, "refine": False}])
def test_finds_the_joints_that_the_test_of_a_set_finds(
    make: Make, shared: Path, options: dict
) -> None:
    cfg, file = make(PRUNE="token")
    cfg.DATASET.ROOT, cfg.DATASET.TEST_SET = str(shared / "data/mpii"), "sample"
    cfg.DATASET.COLOR_RGB = options.get("rgb", True)
    cfg.TEST.FLIP_TEST = options.get("flip", True)
    cfg.TEST.POST_PROCESS = options.get("refine", True)
    predictor = Predictor(cfg, file, CPU)
    tester = testing.Tester(cfg, World(CPU))
    wanted = tester.predict_with(predictor._run)
    records = tester.dataset.records
    assert len(records) == 5
    pictures = []
    for record in records:
        box = view_to_box(record.center, record.scale, cfg.MODEL.IMAGE_SIZE)
        pictures.append((read_picture(shared / "data/mpii/images" / record.image), [box]))
    found = [person for people in predictor.many(pictures) for person in people]
    spread = np.ptp(wanted.joints, axis=1).min()
    assert spread > 10  # not all joints in one place
    np.testing.assert_allclose([p.joints for p in found], wanted.joints, rtol=0, atol=1e-3)
    np.testing.assert_allclose([p.scores for p in found], wanted.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 16])
def test_batches_across_pictures_find_what_single_calls_find(make: Make, batch_size: int) -> None:
    cfg, file = make()
    cfg.TEST.POST_PROCESS = False  # DARK makes much of rounding where maps are random
    predictor = Predictor(cfg, file, CPU)
    draw = np.random.default_rng(1)
    pictures = []
    for index, people in enumerate((1, 0, 0, 4, 2, 7, 0, 1, 0)):
        boxes = np.column_stack(
            [draw.uniform(0, 40, (people, 2)), draw.uniform(20, 60, (people, 3))]
        )
        pictures.append((picture(seed=index), boxes))
    many = list(predictor.many(pictures, batch_size))
    assert [len(people) for people in many] == [1, 0, 0, 4, 2, 7, 0, 1, 0]
    for people, (image, boxes) in zip(many, pictures, strict=True):
        assert_same(people, predictor(image, boxes))


def test_pictures_are_not_held_back_longer_than_their_batch(make: Make) -> None:
    cfg, file = make()
    predictor = Predictor(cfg, file, CPU)
    taken = []

    def pictures():  # noqa: ANN202
        for index in range(6):
            taken.append(index)
            yield picture(seed=index), None

    found = predictor.many(pictures(), 2)
    next(found)
    assert taken == [0, 1]
    next(found)
    assert taken == [0, 1]


def test_large_pictures_do_not_wait_for_a_batch_to_fill(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.predictor._MOST_BYTES", 2 * picture().nbytes)
    cfg, file = make()
    sizes = []
    predictor = Predictor(cfg, file, CPU)
    find = predictor._find
    monkeypatch.setattr(predictor, "_find", lambda crops: sizes.append(len(crops)) or find(crops))
    assert len(list(predictor.many([(picture(), None)] * 7, 16))) == 7
    assert sizes == [3, 3, 1]


def test_without_boxes_the_whole_picture_is_one_person(make: Make) -> None:
    cfg, file = make()
    predictor = Predictor(cfg, file, CPU)
    (person,) = predictor(picture(90, 70))
    assert person.box.tolist() == [0, 0, 90, 70]
    assert person.joints.shape == (16, 2)
    assert person.scores.shape == (16,)
    assert person.score == pytest.approx(person.scores.mean(), abs=1e-6)
    assert_same([person], predictor(picture(90, 70), np.array([[0, 0, 90, 70]])))
    assert predictor(picture(), np.zeros((0, 4))) == []
    assert predictor(picture(), []) == []


def test_joints_move_with_the_picture(make: Make) -> None:
    cfg, file = make()
    predictor = Predictor(cfg, file, CPU)
    image = picture(200, 160)
    (person,) = predictor(image, [[60, 50, 40, 30]])
    (moved,) = predictor(np.ascontiguousarray(image[20:, 30:]), [[30, 30, 40, 30]])
    np.testing.assert_allclose(moved.joints + np.array([30, 20]), person.joints, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (20, 20_000), (20_000, 20)])
def test_any_shape_of_picture_is_good(make: Make, shape: tuple[int, int]) -> None:
    cfg, file = make()
    (person,) = Predictor(cfg, file, CPU)(np.zeros((*shape, 3), np.uint8))
    assert np.isfinite(person.joints).all()


@pytest.mark.parametrize(
    ("image", "boxes", "told"),
    [
        (picture()[..., 0], None, "uint8 RGB"),
        (picture().astype(np.float32), None, "uint8 RGB"),
        (picture()[:0], None, "uint8 RGB"),
        (picture(), [[1, 2, 3]], r"\[N, 4\]"),
        (picture(), [1, 2, 3, 4], r"\[N, 4\]"),
        (picture(), [[0, 0, 9, 9], [5, 5, 0, 9]], "box 1, .* has no size"),
        (picture(), [[500, 5, 10, 9]], "outside"),
        (picture(), [[np.nan, 5, 10, 9]], "finite"),
        (picture(), [[5, 5, 10, 9, np.nan]], "score"),
        (picture().tolist(), None, "not a list"),
    ],
)
def test_what_is_no_picture_or_box_is_refused(
    make: Make, image: np.ndarray, boxes: object, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        Predictor(*make(), CPU)(image, boxes)


def test_the_configuration_may_be_a_file_and_files_are_checked(make: Make, tmp_path: Path) -> None:
    cfg, file = make()
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({"MODEL": yaml.safe_load(cfg.MODEL.dump())}))
    assert_same(Predictor(path, file, CPU)(picture()), Predictor(cfg, file, CPU)(picture()))
    with pytest.raises(UserError, match=r"none\.pth"):
        Predictor(path, tmp_path / "none.pth")
    cfg.TEST.RUNTIME = "slow"
    with pytest.raises(UserError, match=r"TEST\.RUNTIME"):
        Predictor(cfg, file)
