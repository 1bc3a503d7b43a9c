"""Dynamic attention pruning: which connections, or which tokens, a layer's attention keeps alive.

The rules share their weights, so one checkpoint runs with any of them. To add a rule, write a
`Pruner` and name it in `PRUNERS`; configuration, benchmark, study and inspection then support it.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from lib.utils.kernels import topk_indices


@dataclass(frozen=True)
class Pruned:
    """What a rule keeps at one stage; the field that it does not use is None.

    `token_indices` [B, J + keep]: tokens of the current sequence that stay, keypoint tokens first,
    in ascending order; the others leave. `attention_bias` [B, 1, N, N]: added to the scores of all
    later layers, 0 where a token (row) may attend and -inf where it may not.
    """

    token_indices: Tensor | None = None
    attention_bias: Tensor | None = None


class Pruner(ABC):
    """A pruning rule; it has no weights and no state."""

    name: ClassVar[str]  # value of MODEL.SPARSITY.PRUNE
    description: ClassVar[str]  # one line, for exported files and reports
    removes_tokens: ClassVar[bool]  # True: tokens leave and later work shrinks; False: a mask
    needs_all_rows: ClassVar[bool] = False  # attention weights of all tokens, not of the keypoints'

    @abstractmethod
    def prune(
        self, weights: Tensor, num_joints: int, keep: int, attention_bias: Tensor | None
    ) -> Pruned:
        """Choose what stays alive.

        `weights` [B, heads, rows, N] are fp32 attention weights of the first `num_joints` tokens,
        or of all with `needs_all_rows`. Of the N - `num_joints` visual tokens, or of each one's
        connections to them, exactly `keep` stay. `attention_bias` is what the stage before
        returned, None at the first.
        """


class ConnectionPruner(Pruner):
    """The published method: each visual token keeps its strongest connections to visual tokens."""

    name = "connection"
    description = "pruned connections between visual tokens have weight 0"
    removes_tokens = False
    needs_all_rows = True

    def prune(
        self, weights: Tensor, num_joints: int, keep: int, attention_bias: Tensor | None
    ) -> Pruned:
        """Mask all but the `keep` strongest connections of each visual token.

        Heads are summed and share the mask. What an earlier stage pruned never returns, not even on
        a tie. Rows and columns of keypoint tokens stay whole.
        """
        scores = reduce(weights.detach(), "b heads row column -> b row column", "sum")
        scores = scores[:, num_joints:, num_joints:]
        if attention_bias is not None:
            scores = scores + attention_bias[:, 0, num_joints:, num_joints:]
        strongest = topk_indices(scores, keep)
        bias = torch.full_like(scores, -math.inf).scatter_(2, strongest, 0.0)
        return Pruned(attention_bias=F.pad(bias, (num_joints, 0, num_joints, 0))[:, None])


class TokenPruner(Pruner):
    """As PPT (Ma et al. 2022): the visual tokens that keypoint tokens attend to least leave."""

    name = "token"
    description = "pruned visual tokens leave the sequence"
    removes_tokens = True

    def prune(
        self, weights: Tensor, num_joints: int, keep: int, attention_bias: Tensor | None
    ) -> Pruned:
        """Keep the `keep` visual tokens with the most attention, over heads and keypoints."""
        scores = reduce(weights.detach(), "b heads joint token -> b token", "sum")
        return Pruned(token_indices=keep_tokens(scores[:, num_joints:], num_joints, keep))


PRUNERS: dict[str, Pruner] = {rule.name: rule for rule in (ConnectionPruner(), TokenPruner())}


def prune_modes() -> tuple[str, ...]:
    """Return the values that MODEL.SPARSITY.PRUNE takes: `none` and every rule."""
    return ("none", *PRUNERS)


def keep_count(alive: int, ratio: float) -> int:
    """Return how many of `alive` a stage keeps: ceil(ratio·alive), exact (0.55 of 100 is 55).

    At least 1. The product is rounded to 6 decimals, so that 2/3 of 3 are 2.
    """
    return max(1, math.ceil(round(ratio * alive, 6)))


def keep_tokens(scores: Tensor, num_joints: int, keep: int) -> Tensor:
    """Return `Pruned.token_indices`: the keypoint tokens and the `keep` best of scores [B, HW]."""
    visual = topk_indices(scores, keep).sort(dim=1).values + num_joints
    keypoints = torch.arange(num_joints, device=visual.device).expand(visual.shape[0], -1)
    return torch.cat((keypoints, visual), dim=1)


def gather_tokens(x: Tensor, token_indices: Tensor) -> Tensor:
    """Select tokens: x [1 or B, N, D], token_indices [B, n] -> [B, n, D]."""
    batch, count, _ = x.shape
    offsets = count * torch.arange(batch, device=x.device)[:, None]
    rows = rearrange(x, "b n d -> (b n) d").index_select(0, (token_indices + offsets).flatten())
    return rearrange(rows, "(b n) d -> b n d", b=token_indices.shape[0])


@dataclass(frozen=True)
class Stage:
    """What the pruning at `layer` left alive.

    `token_indices` [B, J + n] are the positions of the remaining tokens in the unpruned sequence;
    `attention_bias` [B, 1, N, N] is the mask, None if tokens leave instead.
    """

    layer: int
    num_joints: int
    token_indices: Tensor
    attention_bias: Tensor | None

    @property
    def connections(self) -> Tensor | None:
        """Which visual token (row) still attends to which (column), bool [B, HW, HW]."""
        if self.attention_bias is None:
            return None
        return self.attention_bias[:, 0, self.num_joints :, self.num_joints :] == 0

    def alive_tokens(self, count: int) -> Tensor:
        """Which visual tokens are left or, with a mask, attended to by any, bool [B, count]."""
        if self.connections is not None:
            return self.connections.any(dim=1)
        visual = self.token_indices[:, self.num_joints :] - self.num_joints
        alive = torch.zeros(len(visual), count, dtype=torch.bool, device=visual.device)
        return alive.scatter(1, visual, True)
