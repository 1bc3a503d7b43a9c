"""The transformer block: attention with a mask, for some queries only, with its weights."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import DropPath
from torch import Tensor, nn

from lib.models.pruning import Pruned, gather_tokens
from lib.utils.kernels import is_exporting, linear

FUSED_FROM = 200  # tokens; for fewer, PyTorch's fused attention is the slower one on a CPU


class Linear(nn.Linear):
    """`nn.Linear` through the kernel that is fastest on this processor."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return linear(x, self.weight, self.bias)


class Attention(nn.Module):
    """Multi-head self-attention; q, k and v without bias, the output with one.

    `scale` multiplies q·k before the softmax. TokenPose scales by the full width, dim^-0.5, not by
    the width of a head.
    """

    def __init__(self, dim: int, heads: int, scale: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = scale
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.out = Linear(dim, dim)

    def forward(
        self,
        tokens: Tensor,
        bias: Tensor | None = None,
        num_queries: int | None = None,
        num_weight_rows: int = 0,
        prune: Callable[[Tensor], Pruned] | None = None,
    ) -> tuple[Tensor, Tensor | None, Pruned | None]:
        """Attend, [B, N, D] -> ([B, num_queries, D], weights, what `prune` keeps).

        `bias` [.., N, N] is added to the scores; -inf makes a weight exactly zero. Only the first
        `num_queries` tokens (None: all) get an output. The attention weights of the first
        `num_weight_rows` tokens are returned too, fp32 [B, heads, rows, N]; None for 0 rows.
        `prune` chooses by them; tokens that leave get no output, but are attended to once more.
        """
        q, k, v = self._project(tokens, num_queries)
        if bias is not None:
            bias = bias[..., : q.shape[2], :].to(q.dtype)
        weights = self._weights(q[:, :, :num_weight_rows], k, bias) if num_weight_rows else None
        pruned = prune(weights) if prune is not None and weights is not None else None
        known = weights if num_weight_rows == q.shape[2] else None
        if pruned and pruned.token_indices is not None:
            known = None
            rows = gather_tokens(rearrange(q, "b heads n d -> b n (heads d)"), pruned.token_indices)
            (q,) = self._split(rows, 1)
        if known is not None:
            out = known.to(v.dtype) @ v
        elif _is_fused(k):
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
        else:
            out = self._weights(q, k, bias).to(v.dtype) @ v
        return self.out(rearrange(out, "b heads n d -> b n (heads d)")), weights, pruned

    def _project(self, tokens: Tensor, num_queries: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [B, N, D] -> q [B, heads, num_queries, d], k and v [B, heads, N, d]."""
        if num_queries is None:
            q, k, v = self._split(self.qkv(tokens), 3)
            return q, k, v
        dim = tokens.shape[2]
        (q,) = self._split(linear(tokens[:, :num_queries], self.qkv.weight[:dim]), 1)
        k, v = self._split(linear(tokens, self.qkv.weight[dim:]), 2)
        return q, k, v

    def _split(self, x: Tensor, count: int) -> tuple[Tensor, ...]:
        """[B, N, count·D] -> `count` tensors [B, heads, N, d]."""
        split = rearrange(
            x, "b n (count heads d) -> count b heads n d", count=count, heads=self.heads
        )
        return split.unbind(0)

    def _weights(self, q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
        """softmax(scale·q·k + bias) in fp32, under autocast too, [B, heads, rows, N]."""
        with torch.autocast(q.device.type, enabled=False):
            scores = (q.float() * self.scale) @ k.float().transpose(2, 3)
            if bias is not None:
                scores += bias[..., : q.shape[2], :]
            return scores.softmax(dim=3)


def _is_fused(k: Tensor) -> bool:
    """Whether the fused kernel is faster than the plain formula, which is as exact."""
    return k.device.type != "cpu" or is_exporting() or k.shape[2] >= FUSED_FROM


class Block(nn.Module):
    """A pre-norm transformer block: tokens += attention(norm), then tokens += mlp(norm).

    In training each of the two is dropped for a share `drop_path` of the samples (stochastic depth,
    Huang et al. 2016).
    """

    def __init__(
        self, dim: int, heads: int, mlp_ratio: float, scale: float, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        hidden = round(dim * mlp_ratio)
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, scale)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(Linear(dim, hidden), nn.GELU(), Linear(hidden, dim))
        self.drop = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(
        self, tokens: Tensor, bias: Tensor | None = None, num_queries: int | None = None
    ) -> Tensor:
        """[B, N, D] -> [B, num_queries, D] (None: all N); `bias` as in `Attention`."""
        update, *_ = self.attention(self.norm1(tokens), bias, num_queries)
        return self._add(tokens[:, :num_queries], update)

    def prune(
        self,
        tokens: Tensor,
        bias: Tensor | None,
        num_weight_rows: int,
        choose: Callable[[Tensor], Pruned],
    ) -> tuple[Tensor, Pruned]:
        """[B, N, D] -> [B, n, D] and what stays; `choose` by weights as `Attention` has them."""
        update, _, pruned = self.attention(
            self.norm1(tokens), bias, num_weight_rows=num_weight_rows, prune=choose
        )
        assert pruned is not None, "num_weight_rows is 0"
        if pruned.token_indices is not None:
            tokens = gather_tokens(tokens, pruned.token_indices)
        return self._add(tokens, update), pruned

    def _add(self, tokens: Tensor, update: Tensor) -> Tensor:
        """Add the attention's result, then the MLP's."""
        tokens = tokens + self.drop(update)
        return tokens + self.drop(self.mlp(self.norm2(tokens)))
