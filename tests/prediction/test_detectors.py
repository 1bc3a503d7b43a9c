"""Detectors: which one is chosen, and the boxes that they return."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import get_model_builder

from lib.prediction import detectors
from lib.prediction.boxes import BoxFile, read_boxes
from lib.prediction.detectors import TorchvisionDetector, build_detector
from lib.prediction.media import Frame, Source
from lib.utils.errors import UserError

CPU = torch.device("cpu")
SMALLEST = "ssdlite320_mobilenet_v3_large"


def frame(width: int = 80, height: int = 60, name: str = "a.jpg") -> Frame:
    return Frame(np.zeros((height, width, 3), np.uint8), Source("image", name, name))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch's hub, and no way to download."""

    def refuse(*words: object, **options: object) -> None:
        raise AssertionError("nothing may be downloaded")

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
    path = detectors._weights_file(SMALLEST)
    assert path.parent == cache
    torch.save(network.state_dict(), path)
    return path


def test_auto_chooses_the_first_that_is_available(
    cache: Path, boxes: BoxFile, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert build_detector("auto", None, CPU)(frame()).tolist() == [[0, 0, 80, 60, 1]]
    assert "whole image" in caplog.messages[-1]
    assert build_detector("auto", boxes, CPU)(frame()).tolist() == [[1, 2, 3, 4, 0.5]]
    assert "boxes.json" in caplog.messages[-1]
    weights(cache)
    build_detector("auto", None, CPU)
    assert SMALLEST in caplog.messages[-1]


def test_an_unavailable_detector_is_an_error(cache: Path, boxes: BoxFile) -> None:
    with pytest.raises(UserError, match="checkpoints"):
        build_detector("torchvision", None, CPU)
    with pytest.raises(UserError, match="--boxes FILE"):
        build_detector("boxes", None, CPU)
    with pytest.raises(UserError, match=r"boxes\.json"):
        build_detector("whole", boxes, CPU)


def test_uncertain_boxes_are_ignored(cache: Path, boxes: BoxFile) -> None:
    assert len(build_detector("boxes", boxes, CPU)(frame())) == 1
    assert len(build_detector("boxes", boxes, CPU, 0.6)(frame())) == 0
    weights(cache)
    scores = torch.tensor([0.25, 0.5, 0.75])
    detections = {"labels": torch.ones(3), "boxes": torch.ones(3, 4), "scores": scores}
    for min_score, kept in ((None, [0.5, 0.75]), (0, [0.25, 0.5, 0.75]), (0.6, [0.75])):
        detector = build_detector("torchvision", None, CPU, min_score)
        assert isinstance(detector, TorchvisionDetector)
        detector._network = lambda images: [detections]
        assert detector(frame())[:, 4].tolist() == kept


def test_torchvision_boxes_are_of_people_in_image_pixels(cache: Path) -> None:
    weights(cache)
    detector = TorchvisionDetector(CPU, min_score=0)
    for width, height in ((100, 90), (1, 1), (50_000, 20)):
        assert detector(frame(width, height)).shape[1] == 5
    detections = {
        "labels": torch.tensor([1, 18]),
        "boxes": torch.tensor([[10.0, 20, 40, 70], [0, 0, 5, 5]]),
        "scores": torch.tensor([0.5, 0.9]),
    }
    sizes = []

    def detect(images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        sizes.append(tuple(images[0].shape))
        return [detections]

    detector._network = detect
    assert detector(frame(100, 90)).tolist() == [[10, 20, 30, 50, 0.5]]
    assert detector(frame(640, 320)).tolist() == [[20, 40, 60, 100, 0.5]]
    assert sizes == [(3, 90, 100), (3, 160, 320)]


def test_torchvision_weights_run_no_code(cache: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "trap",))

    path = weights(cache)
    torch.save({"trap": Trap()}, path)
    with pytest.raises(UserError, match="code"):
        TorchvisionDetector(CPU)
    assert not (tmp_path / "trap").exists()
