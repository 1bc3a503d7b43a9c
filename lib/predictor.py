"""A checkpoint as a function from images to people."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.utils.data import default_collate
from yacs.config import CfgNode

from lib.config import load_cfg
from lib.config.check import check
from lib.dataset import build_skeleton
from lib.dataset.transforms import box_error, box_to_center_scale, crop_image, crop_matrix
from lib.inference.pipeline import build_decoding, predict
from lib.inference.runtimes import load_runner
from lib.models import check_model
from lib.utils.distributed import choose_device
from lib.utils.errors import UserError

log = logging.getLogger(__name__)

# The trained network that is part of this checkout; its weights are next to it.
PEOPLE = Path(__file__).resolve().parents[1] / "models/people/people_128.yaml"
MAX_WAITING_BYTES = 2**28  # of images that wait until a batch is full


@dataclass(frozen=True, eq=False)
class Person:
    """A person in an image; coordinates are 0-based pixels."""

    joints: np.ndarray  # float64 [J, 2], (x, y)
    scores: np.ndarray  # float32 [J], the peaks of the heatmaps, about 0 to 1
    box: np.ndarray  # float64 [4]: x, y, width, height, as given
    box_score: float = 1.0
    track_id: int | None = None  # in a video, the same in all frames

    @property
    def score(self) -> float:
        """Confidence as COCO ranks people: box score times mean joint score."""
        return self.box_score * float(np.nan_to_num(self.scores).mean())


def people_network() -> tuple[Path, list[str]]:
    """Return the YAML file in models/people, and overrides that name its weights."""
    weights = PEOPLE.with_suffix(".safetensors")
    for file in (PEOPLE, weights):
        if not file.is_file():
            raise UserError(f"{file} is missing: restore it with git, or name a configuration")
    return PEOPLE, ["TEST.MODEL_FILE", str(weights)]


class Predictor:
    """Predicts the joints of people in given boxes.

    `cfg` is a configuration or the path of a YAML file, by default that of `people_network`; its
    TEST keys choose runtime, precision, flip test and decoding. `checkpoint` is any file that
    TEST.MODEL_FILE takes, by default the file named there. The default device is the first of
    GPUS, or the CPU. UserError if a key or a file is wrong.
    """

    def __init__(
        self,
        cfg: CfgNode | str | Path | None = None,
        checkpoint: str | Path | None = None,
        device: torch.device | None = None,
    ) -> None:
        source = people_network() if cfg is None else (cfg, [])
        config: CfgNode = cfg if isinstance(cfg, CfgNode) else load_cfg(*source)
        check(config)
        check_model(config)
        self.skeleton = build_skeleton(config)
        self.batch_size: int = config.TEST.BATCH_SIZE_PER_GPU
        self._size = tuple(config.MODEL.IMAGE_SIZE)
        self._smooth = config.TEST.SMOOTH_CROP
        self._is_rgb = config.DATASET.COLOR_RGB
        self._device = device or choose_device(config.GPUS[0])
        checkpoint = checkpoint or config.TEST.MODEL_FILE
        if not checkpoint:
            raise UserError("Predictor: name a checkpoint, or set TEST.MODEL_FILE")
        self._run = load_runner(config, checkpoint, self._device)
        if Path(checkpoint).resolve() == PEOPLE.with_suffix(".safetensors"):
            card = PEOPLE.with_name("README.md")
            log.info("people_128 is trained on photographs of athletes (LSPET): see %s", card)
        self._decoding = build_decoding(config, self.skeleton)

    def __call__(self, image: np.ndarray, boxes: ArrayLike | None = None) -> list[Person]:
        """Return the people of an image, uint8 RGB [H, W, 3], in the order of their boxes.

        `boxes` [N, 4], or with scores [N, 5], are (x, y, width, height) in 0-based pixels, and
        overlap the image; without them the whole image is one person. ValueError otherwise.
        """
        (people,) = self.stream([(image, boxes)])
        return people

    def stream(
        self, images: Iterable[tuple[np.ndarray, ArrayLike | None]]
    ) -> Iterator[list[Person]]:
        """Yield the people of each image with its boxes, in order, as a call returns them.

        Batches reach across images: an image waits until the batch of its last person is full, or
        until many bytes of images wait.
        """
        crops: list[dict[str, Any]] = []
        counts: deque[int] = deque()  # of people, per image that is not yielded yet
        people: deque[Person] = deque()
        waiting = 0  # bytes
        for image, boxes in images:
            new = [self._crop(image, box) for box in _check_boxes(image, boxes)]
            counts.append(len(new))
            crops += new
            waiting = waiting + image.nbytes if crops else 0
            while len(crops) >= self.batch_size or (crops and waiting > MAX_WAITING_BYTES):
                people += self._predict(crops[: self.batch_size])
                crops, waiting = crops[self.batch_size :], 0
            yield from _completed(people, counts)
        if crops:
            people += self._predict(crops)
        yield from _completed(people, counts)

    def _crop(self, image: np.ndarray, box: np.ndarray) -> dict[str, Any]:
        center, scale = box_to_center_scale(box[:4], self._size)
        matrix = crop_matrix(center, scale, 0.0, self._size, unbiased=self._decoding.unbiased)
        crop = crop_image(image, matrix, self._size, self._smooth)
        crop = crop if self._is_rgb else cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)
        return {"image": crop, "center": center, "scale": scale, "box": box}

    def _predict(self, crops: list[dict[str, Any]]) -> list[Person]:
        result = predict(self._run, [default_collate(crops)], self._device, self._decoding)
        return [
            Person(joints, scores, crop["box"][:4], float(crop["box"][4]))
            for joints, scores, crop in zip(result.joints, result.scores, crops, strict=True)
        ]


def _completed(people: deque[Person], counts: deque[int]) -> Iterator[list[Person]]:
    """Yield the people of the next images whose people are all predicted."""
    while counts and counts[0] <= len(people):
        yield [people.popleft() for _ in range(counts.popleft())]


def _check_boxes(image: np.ndarray, boxes: ArrayLike | None) -> np.ndarray:
    """Return boxes with scores, float64 [N, 5]; ValueError if image or boxes are malformed."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"an image is uint8 RGB [H, W, 3], not {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    boxes = np.array([[0, 0, width, height]] if boxes is None else boxes, dtype=np.float64)
    if not boxes.size:
        return np.zeros((0, 5))
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
        raise ValueError(f"boxes are [N, 4] or, with scores, [N, 5], not {boxes.shape}")
    boxes = np.pad(boxes, ((0, 0), (0, 5 - boxes.shape[1])), constant_values=1)
    for index, box in enumerate(boxes):
        problem = box_error(box[:4], image.shape)
        if problem:
            raise ValueError(f"box {index}, {box[:4].tolist()}, {problem}")
    return boxes
