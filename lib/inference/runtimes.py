"""Runtimes: eager PyTorch, torch.compile, ONNX Runtime and OpenVINO.

Each runs a network as a `Runner`: crops uint8 [B, h, w, 3] -> heatmaps [B, J, h', w'], fp32. B may
change from call to call. Eager and compiled runners import nothing of the other two.
"""

import logging
from pathlib import Path

import torch
from torch import Tensor
from yacs.config import CfgNode

from lib.inference.pipeline import PixelsToHeatmaps, Runner
from lib.inference.precision import RUNTIMES, autocast, check_precision
from lib.models import PoseNetwork, build_model
from lib.utils.checkpoint import load_weights

__all__ = ["RUNTIMES", "build_runner", "is_exported", "load_runner"]

log = logging.getLogger(__name__)


def load_runner(cfg: CfgNode, file: str | Path, device: torch.device) -> Runner:
    """Return a runner of the network in `file`, for crops on `device`, as the TEST keys say.

    `file` is a checkpoint, or a `.onnx` or `.xml` file of `tools/export.py`. UserError if it cannot
    be read or holds another network than `cfg` describes.
    """
    if is_exported(file):
        from lib.inference.exported import load_exported

        return load_exported(cfg, Path(file))
    model = build_model(cfg)
    load_weights(model, file)
    model = model.to(device).to(memory_format=torch.channels_last)
    test = cfg.TEST
    return build_runner(model, test.RUNTIME, test.PRECISION, tuple(cfg.MODEL.IMAGE_SIZE))


def is_exported(file: str | Path) -> bool:
    """Whether a file is an exported network, by its suffix; otherwise it is a checkpoint."""
    return Path(file).suffix in (".onnx", ".xml")


def build_runner(model: PoseNetwork, runtime: str, precision: str, size: tuple[int, int]) -> Runner:
    """Return a runner of `model`, in evaluation mode; `size` (w, h) of the crops.

    `compiled` falls back to eager with a warning if there is no compiler. UserError if OpenVINO is
    not installed or the runtime does not compute in that precision.
    """
    check_precision(runtime, precision)
    network = PixelsToHeatmaps(model).eval()
    if runtime in ("onnx", "openvino"):
        from lib.inference.tracing import build_traced_runner

        return build_traced_runner(network, runtime, precision, size)
    run = _eager(network, precision)
    return _compiled(network, precision, size, run) if runtime == "compiled" else run


def _eager(network: Runner, precision: str) -> Runner:
    def run(images: Tensor) -> Tensor:
        with autocast(images.device, precision):
            return network(images)

    return run


def _compiled(
    network: PixelsToHeatmaps, precision: str, size: tuple[int, int], fallback: Runner
) -> Runner:
    """Compile and run once, so that a missing compiler shows before any work."""
    run = _eager(torch.compile(network), precision)
    device = next(network.parameters()).device
    try:
        with torch.inference_mode():
            run(torch.zeros(1, size[1], size[0], 3, dtype=torch.uint8, device=device))
    except Exception as error:  # the compiler's errors have no common class
        log.warning("torch.compile failed, continuing in eager: %s", str(error).split("\n")[0])
        return fallback
    return run
