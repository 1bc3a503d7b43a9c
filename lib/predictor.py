"""A checkpoint made into a function from pictures to people."""

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from yacs.config import CfgNode

from lib.config import load_cfg
from lib.config.check import check
from lib.core.inference import predict
from lib.core.model_file import load_runner
from lib.core.prediction.people import Person
from lib.dataset.skeleton import skeleton_of
from lib.dataset.transforms import box_to_view, crop_image, crop_matrix, fault_of_box
from lib.utils.distributed import choose_device

__all__ = ["Person", "Predictor"]

_MOST_BYTES = 2**28  # of pictures that wait for a batch to fill


class Predictor:
    """Finds the joints of people whose boxes are known.

    `Predictor(cfg, checkpoint)(image)` takes a picture, uint8 RGB [H, W, 3], with people's boxes
    (x, y, width, height) in its 0-based pixels, or for one person where there are none. `cfg` is a
    configuration or the path of a YAML file, whose TEST section says runtime, precision, flip test
    and decoding; `checkpoint` is what TEST.MODEL_FILE may be. Without `device` the first of GPUS is
    used, or the CPU. UserError where a file is wrong.
    """

    def __init__(
        self,
        cfg: CfgNode | str | Path,
        checkpoint: str | Path,
        device: torch.device | None = None,
    ) -> None:
        if isinstance(cfg, CfgNode):
            check(cfg)
        else:
            cfg = load_cfg(cfg)
        self.skeleton = skeleton_of(cfg.MODEL.NUM_JOINTS)
        self.batch_size = cfg.TEST.BATCH_SIZE_PER_GPU
        self._size = tuple(cfg.MODEL.IMAGE_SIZE)
        self._is_rgb = cfg.DATASET.COLOR_RGB
        self._device = device or choose_device(cfg.GPUS[0])
        self._run = load_runner(cfg, checkpoint, self._device)
        self._decoding = {
            "flip_order": self.skeleton.flip_order if cfg.TEST.FLIP_TEST else None,
            "refine": cfg.TEST.POST_PROCESS,
            "blur_kernel": cfg.TEST.BLUR_KERNEL,
        }

    def __call__(self, image: np.ndarray, boxes: np.ndarray | None = None) -> list[Person]:
        """Find the people in the boxes, [N, 4] or with scores [N, 5], in their order.

        Without `boxes` the whole picture is one person's. ValueError where picture or boxes are not
        as they should be; a box must touch the picture.
        """
        (people,) = self.many([(image, boxes)])
        return people

    def many(
        self,
        pictures: Iterable[tuple[np.ndarray, np.ndarray | None]],
        batch_size: int | None = None,
    ) -> Iterator[list[Person]]:
        """Find the people of many pictures, each with its boxes; yield those of each, in order.

        Batches reach across pictures, so a picture's people come when the batch of the last one is
        full, or when many large pictures wait. Takes and raises what a single call does.
        """
        batch_size = batch_size or self.batch_size
        crops: list[dict[str, np.ndarray]] = []
        counts: deque[int] = deque()  # of people, in pictures that are not yielded yet
        found: deque[Person] = deque()
        waiting = 0  # bytes
        for image, boxes in pictures:
            own = [self._crop(image, box) for box in _check_boxes(image, boxes)]
            counts.append(len(own))
            waiting += image.nbytes if own or crops else 0
            for crop in own:
                crops.append(crop)
                if len(crops) == batch_size:
                    found += self._find(crops)
                    crops, waiting = [], 0
            if crops and waiting > _MOST_BYTES:
                found += self._find(crops)
                crops, waiting = [], 0
            yield from _take(found, counts)
        if crops:
            found += self._find(crops)
        yield from _take(found, counts)

    def _crop(self, image: np.ndarray, box: np.ndarray) -> dict[str, np.ndarray]:
        center, scale = box_to_view(box[:4], self._size)
        crop = crop_image(image, crop_matrix(center, scale, 0.0, self._size), self._size)
        if not self._is_rgb:
            crop = cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)
        return {"image": crop, "center": center, "scale": scale, "box": box}

    def _find(self, crops: list[dict[str, np.ndarray]]) -> list[Person]:
        batch = {
            name: torch.from_numpy(np.stack([crop[name] for crop in crops]))
            for name in ("image", "center", "scale")
        }
        found = predict(self._run, [batch], self._device, **self._decoding)
        return [
            Person(joints, scores, crop["box"][:4], float(crop["box"][4]))
            for joints, scores, crop in zip(found.joints, found.scores, crops, strict=True)
        ]


def _take(found: deque[Person], counts: deque[int]) -> Iterator[list[Person]]:
    """The people of those pictures, next in turn, whose people are all found."""
    while counts and counts[0] <= len(found):
        yield [found.popleft() for _ in range(counts.popleft())]


def _check_boxes(image: np.ndarray, boxes: np.ndarray | None) -> np.ndarray:
    """Boxes with their scores, float64 [N, 5]; ValueError where picture or boxes are wrong."""
    if not isinstance(image, np.ndarray):
        raise ValueError(f"a picture is an array, as of np.asarray, not a {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"a picture is uint8 RGB [H, W, 3], not {image.dtype} {image.shape}")
    if boxes is None:
        boxes = [[0.0, 0.0, image.shape[1], image.shape[0]]]
    boxes = np.asarray(boxes, dtype=np.float64)
    if not boxes.size:
        return np.zeros((0, 5))
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
        raise ValueError(f"boxes are [N, 4] or, with scores, [N, 5], not {boxes.shape}")
    for index, box in enumerate(boxes):
        fault = fault_of_box(box[:4], image.shape)
        if fault:
            raise ValueError(f"box {index}, {box[:4].tolist()}, {fault}")
    if not np.isfinite(boxes[:, 4:]).all():
        raise ValueError("the score of a box is a finite number")
    scores = boxes[:, 4:] if boxes.shape[1] == 5 else np.ones((len(boxes), 1))
    return np.column_stack([boxes[:, :4], scores])
