"""Detectors of people's boxes in an image.

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

from lib.prediction.boxes import BoxFile
from lib.prediction.media import Frame
from lib.utils.checkpoint import read_weights
from lib.utils.errors import UserError

log = logging.getLogger(__name__)

Detector = Callable[[Frame], np.ndarray]

DETECTORS = ("auto", "boxes", "torchvision", "whole")
MIN_SCORE = 0.5  # of torchvision's boxes, by default

# torchvision's detectors of COCO, the best first by box mAP in its documentation.
_MODELS = (
    "maskrcnn_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn_v2", "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn", "maskrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn", "ssd300_vgg16", "ssdlite320_mobilenet_v3_large",
)  # fmt: skip
_PERSON = 1  # the class in torchvision's labels of COCO


def build_detector(
    name: str, boxes: BoxFile | None, device: torch.device, min_score: float | None = None
) -> Detector:
    """Return one of DETECTORS by name, and log which it is.

    `auto` is the file of boxes if there is one, else torchvision's detector if its weights are
    cached, else the whole image as one person. Boxes with a score below `min_score` are ignored.
    UserError if the detector is not available.
    """
    if name == "auto":
        name = "boxes" if boxes else "torchvision" if cached_model() else "whole"
    if name == "boxes" and boxes is None:
        raise UserError("--detector boxes: needs --boxes FILE")
    if name != "boxes" and boxes is not None:
        raise UserError(f"--detector {name}: does not use --boxes {boxes.path}; remove one of them")
    if name == "torchvision":
        return TorchvisionDetector(device, MIN_SCORE if min_score is None else min_score)
    if boxes is None:
        log.info("detector: none, each whole image is one person (see --boxes and --detector)")
        return whole_image
    log.info("detector: the boxes in %s", boxes.path)
    return lambda frame: boxes.boxes_of(frame.source.name, frame.number, min_score)


def whole_image(frame: Frame) -> np.ndarray:
    """Return the whole image as one person's box."""
    height, width = frame.image.shape[:2]
    return np.array([[0.0, 0.0, width, height, 1.0]])


class TorchvisionDetector:
    """torchvision's best detector whose weights are in torch's hub cache; UserError if none is."""

    def __init__(self, device: torch.device, min_score: float = MIN_SCORE) -> None:
        name = cached_model()
        if name is None:
            raise UserError(
                f"--detector torchvision: no weights in {_weights_file(_MODELS[0]).parent}; "
                f"download those of {_MODELS[1]} or {_MODELS[-1]} there"
            )
        read_weights(_weights_file(name))  # torchvision itself would run code in a hostile file
        weights = get_model_weights(name).DEFAULT
        self._network = get_model_builder(name)(weights=weights).eval().to(device)
        self._max_size = int(self._network.transform.max_size)
        self._device, self._min_score = device, min_score
        log.info("detector: torchvision's %s", name)

    @torch.inference_mode()
    def __call__(self, frame: Frame) -> np.ndarray:
        """Return the boxes of people."""
        height, width = frame.image.shape[:2]
        # Resized here as bytes: a huge image as floats may not fit into memory.
        zoom = min(1.0, self._max_size / max(height, width))
        size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
        small = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        image = torch.from_numpy(small).to(self._device).permute(2, 0, 1) / 255
        (detections,) = self._network([image])
        kept = (detections["labels"] == _PERSON) & (detections["scores"] >= self._min_score)
        corners = detections["boxes"][kept].double().cpu().numpy() / zoom
        scores = detections["scores"][kept].double().cpu().numpy()
        return np.column_stack([corners[:, :2], corners[:, 2:] - corners[:, :2], scores])


def cached_model() -> str | None:
    """Return the best of torchvision's detectors whose weights are cached, by name."""
    return next((name for name in _MODELS if _weights_file(name).is_file()), None)


def _weights_file(name: str) -> Path:
    """Return where torchvision looks for a detector's weights before it downloads them."""
    file = get_model_weights(name).DEFAULT.url.rpartition("/")[2]
    return Path(torch.hub.get_dir()) / "checkpoints" / file
