"""Runtimes: eager PyTorch, torch.compile, ONNX Runtime and OpenVINO, and their precisions.

Each runs a network as a `Runner`: crops uint8 [B, h, w, 3] -> heatmaps [B, J, h', w'], fp32. B may
change from call to call. Eager and compiled runners import nothing of the other two.
"""

from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.config.check import RUNTIMES
from lib.inference.fold import fold_batch_norms
from lib.inference.pipeline import PixelsToHeatmaps, Runner
from lib.models import PoseNetwork, build_model
from lib.models.tokenpose import PatchEmbedding
from lib.models.transformer import Linear
from lib.utils.checkpoint import load_weights
from lib.utils.errors import UserError, as_user_error
from lib.utils.machine import warn_if_slow

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_runner(cfg: CfgNode, file: str | Path, device: torch.device) -> Runner:
    """Return a runner of the network in `file`, for crops on `device`, as the TEST keys require.

    `file` is a checkpoint or of tools/export.py. UserError if it has another network than `cfg`.
    """
    exported = {".onnx": "onnx", ".xml": "openvino"}.get(Path(file).suffix)
    if exported:
        check_precision(exported, cfg.TEST.PRECISION)
        from lib.inference.exported import load_exported

        return load_exported(cfg, Path(file))
    model = build_model(cfg)
    load_weights(model, file)
    model = model.to(device)
    test = cfg.TEST
    size = tuple(cfg.MODEL.IMAGE_SIZE)
    return build_runner(model, test.RUNTIME, test.PRECISION, size, freeze=True)


def build_runner(
    model: PoseNetwork, runtime: str, precision: str, size: tuple[int, int], freeze: bool = False
) -> Runner:
    """Return a runner of `model`, in evaluation mode; `size` (w, h) of the crops.

    With `freeze` a network compiled for a CPU is faster, but it is compiled alone and stays in
    memory; otherwise all that differ only in weights, as in a training, share the result.
    UserError if the runtime is not installed or does not compute in that precision.
    """
    check_precision(runtime, precision)
    warn_if_slow(next(model.parameters()).device, precision)
    if runtime in ("onnx", "openvino"):
        from lib.inference.tracing import build_traced_runner

        return build_traced_runner(PixelsToHeatmaps(model).eval(), runtime, precision, size)
    network = PixelsToHeatmaps(fold_batch_norms(model, size)).eval()
    _cast_weights(network, TYPES[precision])
    if runtime == "eager":
        return _with_autocast(network, precision)
    run = _with_autocast(_compiled(network, freeze), precision)
    device = next(model.parameters()).device
    images = torch.zeros(1, size[1], size[0], 3, dtype=torch.uint8, device=device)
    with as_user_error("TEST.RUNTIME compiled: torch.compile fails here"), torch.inference_mode():
        run(images)
    return run


def check_precision(runtime: str, precision: str) -> None:
    """Raise UserError if the runtime does not compute in that precision."""
    if precision not in RUNTIMES[runtime]:
        known = " or ".join(RUNTIMES[runtime])
        raise UserError(f"TEST.PRECISION = {precision}: the runtime {runtime} computes in {known}")


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Compute matrix products and convolutions in `precision`, one of PRECISIONS."""
    dtype = torch.bfloat16 if precision == "fp32" else TYPES[precision]
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def _compiled(network: nn.Module, freeze: bool) -> Runner:
    """Compile a network; `freeze`: on a CPU with constant weights, which oneDNN lays out once."""
    from torch._dynamo import config as dynamo
    from torch._inductor import config as inductor

    run = torch.compile(network)
    freezing = freeze and next(network.parameters()).device.type == "cpu"

    def run_compiled(images: Tensor) -> Tensor:  # which compiles again for another kind of batch
        # All networks of a process share the limit, beyond which they would not be compiled.
        with inductor.patch(freezing=freezing), dynamo.patch(cache_size_limit=256):
            return run(images)

    return run_compiled


def _cast_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Cast once the weights of plain layers, which autocast would cast in every run."""
    # Of exactly these types, as others may compute with their weights in fp32.
    types = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, Linear, PatchEmbedding)
    for module in network.modules():
        if type(module) in types:
            module.to(dtype)


def _with_autocast(network: Runner, precision: str) -> Runner:
    def run(images: Tensor) -> Tensor:
        with autocast(images.device, precision):
            return network(images)

    return run
