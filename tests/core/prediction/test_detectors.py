"""Who finds people: what is chosen where, and boxes that fit what is seen."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.models import get_model_builder

from lib.core.prediction import detectors
from lib.core.prediction.detectors import Hog, TorchvisionDetector, make_finder
from lib.dataset.boxes import BoxFile, read_boxes
from lib.dataset.media import Frame, Medium
from lib.utils.errors import UserError

CPU = torch.device("cpu")
SMALLEST = "ssdlite320_mobilenet_v3_large"


def frame(width: int = 80, height: int = 60, name: str = "a.jpg") -> Frame:
    return Frame(np.zeros((height, width, 3), np.uint8), Medium("picture", name, name))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch's hub, and no way to download."""

    def refuse(*words: object, **options: object) -> None:
        raise AssertionError("nothing is to be downloaded")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    return tmp_path / "hub/checkpoints"


@pytest.fixture
def boxes(tmp_path: Path) -> BoxFile:
    (tmp_path / "boxes.json").write_text('{"a.jpg": [[1, 2, 3, 4, 0.5]]}')
    return read_boxes(tmp_path / "boxes.json")


def weights(cache: Path) -> Path:
    """Random weights where torchvision looks for those of its smallest detector."""
    torch.manual_seed(0)
    network = get_model_builder(SMALLEST)(weights=None, weights_backbone=None)
    path = detectors._cached(SMALLEST)
    assert path.parent == cache
    torch.save(network.state_dict(), path)
    return path


def test_auto_takes_the_best_that_is_here(
    cache: Path, boxes: BoxFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.delattr(cv2, "HOGDescriptor", raising=False)
    assert make_finder("auto", None, CPU)(frame()).tolist() == [[0, 0, 80, 60, 1]]
    assert "whole picture" in caplog.messages[-1]
    assert make_finder("auto", boxes, CPU)(frame()).tolist() == [[1, 2, 3, 4, 0.5]]
    assert "boxes.json" in caplog.messages[-1]
    weights(cache)
    make_finder("auto", None, CPU)
    assert SMALLEST in caplog.messages[-1]


def test_what_is_not_here_is_told(
    cache: Path, boxes: BoxFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(cv2, "HOGDescriptor", raising=False)
    for kind, told in (("hog", "opencv-contrib-python"), ("torchvision", "checkpoints")):
        with pytest.raises(UserError, match=told):
            make_finder(kind, None, CPU)
    with pytest.raises(UserError, match="--boxes FILE"):
        make_finder("boxes", None, CPU)
    with pytest.raises(UserError, match=r"boxes\.json"):
        make_finder("whole", boxes, CPU)


def test_boxes_that_are_not_sure_do_not_count(
    boxes: BoxFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = np.array([0.25, 0.5, 0.75])
    seen = np.column_stack([np.tile([1.0, 2, 30, 40], (3, 1)), scores])
    monkeypatch.setattr(detectors, "Hog", lambda: lambda frame: seen)
    kept = {score: make_finder("hog", None, CPU, score)(frame())[:, 4] for score in (None, 0, 0.6)}
    assert kept[None].tolist() == [0.5, 0.75]  # detectors find much that is nobody
    assert kept[0].tolist() == [0.25, 0.5, 0.75]
    assert kept[0.6].tolist() == [0.75]
    assert len(make_finder("boxes", boxes, CPU)(frame())) == 1  # who gives boxes means them
    assert len(make_finder("boxes", boxes, CPU, 0.6)(frame())) == 0


def test_torchvisions_people_are_boxes_of_people(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights(cache)
    detector = TorchvisionDetector(CPU)
    for width, height in ((100, 90), (1, 1), (50_000, 20)):
        assert detector(frame(width, height)).shape[1] == 5
    found = {
        "labels": torch.tensor([1, 18, 1, 1]),
        "boxes": torch.tensor([[10.0, 20, 40, 70], [0, 0, 5, 5], [10, 20, 41, 70], [60, 0, 90, 9]]),
        "scores": torch.tensor([0.5, 0.9, 0.75, 0.25]),
    }
    monkeypatch.setattr(detector, "_network", lambda images: [found])
    wanted = [[10, 20, 31, 50, 0.75], [60, 0, 30, 9, 0.25]]  # of two of one person the better
    assert detector(frame(100, 90)).tolist() == wanted


def test_torchvisions_weights_run_no_code(cache: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "trap",))

    path = weights(cache)
    torch.save({"trap": Trap()}, path)
    with pytest.raises(UserError, match="code"):
        TorchvisionDetector(CPU)
    assert not (tmp_path / "trap").exists()


def test_hogs_windows_become_boxes_of_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in, since OpenCV 5 has HOG in its contrib package alone."""
    seen = []

    class Descriptor:
        def setSVMDetector(self, weights: object) -> None: ...

        def detectMultiScale(self, image: np.ndarray, **options: object) -> tuple:
            seen.append(image.shape)
            return np.array([[80, 40, 64, 128], [84, 40, 64, 128]]), np.array([[2.0], [1.0]])

    monkeypatch.setattr(cv2, "HOGDescriptor", Descriptor, raising=False)
    getter = "HOGDescriptor_getDefaultPeopleDetector"
    monkeypatch.setattr(cv2, getter, lambda: None, raising=False)
    (box,) = Hog()(frame(1600, 1200))
    assert seen == [(600, 800)]
    np.testing.assert_allclose(box[:4], [192, 112, 64, 192])  # 2 × (80 + 16, 40 + 16, 32, 96)
    assert box[4] == pytest.approx(1 / (1 + np.exp(-2)))
    assert Hog()(frame(60, 60)).shape == (0, 5)


@pytest.mark.skipif(not detectors.has_hog(), reason="this OpenCV has no HOG")
def test_hog_finds_who_stands_upright(shared: Path) -> None:
    image = cv2.imread(str(shared / "data/coco/images/val2017/000000025560.jpg"))[..., ::-1]
    found = Hog()(Frame(np.ascontiguousarray(image), frame().medium))
    assert len(found)
