"""What a machine can do, what makes it slow, and settings that make it faster."""

import contextlib
import ctypes
import os
import platform
import re
import warnings
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h

_LOADAVG, _CPUINFO = Path("/proc/loadavg"), Path("/proc/cpuinfo")  # of Linux
_PATTERNS = {"bf16": r"bf16\b", "fp16": r"_fp16\b|\basimdhp\b"}  # of flags of x86 and Arm
# Instruction sets that decide which kernels are fast -> their flags in Linux
_INSTRUCTIONS = {
    "AVX2": {"avx2"}, "AVX-512": {"avx512f"}, "VNNI": {"avx512_vnni", "avx_vnni"},
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"}, "AMX": {"amx_tile"}, "i8mm": {"i8mm"},
}  # fmt: skip


def tune() -> None:
    """Make glibc keep freed tensors' memory, whose page faults every step pays; safe everywhere."""
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_M_TOP_PAD, 64 << 20)


def warn_if_busy(threads: int) -> None:
    """Warn if other programs leave fewer cores than threads: each step waits for its slowest."""
    with contextlib.suppress(OSError, ValueError):
        load, _, _, running, *_ = re.split("[ /]", _LOADAVG.read_text())
        others = min(float(load), int(running) - 1)  # of the last minute, and now without us
        free = max(0.0, (os.cpu_count() or 1) - others)
        if threads > max(1, free + 0.5):
            text = (
                f"{threads} threads on {free:.1f} free cores can be several times slower than one"
            )
            warnings.warn(f"{text}: set OMP_NUM_THREADS=1", stacklevel=2)


def warn_if_slow(device: torch.device, precision: str) -> None:
    """Warn if a CPU has no instructions for bf16 or fp16."""
    pattern = _PATTERNS.get(precision)
    with contextlib.suppress(OSError):
        if device.type == "cpu" and pattern and not re.search(pattern, _CPUINFO.read_text()):
            text = f"this CPU has no {precision} instructions: it is many times slower than fp32"
            warnings.warn(text, stacklevel=2)


def processor() -> str:
    """Return the processor's name and instruction sets; the latter on Linux only."""
    text = _CPUINFO.read_text() if _CPUINFO.exists() else ""
    lines = re.findall(r"(?m)^(model name|flags|Features)[ \t]*: *(.*)$", text)
    fields: dict[str, str] = dict(lines)
    name = fields.get("model name") or platform.processor() or platform.machine()
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    known = ", ".join(name for name, signs in _INSTRUCTIONS.items() if flags & signs)
    return f"{name}, {os.cpu_count()} cores, instructions: {known or 'unknown'}"


def busy_warning() -> str:
    """Return a line if other processes use the machine, by its load average; otherwise nothing."""
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, os.cpu_count() or 1
    if load < 0.3 * cores:
        return ""
    return (
        f"warning: the machine is busy (load {load:.2f} on {cores} cores): times are too long, and "
        "ratios less certain; with OMP_NUM_THREADS=1 threads do not wait for each other"
    )
