"""Two operations in the form that is fastest on this processor or in an exported file."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# torch 2.6 has only the wider flag, which is also set under torch.compile.
is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def _prefers_onednn() -> bool:
    """Whether this is an AMD processor, on which MKL takes a slow path, and oneDNN is available."""
    cpuinfo = Path("/proc/cpuinfo")
    is_amd = cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text()
    return is_amd and torch.backends.mkldnn.is_available()


# oneDNN's linear layer, which has no derivative; None if MKL's is as fast. Constant, as
# torch.compile cannot trace the reading of a file.
ONEDNN_LINEAR: Any = torch.ops.mkldnn._linear_pointwise if _prefers_onednn() else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: x [..., in], weight [out, in], bias [out], contiguous -> [..., out].

    In fp32 on an AMD processor by oneDNN, as MKL is slow there; in training as a 1×1 convolution.
    """
    if x.dtype != torch.float32 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    if is_exporting() or ONEDNN_LINEAR is None:
        return F.linear(x, weight, bias)
    if not torch.is_grad_enabled():
        if torch.compiler.is_compiling():
            return _onednn_linear(x, weight, bias)
        return ONEDNN_LINEAR(x, weight, bias, "none", [], "")
    rows = x.numel() // x.shape[-1]
    if not rows:
        return F.linear(x, weight, bias)
    # On one thread PyTorch leaves 1×1 convolutions of fewer than 16 images to MKL.
    images = 16 if rows % 16 == 0 else 1
    pixels = x.reshape(images, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)  # in memory channels last
    out = F.conv2d(pixels, weight[:, :, None, None], bias)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


@torch.library.custom_op("tokenpose::linear", mutates_args=())
def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """ONEDNN_LINEAR, which torch.compile would replace, or refuse if the weight is no constant."""
    return ONEDNN_LINEAR(x, weight, bias, "none", [], "")


@_onednn_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def topk_indices(x: Tensor, count: int) -> Tensor:
    """Return the indices of the `count` largest of each row of x [..., rows, n], in no order.

    OpenVINO finds them 2-3 times as fast along columns; PyTorch along rows.
    """
    if is_exporting():
        columns = x.transpose(-2, -1).topk(count, dim=-2, sorted=False).indices
        return columns.transpose(-2, -1)
    return x.topk(count, dim=-1, sorted=False).indices
