"""Speed of the loader and of heatmap decoding; configurations with other values."""

import statistics
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from yacs.config import CfgNode

from lib.analysis.benchmark.measure import interleave
from lib.dataset import build_dataset, build_skeleton, build_train_loader
from lib.dataset.heatmap import decode
from lib.inference.pipeline import build_decoding


def loader_rates(cfg: CfgNode, samples: int = 400, rounds: int = 5) -> dict[str, float]:
    """Return the samples/s of the training loader with one worker, and of decoding alone.

    `bare` reads each file and decodes its JPEG at full size, in one thread. The set's people are
    repeated up to about `samples`. `ratio` is `loader` over `bare`.
    """
    cfg = changed_cfg(cfg, "WORKERS", 1)
    dataset = build_dataset(cfg, "train")
    repeats = max(1, samples // len(dataset))
    people = replace(dataset.annotation, records=[*dataset.records] * repeats)
    dataset = replace(dataset, annotation=people)
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
    rates = {name: len(dataset) / statistics.median(seconds) for name, seconds in times.items()}
    return rates | {"ratio": rates["loader"] / rates["bare"]}


def decode_ms(cfg: CfgNode, device: torch.device, batch: int = 16, rounds: int = 31) -> float:
    """Return the milliseconds per image of decoding heatmaps as configured by TEST."""
    width, height = cfg.MODEL.HEATMAP_SIZE
    decoding = build_decoding(cfg, build_skeleton(cfg))
    heatmaps = torch.rand(batch, cfg.MODEL.NUM_JOINTS, height, width, device=device)

    def task() -> None:
        decode(heatmaps, decoding.blur_kernel, decoding.refine)

    (times,) = interleave({"decode": task}, rounds, device).values()
    return 1e3 * statistics.median(times) / batch


def changed_cfg(cfg: CfgNode, *pairs: Any) -> CfgNode:
    """Return a copy of the configuration with other values: key, value, key, value, …."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(list(pairs))
    return cfg
