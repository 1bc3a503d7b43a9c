"""The two small layers that everything is made of: convolution with batch norm, and linear."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.utils import machine


class Linear(nn.Linear):
    """`nn.Linear`, through the kernel that is fastest on this machine (see `machine.tune`)."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return machine.linear(x, self.weight, self.bias)


def conv_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """`norm(conv(x))`, in evaluation as one convolution with the norm folded into its weights.

    Folded anew at every call: the weights are small beside the work, and so nothing is ever stale
    after loading, averaging or going back to training.
    """
    if norm.training:
        return norm(conv(x))
    gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight = conv.weight * gain[:, None, None, None]
    bias = norm.bias - norm.running_mean * gain
    return F.conv2d(x, weight, bias, conv.stride, conv.padding)
