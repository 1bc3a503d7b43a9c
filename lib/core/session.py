"""The start of every command on a configuration: load it, choose the device, open the folders."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from yacs.config import CfgNode

from lib.config import load_cfg
from lib.config.check import ignored_keys
from lib.core.results import run_folder
from lib.dataset import build_skeleton, dataset_spec
from lib.models import check_model, model_spec
from lib.utils.distributed import Distributed, cleanup_distributed, describe, init_distributed
from lib.utils.errors import UserError
from lib.utils.logging import FILE_ONLY, set_up_logging
from lib.utils.machine import tune, warn_if_busy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """A running command: its configuration, its processes, its folder."""

    cfg: CfgNode
    distributed: Distributed
    folder: Path

    @property
    def log_folder(self) -> Path:
        """The run's folder of TensorBoard logs."""
        return run_folder(self.cfg.LOG_DIR, self.cfg, self.folder.name)

    @property
    def model_file(self) -> Path:
        """TEST.MODEL_FILE; default: the final weights of the run."""
        return Path(self.cfg.TEST.MODEL_FILE or self.folder / "final_state.pth")


@contextmanager
def open_session(
    path: str | Path, opts: Sequence[str], command: str, run: str = ""
) -> Iterator[Session]:
    """Load and check a configuration, set up device and folder; log to `<folder>/<command>.log`.

    `run` names the run; default: the name of the configuration file.
    """
    cfg = check_model(load_cfg(path, opts))
    dataset_spec(cfg)  # a wrong name or number of joints raises before any image is read
    build_skeleton(cfg)
    folder = run_folder(cfg.OUTPUT_DIR, cfg, run or Path(path).stem)
    tune()
    torch.backends.cudnn.enabled = cfg.CUDNN.ENABLED
    torch.backends.cudnn.benchmark = cfg.CUDNN.BENCHMARK
    if cfg.CUDNN.DETERMINISTIC:
        torch.backends.cudnn.benchmark = False  # it may choose another kernel each time
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS requires it
    torch.use_deterministic_algorithms(cfg.CUDNN.DETERMINISTIC)
    distributed = init_distributed(cfg.GPUS)
    set_up_logging(folder, command, quiet=not distributed.is_main)
    try:
        log.info("%s on %s", path, describe(distributed))
        if (cores := os.cpu_count() or 1) < cfg.WORKERS:
            log.info("WORKERS %d on %d cores: lower it if loading is slow", cfg.WORKERS, cores)
        if distributed.device.type == "cpu":
            warn_if_busy(torch.get_num_threads())
        for key, reason in ignored_keys(cfg, model_spec(cfg).ignored).items():
            log.info("%s has no effect: %s", key, reason)
        yield Session(cfg, distributed, folder)
    except (Exception, KeyboardInterrupt) as error:
        known = _explain(error, distributed)
        is_expected = isinstance(known, UserError | KeyboardInterrupt)
        text = str(known) or "interrupted"
        log.error("error: %s", text, exc_info=not is_expected, extra=FILE_ONLY)
        if known is error:
            raise
        raise known from error
    finally:
        cleanup_distributed(distributed)


def _explain(error: BaseException, distributed: Distributed) -> BaseException:
    """Return a UserError for a known error, with what to change; otherwise the error itself."""
    if not isinstance(error, RuntimeError):
        return error
    line = " ".join(str(error).split())
    if "DataLoader worker" in line:
        return UserError(f"a loader process died: {line} If memory ran out, lower WORKERS")
    if "out of memory" in line:
        return UserError(f"{line} Lower TRAIN.BATCH_SIZE_PER_GPU or TEST.BATCH_SIZE_PER_GPU")
    if any(sign in line for sign in ("closed by peer", "reset by peer", "NCCL")):
        return UserError(
            f"process {distributed.rank} lost another process; see the error of that one ({line})"
        )
    return error
