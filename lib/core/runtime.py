"""What runs a network: PyTorch as it is, compiled, ONNX Runtime, or OpenVINO.

Each runtime is a callable from crops uint8 [B, h, w, 3] to heatmaps [B, J, h', w'], fp32; B may
change from call to call.
"""

import logging
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from lib.core.inference import Runner
from lib.core.tracing import (
    HEATMAPS,
    IMAGES,
    FromPixels,
    import_openvino,
    to_onnx,
    to_openvino,
    trace,
)
from lib.utils.errors import UserError

log = logging.getLogger(__name__)

PRECISIONS = ("fp32", "bf16", "fp16")
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# What each runtime computes in.
RUNTIMES = {
    "eager": PRECISIONS,
    "compiled": PRECISIONS,
    "openvino": ("fp32", "bf16"),
    "onnx": ("fp32",),
}


def build_runner(model: nn.Module, runtime: str, precision: str, size: tuple[int, int]) -> Runner:
    """Make `model`, in evaluation, run on a runtime; `size` (w, h) is of its images.

    `compiled` falls back to eager, with a word, where no compiler is. UserError where OpenVINO is
    not installed, or the runtime knows no such precision.
    """
    check_precision(runtime, precision)
    network = FromPixels(model).eval()
    if runtime == "onnx":
        return Onnx(to_onnx(trace(network, size), [HEATMAPS]).SerializeToString())
    if runtime == "openvino":
        return OpenVino(to_openvino(trace(network, size), [HEATMAPS]), precision)
    if runtime == "compiled":
        network = _compiled(network, precision, size)
    return lambda images: _run(network, images, precision)


def check_precision(runtime: str, precision: str) -> None:
    """Raise UserError where a runtime does not compute in that precision."""
    known = RUNTIMES[runtime]
    if precision not in known:
        raise UserError(
            f"the runtime {runtime} computes in {' or '.join(known)}, not in {precision}"
        )


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Compute matrix products and convolutions in `precision`, one of PRECISIONS."""
    kind = torch.bfloat16 if precision == "fp32" else TYPES[precision]
    return torch.autocast(device.type, kind, enabled=precision != "fp32")


def _run(network: nn.Module, images: Tensor, precision: str) -> Tensor:
    with autocast(images.device, precision):
        return network(images)


def _compiled(network: nn.Module, precision: str, size: tuple[int, int]) -> nn.Module:
    """Compile, and try once, so that a missing compiler shows here, not in the middle of work."""
    compiled = torch.compile(network)
    device = next(network.parameters()).device
    try:
        with torch.inference_mode():
            _run(compiled, blank(size).to(device), precision)
    except Exception as error:  # the compiler's errors have no common class
        log.warning("no compiled network here, going on without: %s", str(error).split("\n")[0])
        return network
    return compiled


def blank(size: tuple[int, int]) -> Tensor:
    """One black crop of `size` (w, h), to try a runner with."""
    return torch.zeros(1, size[1], size[0], 3, dtype=torch.uint8)


class Onnx:
    """A network in ONNX Runtime, on the CPU."""

    def __init__(self, model: bytes) -> None:
        import onnxruntime  # here, as few commands need it

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # what is wrong it raises too
        # Its idle threads would spin, and nearly double the time of what PyTorch does next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(model, options, providers=providers)

    def __call__(self, images: Tensor) -> Tensor:
        """The first output for crops uint8 [B, h, w, 3]: heatmaps, if it is a network alone."""
        return self.all(images)[0].to(images.device)

    def all(self, images: Tensor) -> list[Tensor]:
        """Every output, in order, on the CPU."""
        found = self._session.run(None, {IMAGES: images.cpu().numpy()})
        return [torch.from_numpy(output) for output in found]


class OpenVino:
    """A network in OpenVINO, on the CPU, for each batch size compiled at its first use."""

    def __init__(self, model: Any, precision: str) -> None:
        check_precision("openvino", precision)
        self._core = import_openvino().Core()
        self._settings = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._model = model
        self._compiled: dict[int, Any] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """The first output for crops uint8 [B, h, w, 3]: heatmaps, if it is a network alone."""
        return self.all(images)[0].to(images.device)

    def all(self, images: Tensor) -> list[Tensor]:
        """Every output, in order, on the CPU."""
        batch = len(images)
        if batch not in self._compiled:
            self._model.reshape(list(images.shape))
            self._compiled[batch] = self._core.compile_model(self._model, "CPU", self._settings)
        found = self._compiled[batch](images.contiguous().cpu().numpy(), share_inputs=True)
        return [torch.from_numpy(found[place]) for place in range(len(self._model.outputs))]
