"""Layers that every network is built from: convolution with batch norm, and linear."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.utils.kernels import linear


class Linear(nn.Linear):
    """`nn.Linear` through the kernel that is fastest on this processor."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return linear(x, self.weight, self.bias)


def conv_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """`norm(conv(x))`; in evaluation one convolution with the norm folded into its weights.

    Folded at every call: that is cheap compared with the convolution, and nothing is ever stale
    after loading, averaging or going back to training.
    """
    if norm.training:
        return norm(conv(x))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight = conv.weight * gain[:, None, None, None]
    bias = norm.bias - norm.running_mean * gain
    return F.conv2d(x, weight, bias, conv.stride, conv.padding)
