"""Numeric precision of matrix products and convolutions, and which runtime computes in which."""

from contextlib import AbstractContextManager

import torch

from lib.utils.errors import UserError

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = tuple(TYPES)

RUNTIMES = {
    "eager": PRECISIONS,
    "compiled": PRECISIONS,
    "openvino": ("fp32", "bf16"),
    "onnx": ("fp32",),
}


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Compute matrix products and convolutions in `precision`, one of PRECISIONS."""
    dtype = torch.bfloat16 if precision == "fp32" else TYPES[precision]
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def check_precision(runtime: str, precision: str) -> None:
    """Raise UserError if the runtime does not compute in that precision."""
    known = RUNTIMES[runtime]
    if precision not in known:
        raise UserError(
            f"TEST.PRECISION = {precision}: the runtime {runtime} computes in {' or '.join(known)}"
        )
