"""What makes this machine fast: memory that stays mapped, and the quicker kernel for linear layers.

`tune` is called once by every command. It changes how results are computed, never which.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
_LARGEST = 2**31 - 1

_routed = False  # whether linear layers go through oneDNN
_exporting = False  # whether the network is being handed to another runtime


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: x [..., in], weight [out, in], bias [out] -> [..., out].

    Where `tune` found that MKL is slow, as a 1×1 convolution, which goes to oneDNN.
    """
    plain = x.dtype != torch.float32 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu")
    if plain or not _routed or _exporting:
        return F.linear(x, weight, bias)
    pixels = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)  # channels last, as they lie
    mixed = F.conv2d(pixels, weight[:, :, None, None], bias)
    return mixed.permute(0, 2, 3, 1).view(*x.shape[:-1], -1)


def largest(x: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest of each row of x [..., rows, n], in no order.

    OpenVINO finds them 2-3 times as fast in columns; PyTorch in rows, where they lie.
    """
    if _exporting:
        columns = x.transpose(-2, -1).topk(count, dim=-2, sorted=False).indices
        return columns.transpose(-2, -1)
    return x.topk(count, dim=-1, sorted=False).indices


def is_exporting() -> bool:
    """Whether the network is being handed to another runtime, see `exporting`."""
    return _exporting


def tune() -> None:
    """Switch on what helps on this machine; safe everywhere, once a process."""
    global _routed
    _keep_memory()
    _routed = torch.backends.mkldnn.is_available() and _is_amd()


@contextmanager
def exporting() -> Iterator[None]:
    """Compute in the form that other runtimes like, while the network is handed to one."""
    global _exporting
    before, _exporting = _exporting, True
    try:
        yield
    finally:
        _exporting = before


def _keep_memory() -> None:
    """Let glibc keep the memory of freed tensors for the next step.

    It hands large buffers back to the kernel otherwise, and every step pays page faults for them.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST)
    libc.mallopt(_M_TOP_PAD, 64 << 20)


def _is_amd() -> bool:
    """Whether this is an AMD processor, on which MKL takes a slow path."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text()
