"""Who finds people's boxes in a picture: a file of boxes, a detector, or nobody.

Each is a callable from a Frame to boxes (x, y, width, height, score), float64 [N, 5], in pixels,
score from 0 to 1. Nothing here downloads anything.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torchvision.models import get_model_builder, get_model_weights
from torchvision.ops import nms

from lib.dataset.boxes import BoxFile
from lib.dataset.media import Frame
from lib.utils.checkpoint import read_weights
from lib.utils.errors import UserError

log = logging.getLogger(__name__)

Finder = Callable[[Frame], np.ndarray]

MIN_SCORE = 0.5  # of detected boxes, where nothing else is said
KINDS = ("auto", "boxes", "torchvision", "hog", "whole")

# torchvision's detectors of COCO's people, the best first (box mAP from its documentation).
_DETECTORS = (
    "fasterrcnn_resnet50_fpn_v2",  # 46.7
    "retinanet_resnet50_fpn_v2",  # 41.5
    "fcos_resnet50_fpn",  # 39.2
    "maskrcnn_resnet50_fpn",  # 37.9
    "fasterrcnn_resnet50_fpn",  # 37.0
    "fasterrcnn_mobilenet_v3_large_fpn",  # 32.8
    "ssd300_vgg16",  # 25.1
    "fasterrcnn_mobilenet_v3_large_320_fpn",  # 22.8
    "ssdlite320_mobilenet_v3_large",  # 21.3
)
_PERSON = 1  # among torchvision's classes of COCO
_OVERLAP = 0.5  # of two boxes of one person, at least
_LONGEST_STRIP = 50  # times its width
_HOG_SIDE = 800  # pixels of the longer side of what HOG looks at


def find_whole(frame: Frame) -> np.ndarray:
    """Take the whole picture for one person."""
    height, width = frame.image.shape[:2]
    return np.array([[0.0, 0.0, width, height, 1.0]])


class Hog:
    """OpenCV's detector of people who stand upright and are seen whole.

    Histograms of gradients, Dalal and Triggs, CVPR 2005. UserError where this OpenCV has none.
    """

    def __init__(self) -> None:
        if not has_hog():
            raise UserError(
                f"--people hog: OpenCV {cv2.__version__} has no HOG detector; it is in OpenCV 4 "
                "and, from 5 on, in opencv-contrib-python, to install in opencv-python's place"
            )
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())

    def __call__(self, frame: Frame) -> np.ndarray:
        """Find upright people, 96 pixels tall or more when the picture's longer side is 800."""
        height, width = frame.image.shape[:2]
        zoom = min(1.0, _HOG_SIDE / max(height, width))
        size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
        if size[0] < 64 or size[1] < 128:  # its window
            return np.zeros((0, 5))
        small = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        windows, margins = self._hog.detectMultiScale(
            cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), winStride=(8, 8), scale=1.05, groupThreshold=0
        )
        if not len(windows):
            return np.zeros((0, 5))
        x, y, width, height = np.asarray(windows, dtype=np.float64).T
        # A window of 64×128 was trained with 16 pixels around the person on every side.
        boxes = np.stack([x + width / 4, y + height / 8, width / 2, height * 3 / 4], 1) / zoom
        score = 1 / (1 + np.exp(-np.ravel(margins).astype(np.float64)))
        return _strongest(np.column_stack([boxes, score]))


class TorchvisionDetector:
    """A detector of torchvision whose weights lie in torch's hub cache."""

    def __init__(self, device: torch.device) -> None:
        name = cached_detector()
        if name is None:
            raise UserError(
                f"--people torchvision: no weights of a detector are in {_cache()}; put those of "
                f"{_DETECTORS[0]} or {_DETECTORS[-1]} there, as torchvision downloads them"
            )
        self.name = name
        weights = get_model_weights(name).DEFAULT
        read_weights(_cached(name))  # torchvision reads without care: only what holds no code
        self._network = get_model_builder(name)(weights=weights).eval().to(device)
        self._device = device
        self._longest = self._network.transform.max_size  # pixels; it shrinks what is longer

    @torch.inference_mode()
    def __call__(self, frame: Frame) -> np.ndarray:
        """Find people of any pose."""
        height, width = frame.image.shape[:2]
        if max(height, width) > _LONGEST_STRIP * min(height, width):
            return np.zeros((0, 5))  # nobody is seen in it, and resizing could leave nothing
        zoom = min(1.0, self._longest / max(height, width))
        size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
        # Shrunk here, as bytes: as floats a huge picture would not fit into memory.
        small = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        image = torch.from_numpy(small).to(self._device).permute(2, 0, 1) / 255
        (found,) = self._network([image])
        of_people = found["labels"] == _PERSON
        corners = found["boxes"][of_people].double().cpu().numpy() / zoom
        score = found["scores"][of_people].double().cpu().numpy()
        boxes = np.column_stack([corners[:, :2], corners[:, 2:] - corners[:, :2], score])
        return _strongest(boxes)


def has_hog() -> bool:
    """Whether this OpenCV has the HOG detector: version 5 moved it to its contrib package."""
    return hasattr(cv2, "HOGDescriptor")


def cached_detector() -> str | None:
    """The best of torchvision's detectors whose weights are here, by name."""
    return next((name for name in _DETECTORS if _cached(name).is_file()), None)


def _cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _cached(name: str) -> Path:
    """Where torchvision looks for a detector's weights before it would download them."""
    return _cache() / get_model_weights(name).DEFAULT.url.rpartition("/")[2]


def _strongest(boxes: np.ndarray) -> np.ndarray:
    """Of boxes [N, 5] that overlap much the one with the highest score; the highest first."""
    corners = np.column_stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:4]])
    kept = nms(torch.from_numpy(corners), torch.from_numpy(boxes[:, 4].copy()), _OVERLAP)
    return boxes[kept.numpy()]


def make_finder(
    kind: str, boxes: BoxFile | None, device: torch.device, min_score: float | None = None
) -> Finder:
    """Make what finds people, and log which it is; `kind` is one of KINDS.

    Boxes with a score below `min_score` do not count; without it detected ones below MIN_SCORE.

    `auto` takes the file of `boxes` where one is given, else torchvision's detector where its
    weights are here, else HOG where OpenCV has it, else the whole picture as one person. UserError
    where what is asked for is not here.
    """
    if kind == "auto":
        kind = _best(boxes)
    if kind == "boxes" and boxes is None:
        raise UserError("--people boxes needs the boxes: --boxes FILE")
    if kind != "boxes" and boxes is not None:
        raise UserError(f"--people {kind} would not use {boxes.path} of --boxes: leave one out")
    if kind == "whole":
        log.info("people: each whole picture is one person; --boxes and --people say otherwise")
        return find_whole
    if kind == "boxes":
        log.info("people: the boxes in %s", boxes.path)
        finder = lambda frame: boxes.of(frame.medium.name, frame.number)  # noqa: E731
        return finder if min_score is None else _surer(finder, min_score)
    if kind == "torchvision":
        finder = TorchvisionDetector(device)
        log.info("people: found by torchvision's %s", finder.name)
    else:
        finder = Hog()
        log.info("people: found by OpenCV's HOG detector, which knows those who stand upright")
    return _surer(finder, MIN_SCORE if min_score is None else min_score)


def _surer(finder: Finder, min_score: float) -> Finder:
    """A finder's boxes with that score or a higher one."""

    def find(frame: Frame) -> np.ndarray:
        boxes = finder(frame)
        return boxes[boxes[:, 4] >= min_score]

    return find


def _best(boxes: BoxFile | None) -> str:
    if boxes is not None:
        return "boxes"
    if cached_detector() is not None:
        return "torchvision"
    return "hog" if has_hog() else "whole"
