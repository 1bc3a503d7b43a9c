"""Multiply-adds (MACs) of a network and of its modules, counted while it runs."""

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_macs(model: nn.Module, size: tuple[int, int]) -> float:
    """Return the multiply-adds of one image of `size` (w, h) in evaluation, in 1e9."""
    return macs_by_module(model, size)[""] / 1e9


@torch.no_grad()
def macs_by_module(model: nn.Module, size: tuple[int, int]) -> dict[str, int]:
    """Return the multiply-adds of every module for one image of `size` (w, h) in evaluation.

    Modules have the names of `named_modules`; the network itself is the empty string. Counted are
    convolutions and matrix products, attention included. A module that the network does not call
    itself, but only parts of, has the sum of its children.
    """
    device = next(model.parameters()).device
    images = torch.zeros(1, 3, size[1], size[0], device=device)
    training = model.training
    # The counter does not know every fused attention kernel; the plain formula it always counts.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.eval()(images)
    model.train(training)
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    macs: dict[str, int] = {}
    for name, module in reversed(list(model.named_modules())):  # children before their parents
        key = f"{type(model).__name__}.{name}" if name else "Global"
        children = (f"{name}.{child}".lstrip(".") for child, _ in module.named_children())
        macs[name] = flops[key] // 2 if key in flops else sum(macs.get(c, 0) for c in children)
    return macs
