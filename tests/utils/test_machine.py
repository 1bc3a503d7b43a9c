"""Warnings of what makes a CPU slow."""

import warnings
from pathlib import Path

import pytest
import torch

from lib.utils import machine


@pytest.mark.parametrize(
    ("threads", "load", "warns"),
    [
        (2, "1.90 1.00 0.50 3/397 123", True),
        (2, "9.00 9.00 9.00 9/397 123", True),
        (2, "1.90 1.00 0.50 1/397 123", False),  # the other program has ended
        (2, "0.10 1.00 0.50 3/397 123", False),  # it works for a moment only
        (1, "9.00 9.00 9.00 9/397 123", False),
        (2, "strange", False),
        (2, None, False),
    ],
)
def test_more_threads_than_free_cores_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, load: str | None, warns: bool
) -> None:
    monkeypatch.setattr(machine, "_LOADAVG", tmp_path / "loadavg")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    if load is not None:
        (tmp_path / "loadavg").write_text(load)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        machine.warn_if_busy(threads)
    assert [("OMP_NUM_THREADS=1" in str(warning.message)) for warning in caught] == [True] * warns


@pytest.mark.parametrize(
    ("precision", "flags", "warns"),
    [
        ("bf16", "flags : fpu avx2 avx512f", True),
        ("bf16", "flags : fpu avx512f avx512_bf16", False),
        ("bf16", "flags : amx_bf16 amx_tile", False),
        ("bf16", "Features : fp asimd bf16 i8mm", False),
        ("bf16", "Features : fp asimd", True),
        ("fp16", "flags : avx512_bf16", True),
        ("fp16", "flags : avx512_fp16", False),
        ("fp16", "Features : fphp asimdhp", False),
        ("fp32", "flags : fpu", False),
        ("bf16", None, False),  # it is not known
    ],
)
def test_a_precision_without_instructions_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, flags: str | None, warns: bool
) -> None:
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\npower management:\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        machine.warn_if_slow(torch.device("cpu"), precision)
        machine.warn_if_slow(torch.device("cuda"), precision)
    assert [f"no {precision} instructions" in str(w.message) for w in caught] == [True] * warns
