"""What every command on a configuration does first: load, choose the device, open the folders."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from yacs.config import CfgNode

from lib.config import load_cfg
from lib.config.check import unused_keys
from lib.core.results import run_folder
from lib.utils.distributed import World, describe, join_world, leave_world
from lib.utils.logging import set_up_logging
from lib.utils.machine import tune

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """A command at work: its configuration, its place among the processes, its folders."""

    cfg: CfgNode
    world: World
    folder: Path
    log_folder: Path


@contextmanager
def open_session(path: str, opts: Sequence[str], command: str) -> Iterator[Session]:
    """Load a configuration, get the machine ready, and log to `<run's folder>/<command>.log`."""
    cfg = load_cfg(path, opts)
    run = Path(path).stem
    folder = run_folder(cfg.OUTPUT_DIR, cfg, run)
    log_folder = run_folder(cfg.LOG_DIR, cfg, run)
    tune()
    torch.backends.cudnn.enabled = cfg.CUDNN.ENABLED
    torch.backends.cudnn.benchmark = cfg.CUDNN.BENCHMARK
    torch.use_deterministic_algorithms(cfg.CUDNN.DETERMINISTIC, warn_only=True)
    world = join_world(cfg.GPUS)
    try:
        set_up_logging(folder, command, quiet=not world.is_first)
        log.info("%s on %s", path, describe(world))
        for key, reason in unused_keys(cfg).items():
            log.info("%s is not used: %s", key, reason)
        yield Session(cfg, world, folder, log_folder)
    finally:
        leave_world(world)
