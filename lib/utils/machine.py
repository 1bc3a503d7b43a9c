"""What a machine can do, and process-wide settings that make training on a CPU faster."""

import ctypes
import os
import platform
from pathlib import Path

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def tune() -> None:
    """Make glibc keep the memory of freed tensors for the next step; safe everywhere.

    By default it returns large buffers to the kernel, and every step pays page faults for them.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_M_TOP_PAD, 64 << 20)


# Instruction sets that decide which kernels are fast -> their flags in Linux
_INSTRUCTIONS = {
    "AVX2": {"avx2"}, "AVX-512": {"avx512f"}, "VNNI": {"avx512_vnni", "avx_vnni"},
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"}, "AMX": {"amx_tile"}, "i8mm": {"i8mm"},
}  # fmt: skip


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name and instruction sets; the latter on Linux only."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    fields = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
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
