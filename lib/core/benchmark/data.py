"""Speed of what stands around the network: the loader before it, the decoding after it."""

import statistics

import cv2
import numpy as np
import torch
from yacs.config import CfgNode

from lib.core.benchmark.measure import interleave
from lib.dataset import build_dataset, build_train_loader
from lib.dataset.heatmap import decode, encode


def loader_rates(cfg: CfgNode, samples: int = 400, rounds: int = 5) -> dict[str, float]:
    """Samples/s of the training loader with one worker, and of bare decoding of the same files.

    Bare decoding reads each file and decodes its JPEG in full, in one thread, and does no more.
    The set's people are repeated until there are about `samples`. `ratio` is loader over bare.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.WORKERS = 1
    dataset = build_dataset(cfg, "train")
    dataset.records = list(dataset.records) * max(1, samples // len(dataset))
    loader = build_train_loader(cfg, dataset)
    cv2.setNumThreads(1)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION

    def bare() -> None:
        for record in dataset.records:
            cv2.imdecode(np.frombuffer(dataset.images.read(record.image), np.uint8), flags)

    def load() -> None:
        for _ in loader:
            pass

    times = interleave({"bare": bare, "loader": load}, rounds, torch.device("cpu"))
    rates = {name: len(dataset) / statistics.median(spent) for name, spent in times.items()}
    return rates | {"ratio": rates["loader"] / rates["bare"]}


def decode_ms(cfg: CfgNode, device: torch.device, batch: int = 16, rounds: int = 31) -> float:
    """Milliseconds an image that heatmaps -> joints take, as the configuration decodes them."""
    size = tuple(cfg.MODEL.HEATMAP_SIZE)
    places = np.random.default_rng(0).random((batch, cfg.MODEL.NUM_JOINTS, 2))
    joints = (0.25 + 0.5 * places) * size
    joints = torch.from_numpy(joints).float().to(device)
    heatmaps, _ = encode(joints, torch.ones(joints.shape[:2], device=device), size, cfg.MODEL.SIGMA)

    def task() -> None:
        decode(heatmaps, blur_kernel=cfg.TEST.BLUR_KERNEL, refine=cfg.TEST.POST_PROCESS)

    (times,) = interleave({"decode": task}, rounds, device).values()
    return 1e3 * statistics.median(times) / batch
