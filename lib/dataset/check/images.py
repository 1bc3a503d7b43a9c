"""Every image of a data set, read once, and those that two sets share."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import cv2
import numpy as np

from lib.dataset.images import JPEG, ImageSource, decode_image, image_size
from lib.utils.errors import UserError

SIDE = 32  # pixels of a thumbnail
MIN_SHARED = 2000  # images from which on starting processes is worth its time
_CHUNK = 64  # images that a process reads at a time
# Of copies at half size and at JPEG quality 10, 99 % of LSPET's photographs are above both; the
# most similar pair of 2,300 different ones has 0.95 and 0.88.
MIN_COSINE, MIN_CORRELATION = 0.98, 0.95


@dataclass(frozen=True, eq=False)
class Scan:
    """What is kept of an image; `fault` says why it cannot be used."""

    size: tuple[int, int] = (0, 0)  # width, height
    digest: bytes = b""  # of the file
    thumbnail: np.ndarray | None = None  # uint8 [SIDE, SIDE], gray
    fault: str = ""
    is_missing: bool = False


def scan_images(
    images: ImageSource, names: Sequence[str], max_pixels: int, workers: int
) -> dict[str, Scan]:
    """Read images, with up to `workers` processes if there are many; 0: in this one."""
    scan = partial(scan_image, images, max_pixels)
    pool: Executor = ThreadPoolExecutor(1)
    if workers > 1 and len(names) >= MIN_SHARED:
        count = min(workers, os.cpu_count() or 1)
        pool = ProcessPoolExecutor(count, get_context("spawn"), cv2.setNumThreads, (1,))
    with pool:
        return dict(zip(names, pool.map(scan, names, chunksize=_CHUNK), strict=True))


def scan_image(images: ImageSource, max_pixels: int, name: str) -> Scan:
    """Read one image. JPEGs are decoded at a reduced size, which finds the same damage."""
    try:
        data = images.read(name)
    except UserError as error:
        return Scan(fault=str(error), is_missing=True)
    digest, size = hashlib.sha256(data).digest(), image_size(data)
    factors = [f for f in (8, 4, 2) if data.startswith(JPEG) and min(size) >= f * SIDE]
    try:
        image = decode_image(data, name, factors[0] if factors else 1, max_pixels=max_pixels)
    except UserError as error:
        return Scan(digest=digest, fault=str(error).removeprefix(f"{name}: "))
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    thumbnail = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    height, width = image.shape[:2]
    return Scan(size if factors else (width, height), digest, thumbnail)


def shared_pictures(
    train: Mapping[str, Scan], test: Mapping[str, Scan]
) -> Iterator[tuple[str, str, bool]]:
    """Yield the images of `test` that are in `train`: (theirs, ours, whether bytes are equal).

    The same picture in another encoding or size is found by its lowest frequencies, as perceptual
    hashes do, and verified by its thumbnail.
    """
    digests = {scan.digest: name for name, scan in train.items() if scan.digest}
    ours = [name for name, scan in train.items() if scan.thumbnail is not None]
    frequencies = np.stack([_frequencies(train[name]) for name in ours] or [np.zeros(63)])
    for name, scan in test.items():
        if scan.digest in digests:
            yield name, digests[scan.digest], True
        elif scan.thumbnail is not None:
            alike = np.flatnonzero(frequencies @ _frequencies(scan) > MIN_COSINE)
            same = (ours[i] for i in alike if _correlation(scan, train[ours[i]]) > MIN_CORRELATION)
            if other := next(same, None):
                yield name, other, False


def _frequencies(scan: Scan) -> np.ndarray:
    """Return the 63 lowest frequencies of a thumbnail, without its mean, of length 1."""
    assert scan.thumbnail is not None
    lowest = cv2.dct(scan.thumbnail.astype(np.float32))[:8, :8].ravel()[1:]
    return lowest / max(np.linalg.norm(lowest), 1e-6)


def _correlation(first: Scan, second: Scan) -> float:
    assert first.thumbnail is not None
    assert second.thumbnail is not None
    return float(np.corrcoef(first.thumbnail.ravel(), second.thumbnail.ravel())[0, 1])
