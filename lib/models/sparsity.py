"""Dynamic attention pruning: which connections, or which tokens, a layer's attention keeps alive.

Two ways to use the same weights. `connection` (the published method) masks the weak connections
between visual tokens: it changes what is computed, not how much. `token` (as PPT, Ma et al. 2022)
lets the weak visual tokens leave: all later work shrinks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.utils import machine

KINDS = ("none", "connection", "token")

# From scores [.., n] to the indices [.., keep] of the `keep` largest of each row, in no order.
Choose = Callable[[Tensor, int], Tensor]


def keep_count(alive: int, ratio: float) -> int:
    """How many of `alive` a stage keeps: ceil(ratio·alive), exact (0.55 of 100 is 55)."""
    return math.ceil(Fraction(str(ratio)) * alive)


def strongest_connections(
    weights: Tensor,
    bias: Tensor | None,
    joints: int,
    keep: int,
    choose: Choose = machine.largest,
) -> Tensor:
    """Mask all but the `keep` strongest connections of each visual token to visual tokens.

    `weights` [B, heads, N, N], of all tokens, fp32; the heads are summed and share the mask.
    `bias` is the mask before, None at first: what it pruned never returns, not even on a tie.
    Returns [B, 1, N, N], 0 where a token may attend and -inf where not; rows and columns of the
    first `joints` tokens stay whole.
    """
    scores = weights.detach().sum(dim=1)[:, joints:, joints:]
    if bias is not None:
        scores = scores + bias[:, 0, joints:, joints:]
    strongest = choose(scores, keep)
    pruned = torch.full_like(scores, -math.inf).scatter_(2, strongest, 0.0)
    return F.pad(pruned, (joints, 0, joints, 0))[:, None]


def strongest_tokens(
    weights: Tensor, joints: int, keep: int, choose: Choose = machine.largest
) -> Tensor:
    """Find the `keep` visual tokens that the keypoint tokens attend to most.

    `weights` [B, heads, J, N], of the keypoint tokens, summed over heads and keypoints. Returns the
    places in the sequence of what stays, [B, J + keep], keypoint tokens included, in their order.
    """
    scores = weights.detach().sum(dim=(1, 2))[:, joints:]
    visual = choose(scores, keep).sort(dim=1).values + joints
    keypoints = torch.arange(joints, device=visual.device).expand(visual.shape[0], -1)
    return torch.cat((keypoints, visual), dim=1)


def take(x: Tensor, places: Tensor) -> Tensor:
    """Pick from x [1 or B, N, D] the tokens at `places` [B, n] -> [B, n, D]."""
    own, count, width = x.shape
    first = count * torch.arange(own, device=x.device)[:, None]  # all pictures' rows in a line
    rows = (places + first).flatten()
    return x.reshape(own * count, width).index_select(0, rows).view(*places.shape, width)


@dataclass(frozen=True)
class Stage:
    """What the pruning at `layer` left alive.

    With `token` pruning `places` [B, J + n] says where in the unpruned sequence the tokens that
    stayed come from; with `connection` `bias` [B, 1, N, N] is the mask.
    """

    layer: int
    joints: int
    places: Tensor
    bias: Tensor | None

    @property
    def connections(self) -> Tensor | None:
        """Which visual token (row) still attends to which (column), bool [B, HW, HW]."""
        if self.bias is None:
            return None
        return self.bias[:, 0, self.joints :, self.joints :] == 0

    def tokens(self, count: int) -> Tensor:
        """Which of the `count` visual tokens are alive, bool [B, count].

        With `connection` these are the tokens that at least one row still keeps: token sparsity
        that comes out of connection sparsity.
        """
        if self.bias is not None:
            return self.connections.any(dim=1)
        visual = self.places[:, self.joints :] - self.joints
        alive = torch.zeros(len(visual), count, dtype=torch.bool, device=visual.device)
        return alive.scatter(1, visual, True)
