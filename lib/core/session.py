"""What every command on a configuration does first: load, choose the device, open the folders."""

import logging
import os
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
from lib.utils.errors import UserError
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

    @property
    def model_file(self) -> Path:
        """What to test or use: TEST.MODEL_FILE, else the run's own final weights."""
        return Path(self.cfg.TEST.MODEL_FILE or self.folder / "final_state.pth")


@contextmanager
def open_session(
    path: str | Path, opts: Sequence[str], command: str, run: str = ""
) -> Iterator[Session]:
    """Load a configuration, get the machine ready, and log to `<run's folder>/<command>.log`.

    The run is named after the configuration, unless `run` says another name.
    """
    cfg = load_cfg(path, opts)
    run = run or Path(path).stem
    folder = run_folder(cfg.OUTPUT_DIR, cfg, run)
    log_folder = run_folder(cfg.LOG_DIR, cfg, run)
    tune()
    torch.backends.cudnn.enabled = cfg.CUDNN.ENABLED
    torch.backends.cudnn.benchmark = cfg.CUDNN.BENCHMARK
    if cfg.CUDNN.DETERMINISTIC:
        torch.backends.cudnn.benchmark = False  # it may choose another kernel each time
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(cfg.CUDNN.DETERMINISTIC)
    world = join_world(cfg.GPUS)
    try:
        set_up_logging(folder, command, quiet=not world.is_first)
        log.info("%s on %s", path, describe(world))
        for key, reason in unused_keys(cfg).items():
            log.info("%s is not used: %s", key, reason)
        yield Session(cfg, world, folder, log_folder)
    except RuntimeError as error:
        raise _explained(error, world) from error
    finally:
        leave_world(world)


def _explained(error: RuntimeError, world: World) -> Exception:
    """What it means for the user that another process died, if that is the error; else itself."""
    line = " ".join(str(error).split())
    if "DataLoader worker" in line:
        return UserError(f"a loader process died: {line} If memory ran out, lower WORKERS")
    if "out of memory" in line and world.device.type == "cuda":
        return UserError(f"{line} Lower TRAIN.BATCH_SIZE_PER_GPU or TEST.BATCH_SIZE_PER_GPU")
    if "use_deterministic_algorithms" in line:
        return UserError(f"CUDNN.DETERMINISTIC cannot be had here: {line}")
    if world.size > 1 and any(sign in line for sign in ("closed by peer", "reset by peer", "NCCL")):
        return UserError(f"process {world.rank} lost another one, whose error says why ({line})")
    return error
