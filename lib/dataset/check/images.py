"""Every image of a data set, read once, and the pictures that two sets share."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

import cv2
import numpy as np

from lib.dataset.images import JPEG, ImageSource, decode_image, image_size
from lib.utils.errors import UserError

SIDE = 32  # pixels of a thumbnail
# Of copies at half size or JPEG quality 10, 99 % of LSPET's photographs exceed both; the most
# similar two of 2,300 different ones have 0.95 and 0.88.
MIN_COSINE, MIN_CORRELATION = 0.98, 0.95


class Scan(NamedTuple):
    """What is kept of an image; `fault` is its kind and the reason if it cannot be used."""

    size: tuple[int, int] = (0, 0)  # width, height
    digest: bytes = b""  # of the file
    thumbnail: np.ndarray | None = None  # float32 [SIDE, SIDE], gray
    fault: tuple[str, str] | None = None


def scan_images(
    images: ImageSource, names: Sequence[str], max_pixels: int, workers: int
) -> dict[str, Scan]:
    """Read images, by worker processes if there are so many that starting some saves time."""
    pool: Executor = ThreadPoolExecutor(1)
    if workers > 1 and len(names) > 2000:
        pool = ProcessPoolExecutor(workers, get_context("spawn"), cv2.setNumThreads, (1,))
    with pool:
        scans = pool.map(partial(scan_image, images, max_pixels), names, chunksize=64)
        return dict(zip(names, scans, strict=True))


def scan_image(images: ImageSource, max_pixels: int, name: str) -> Scan:
    """Read an image. A JPEG is decoded at a reduced size, which finds the same damage."""
    try:
        data = images.read(name)
    except UserError as error:
        return Scan(fault=("missing image", str(error)))
    digest, size = hashlib.sha256(data).digest(), image_size(data)
    factor = next((f for f in (8, 4, 2) if data.startswith(JPEG) and min(size) >= f * SIDE), 1)
    try:
        image = decode_image(data, name, factor, max_pixels=max_pixels)
    except UserError as error:
        return Scan(digest=digest, fault=("broken image", str(error).removeprefix(f"{name}: ")))
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    thumbnail = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    height, width = image.shape[:2]
    return Scan(size if factor > 1 else (width, height), digest, thumbnail.astype(np.float32))


def shared_pictures(
    train: Mapping[str, Scan], test: Mapping[str, Scan]
) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, image of `test`, image of `train`) if their bytes or their pictures are equal.

    Another encoding or size of a picture has nearly the same lowest frequencies, as in perceptual
    hashes; the thumbnails verify that.
    """
    digests = {scan.digest: name for name, scan in train.items() if scan.digest}
    others = [(name, scan.thumbnail) for name, scan in train.items() if scan.thumbnail is not None]
    frequencies = np.stack([_frequencies(thumbnail) for _, thumbnail in others] or [np.zeros(63)])
    for name, scan in test.items():
        if scan.digest in digests:
            yield "same file in both sets", name, digests[scan.digest]
        elif scan.thumbnail is not None:
            for index in np.flatnonzero(frequencies @ _frequencies(scan.thumbnail) > MIN_COSINE):
                other, thumbnail = others[index]
                pixels = np.stack([scan.thumbnail.ravel(), thumbnail.ravel()])
                if np.corrcoef(pixels)[0, 1] > MIN_CORRELATION:
                    yield "same picture in both sets", name, other
                    break


def _frequencies(thumbnail: np.ndarray) -> np.ndarray:
    """Return the 63 lowest frequencies, without the mean, as a vector of length 1."""
    lowest = cv2.dct(thumbnail)[:8, :8].ravel()[1:]
    return lowest / (np.linalg.norm(lowest) + 1e-6)
