"""The transformer block: attention with a mask, for some queries only, with its weights."""

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import DropPath
from torch import Tensor, nn

from lib.utils.kernels import linear


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
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, [B, N, D] -> ([B, num_queries, D], weights).

        `bias` [.., N, N] is added to the scores; -inf makes a weight exactly zero. Only the first
        `num_queries` tokens (None: all) get an output. The attention weights of the first
        `num_weight_rows` tokens are returned too, fp32 [B, heads, rows, N]; None for 0 rows.
        """
        q, k, v = self._project(tokens, num_queries)
        if bias is not None:
            bias = bias[..., : q.shape[2], :].to(q.dtype)
        weights = self._weights(q[:, :, :num_weight_rows], k, bias) if num_weight_rows else None
        if weights is not None and num_weight_rows == q.shape[2]:  # all weights are known already
            out = weights.to(v.dtype) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
        return self.out(rearrange(out, "b heads n d -> b n (heads d)")), weights

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
        return self.add_mlp(self.add_attention(tokens, bias, num_queries)[0])

    def add_attention(
        self,
        tokens: Tensor,
        bias: Tensor | None = None,
        num_queries: int | None = None,
        num_weight_rows: int = 0,
    ) -> tuple[Tensor, Tensor | None]:
        """First half of the block; returns tokens and weights as `Attention` does."""
        update, weights = self.attention(self.norm1(tokens), bias, num_queries, num_weight_rows)
        return tokens[:, :num_queries] + self.drop(update), weights

    def add_mlp(self, tokens: Tensor) -> Tensor:
        """Second half of the block, [B, N, D] -> [B, N, D]."""
        return tokens + self.drop(self.mlp(self.norm2(tokens)))
