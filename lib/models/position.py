"""Position embedding of the visual tokens on the patch grid."""

import math

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

KINDS = ("none", "learnable", "sine", "sine-full")


def sine_position(grid: tuple[int, int], dim: int) -> Tensor:
    """Return the 2D sine position of each patch, float [h·w, dim]: first half y, second half x.

    `grid` is (w, h). Rows and columns are counted from 1 and scaled to (0, 2π], as DETR does
    (Carion et al. 2020); frequencies fall from 1 to 1/10000.
    """
    width, height = grid
    half = dim // 2
    frequency = 10000.0 ** -(2 * (torch.arange(half) // 2) / half)

    def one_axis(count: int) -> Tensor:  # [count, half], sin and cos interleaved
        index = torch.arange(1, count + 1, dtype=torch.float32)
        angle = (index / (count + 1e-6) * 2 * math.pi)[:, None] * frequency
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    y = one_axis(height)[:, None].expand(height, width, half)
    x = one_axis(width)[None, :].expand(height, width, half)
    return torch.cat((y, x), dim=2).reshape(height * width, dim)


class Position(nn.Module):
    """The embedding `table` [1, J + h·w, dim] that is added to the tokens.

    `learnable` is a parameter over all tokens. The sine kinds are zero for keypoint tokens, so that
    one addition serves the whole sequence. `repeated`: it is added again before every later layer.
    """

    table: Tensor

    def __init__(self, kind: str, num_joints: int, grid: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.repeated = kind == "sine-full"
        shape = (1, num_joints + grid[0] * grid[1], dim)
        if kind == "learnable":
            self.table = nn.Parameter(trunc_normal_(torch.empty(shape), std=0.02))
        else:
            table = torch.zeros(shape)
            if kind != "none":
                table[0, num_joints:] = sine_position(grid, dim)
            self.register_buffer("table", table, persistent=False)
