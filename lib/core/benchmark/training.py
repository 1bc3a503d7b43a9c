"""What it costs to watch over a training: finite or not, averages, checkpoints."""

import statistics
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from yacs.config import CfgNode

from lib.core import state
from lib.core.benchmark.measure import interleave
from lib.core.engine import Progress, Training
from lib.core.inference import normalise
from lib.core.runtime import autocast
from lib.core.trainer import build_training
from lib.dataset.heatmap import encode
from lib.dataset.skeleton import skeleton_of
from lib.dataset.transforms import crop_to_heatmap
from lib.models import build_model
from lib.utils.distributed import World


def watching_cost(
    cfg: CfgNode, device: torch.device, batch: int = 8, rounds: int = 9
) -> dict[str, float]:
    """Median ms of a step that looks at nothing (`bare`), of ours, and of ours with everything on.

    `all` clips, averages the weights, and can leave a step out. `checkpoint` is one written whole,
    average included, in ms.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TRAIN.BATCH_SIZE_PER_GPU = batch
    plain = _training(cfg, device)
    cfg.TRAIN.CLIP_GRAD, cfg.TRAIN.EMA_DECAY, cfg.TRAIN.SKIP_NOT_FINITE = 1.0, 0.999, 1
    everything = _training(cfg, device)
    people = _people(cfg, batch)
    tasks = {
        "bare": lambda: _bare_step(plain, people),
        "ours": lambda: plain.step(people, 1000),
        "all": lambda: everything.step(people, 1000),
    }
    times = interleave(tasks, rounds, device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pth"

        def save() -> None:
            state.save(path, everything.model, everything, Progress(), steps=1, seed=0, made={})

        times |= interleave({"checkpoint": save}, 3, device)
    found = {name: 1e3 * statistics.median(spent) for name, spent in times.items()}
    return found | {f"{name} / bare": found[name] / found["bare"] for name in ("ours", "all")}


def _training(cfg: CfgNode, device: torch.device) -> Training:
    torch.manual_seed(0)
    network = build_model(cfg).to(device, memory_format=torch.channels_last)
    skeleton = skeleton_of(cfg.MODEL.NUM_JOINTS)
    training = build_training(cfg, network, World(device), skeleton, steps_per_epoch=1000)
    training.start()
    return training


def _people(cfg: CfgNode, count: int) -> dict[str, Tensor]:
    width, height = cfg.MODEL.IMAGE_SIZE
    draw = torch.Generator().manual_seed(0)
    places = torch.rand(count, cfg.MODEL.NUM_JOINTS, 2, generator=draw)
    pixels = torch.randint(0, 256, (count, height, width, 3), generator=draw)
    return {
        "image": pixels.to(torch.uint8),
        "joints": places * torch.tensor([width, height]),
        "visible": torch.ones(places.shape[:2]),
        "index": torch.arange(count),
    }


def _bare_step(training: Training, batch: dict[str, Tensor]) -> None:
    """What `Training.step` does, without a look at whether it went well."""
    batch = {name: value.to(training.world.device) for name, value in batch.items()}
    joints = crop_to_heatmap(batch["joints"], training.image_size, training.heatmap_size)
    target, weight = encode(joints, batch["visible"], training.heatmap_size, training.sigma)
    training.optimizer.zero_grad(set_to_none=True)
    with autocast(training.world.device, training.precision):
        output = training.model(normalise(batch["image"]))
    training.criterion(output, target, weight).backward()
    training.optimizer.step()
    training.schedule.step()
