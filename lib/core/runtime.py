"""What runs a network: PyTorch as it is, compiled, or OpenVINO.

Each runtime is a callable from images [B, 3, H, W], float, ImageNet-normalised, to heatmaps
[B, J, h, w], fp32; B may change from call to call.
"""

import copy
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.models import build_model
from lib.utils.checkpoint import load_weights
from lib.utils.errors import UserError
from lib.utils.machine import exporting

log = logging.getLogger(__name__)

Runner = Callable[[Tensor], Tensor]

RUNTIMES = ("eager", "compiled", "openvino")
PRECISIONS = ("fp32", "bf16", "fp16")
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_runner(cfg: CfgNode, file: str | Path, device: torch.device) -> Runner:
    """Make the network that `cfg` describes run with the weights in `file`, as TEST asks.

    UserError where the file has not this network's weights, or the runtime is not installed.
    """
    model = build_model(cfg)
    load_weights(model, file)
    model.to(device, memory_format=torch.channels_last)
    return build_runner(model, cfg.TEST.RUNTIME, cfg.TEST.PRECISION, tuple(cfg.MODEL.IMAGE_SIZE))


def build_runner(model: nn.Module, runtime: str, precision: str, size: tuple[int, int]) -> Runner:
    """Make `model`, in evaluation, run on a runtime; `size` (w, h) is of its images.

    `compiled` falls back to eager, with a word, where no compiler is. UserError where OpenVINO is
    not installed.
    """
    assert precision in PRECISIONS, precision
    model.eval()
    if runtime == "openvino":
        return OpenVino(model, precision, size)
    if runtime == "compiled":
        model = _compiled(model, precision, size)
    return lambda images: _run(model, images, precision)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Compute matrix products and convolutions in `precision`, one of PRECISIONS."""
    kind = torch.bfloat16 if precision == "fp32" else TYPES[precision]
    return torch.autocast(device.type, kind, enabled=precision != "fp32")


def _run(model: nn.Module, images: Tensor, precision: str) -> Tensor:
    with autocast(images.device, precision):
        return model(images).float()


def _compiled(model: nn.Module, precision: str, size: tuple[int, int]) -> nn.Module:
    """Compile, and try once, so that a missing compiler shows here, not in the middle of work."""
    compiled = torch.compile(model)
    device = next(model.parameters()).device
    width, height = size
    try:
        with torch.inference_mode():
            _run(compiled, torch.zeros(1, 3, height, width, device=device), precision)
    except Exception as error:  # the compiler's errors have no common class
        log.warning("no compiled network here, going on without: %s", str(error).split("\n")[0])
        return model
    return compiled


class OpenVino:
    """The network in OpenVINO on the CPU, for each batch size compiled at its first use."""

    def __init__(self, model: nn.Module, precision: str, size: tuple[int, int]) -> None:
        try:
            import openvino
        except ImportError:
            raise UserError(
                "the runtime openvino is not installed: .venv/bin/pip install openvino"
            ) from None
        self._core = openvino.Core()
        hint = {"fp32": "f32", "bf16": "bf16"}.get(precision)
        if hint is None:
            raise UserError(f"the runtime openvino computes in fp32 or bf16, not in {precision}")
        self._settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        width, height = size
        # A batch of two is an example of any batch; one would be taken for a constant.
        example = torch.zeros(2, 3, height, width)
        shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
        plain = copy.deepcopy(model).cpu().eval()
        with torch.no_grad(), exporting():
            exported = torch.export.export(plain, (example,), dynamic_shapes=shapes)
        self._model = openvino.convert_model(exported)
        self._compiled: dict[int, Callable] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, J, h, w]."""
        batch = len(images)
        if batch not in self._compiled:
            self._model.reshape(list(images.shape))
            self._compiled[batch] = self._core.compile_model(self._model, "CPU", self._settings)
        pixels = images.contiguous().cpu().numpy()
        found = self._compiled[batch](pixels, share_inputs=True)[0]
        return torch.from_numpy(found).to(images.device)
