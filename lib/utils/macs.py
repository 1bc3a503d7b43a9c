"""Multiply-adds (MACs) of a network, counted while it runs."""

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lib.utils import kernels


@torch.no_grad()
def count_macs(model: nn.Module, size: tuple[int, int]) -> float:
    """Return the multiply-adds, in 1e9, of convolutions and matrix products on an image (w, h)."""
    images = torch.zeros(1, 3, size[1], size[0], device=next(model.parameters()).device)
    training = model.training
    # The counter does not know every fused attention kernel, but always counts the plain formula.
    linear = kernels.ONEDNN_LINEAR
    mapping = {linear: _linear_flops} if linear else {}
    with (
        FlopCounterMode(display=False, custom_mapping=mapping) as counter,
        sdpa_kernel(SDPBackend.MATH),
    ):
        model.eval()(images)
    model.train(training)
    return counter.get_total_flops() / 2e9


def describe_network(model: nn.Module, size: tuple[int, int]) -> str:
    """Return a network's parameters and multiply-adds for the log."""
    parameters = sum(weight.numel() for weight in model.parameters()) / 1e6
    return f"{parameters:.3f} million parameters, {count_macs(model, size):.3f} GMACs"


def _linear_flops(x: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
    return 2 * x.numel() * weight[0]
