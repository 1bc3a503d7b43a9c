"""The Predictor agrees with the Tester, and batches with single calls."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from yacs.config import CfgNode

from lib.core import tester as testing
from lib.dataset.images import read_image
from lib.dataset.transforms import MARGIN
from lib.models import build_model
from lib.predictor import Person, Predictor
from lib.utils.checkpoint import save_weights
from lib.utils.distributed import Distributed
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
        save_weights(build_model(cfg).state_dict(), tmp_path / "weights.pth")
        return cfg, tmp_path / "weights.pth"

    return write


def image(width: int = 90, height: int = 70, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def assert_same(one: list[Person], other: list[Person]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.joints, b.joints, atol=1e-3)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)
        np.testing.assert_array_equal(a.box, b.box)
        assert a.box_score == b.box_score


@pytest.mark.parametrize(
    "options",
    [{}, {"rgb": False, "flip": False, "refine": False}, {"smooth": True}, {"unbiased": False}],
)
def test_predictions_equal_those_of_the_tester(make: Make, shared: Path, options: dict) -> None:
    cfg, file = make(PRUNE="token")
    cfg.DATASET.ROOT, cfg.DATASET.TEST_SET = str(shared / "data/mpii"), "sample"
    cfg.DATASET.COLOR_RGB = options.get("rgb", True)
    cfg.TEST.SMOOTH_CROP = options.get("smooth", False)
    cfg.DATASET.UNBIASED = options.get("unbiased", True)
    cfg.TEST.FLIP_TEST = options.get("flip", True)
    cfg.TEST.POST_PROCESS = options.get("refine", True)
    predictor = Predictor(cfg, file, CPU)
    tester = testing.Tester(cfg, Distributed(CPU))
    expected = tester.predict_with(predictor._run)
    records = tester.dataset.records
    assert len(records) == 5
    images = []
    for record in records:
        width, height = cfg.MODEL.IMAGE_SIZE
        size = record.scale[0] * 200 / MARGIN * np.array([1, height / width])
        box = [*(record.center - (size - 1) / 2), *size]
        images.append((read_image(shared / "data/mpii/images" / record.image), [box]))
    people = [person for result in predictor.stream(images) for person in result]
    extent = np.ptp(expected.joints, axis=1).min()
    assert extent > 10  # not all joints at one position
    np.testing.assert_allclose([p.joints for p in people], expected.joints, rtol=0, atol=1e-3)
    np.testing.assert_allclose([p.scores for p in people], expected.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 16])
def test_batches_across_images_agree_with_single_calls(make: Make, batch_size: int) -> None:
    cfg, file = make()
    cfg.TEST.POST_PROCESS = False  # DARK amplifies rounding errors of random heatmaps
    predictor = Predictor(cfg, file, CPU)
    rng = np.random.default_rng(1)
    images = []
    for index, people in enumerate((1, 0, 0, 4, 2, 7, 0, 1, 0)):
        boxes = np.column_stack([rng.uniform(0, 40, (people, 2)), rng.uniform(20, 60, (people, 3))])
        images.append((image(seed=index), boxes))
    predictor.batch_size = batch_size
    many = list(predictor.stream(images))
    assert [len(people) for people in many] == [1, 0, 0, 4, 2, 7, 0, 1, 0]
    for people, (pixels, boxes) in zip(many, images, strict=True):
        assert_same(people, predictor(pixels, boxes))


def test_images_wait_only_until_their_batch_is_full(make: Make) -> None:
    cfg, file = make()
    predictor = Predictor(cfg, file, CPU)
    consumed = []

    def images():  # noqa: ANN202
        for index in range(6):
            consumed.append(index)
            yield image(seed=index), None

    predictor.batch_size = 2
    results = predictor.stream(images())
    next(results)
    assert consumed == [0, 1]
    next(results)
    assert consumed == [0, 1]


def test_large_images_do_not_wait_until_a_batch_is_full(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.predictor.MAX_WAITING_BYTES", 2 * image().nbytes)
    cfg, file = make()
    sizes = []
    predictor = Predictor(cfg, file, CPU)
    predict = predictor._predict
    monkeypatch.setattr(
        predictor, "_predict", lambda crops: sizes.append(len(crops)) or predict(crops)
    )
    predictor.batch_size = 16
    assert len(list(predictor.stream([(image(), None)] * 7))) == 7
    assert sizes == [3, 3, 1]


def test_without_boxes_the_whole_image_is_one_person(make: Make) -> None:
    cfg, file = make()
    predictor = Predictor(cfg, file, CPU)
    (person,) = predictor(image(90, 70))
    assert person.box.tolist() == [0, 0, 90, 70]
    assert person.joints.shape == (16, 2)
    assert person.scores.shape == (16,)
    assert person.score == pytest.approx(person.scores.mean(), abs=1e-6)
    assert_same([person], predictor(image(90, 70), np.array([[0, 0, 90, 70]])))
    assert predictor(image(), np.zeros((0, 4))) == []
    assert predictor(image(), []) == []


def test_joints_move_with_the_image(make: Make) -> None:
    cfg, file = make()
    predictor = Predictor(cfg, file, CPU)
    pixels = image(200, 160)
    (person,) = predictor(pixels, [[60, 50, 40, 30]])
    (moved,) = predictor(np.ascontiguousarray(pixels[20:, 30:]), [[30, 30, 40, 30]])
    np.testing.assert_allclose(moved.joints + np.array([30, 20]), person.joints, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (20, 20_000), (20_000, 20)])
def test_images_of_extreme_shapes_are_processed(make: Make, shape: tuple[int, int]) -> None:
    cfg, file = make()
    (person,) = Predictor(cfg, file, CPU)(np.zeros((*shape, 3), np.uint8))
    assert np.isfinite(person.joints).all()


@pytest.mark.parametrize(
    ("pixels", "boxes", "message"),
    [
        (image()[..., 0], None, "uint8 RGB"),
        (image().astype(np.float32), None, "uint8 RGB"),
        (image()[:0], None, "uint8 RGB"),
        (image(), [[1, 2, 3]], r"\[N, 4\]"),
        (image(), [1, 2, 3, 4], r"\[N, 4\]"),
        (image(), [[0, 0, 9, 9], [5, 5, 0, 9]], "box 1, .* is smaller"),
        (image(), [[500, 5, 10, 9]], "outside"),
        (image(), [[np.nan, 5, 10, 9]], "finite"),
    ],
)
def test_malformed_images_and_boxes_are_refused(
    make: Make, pixels: np.ndarray, boxes: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Predictor(*make(), CPU)(pixels, boxes)


def test_the_configuration_can_be_a_file_and_files_are_checked(make: Make, tmp_path: Path) -> None:
    cfg, file = make()
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({"MODEL": yaml.safe_load(cfg.MODEL.dump())}))
    assert_same(Predictor(path, file, CPU)(image()), Predictor(cfg, file, CPU)(image()))
    with pytest.raises(UserError, match=r"none\.pth"):
        Predictor(path, tmp_path / "none.pth")
    with pytest.raises(UserError, match=r"TEST\.MODEL_FILE"):
        Predictor(path)
    cfg.TEST.MODEL_FILE = str(file)
    assert_same(Predictor(cfg)(image()), Predictor(cfg, file)(image()))
    cfg.TEST.RUNTIME = "slow"
    with pytest.raises(UserError, match=r"TEST\.RUNTIME"):
        Predictor(cfg, file)
