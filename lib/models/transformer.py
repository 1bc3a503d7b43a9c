"""The transformer's block: attention that can be masked, asked of a few tokens only, and seen."""

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from lib.models.layers import Linear
from lib.utils import machine


class Attention(nn.Module):
    """Multi-head self-attention; q, k and v without bias, the output with one.

    `scale` multiplies q·k before the softmax. TokenPose scales by the full width, dim^-0.5, not by
    the width of a head.
    """

    def __init__(self, dim: int, heads: int, scale: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide a width of {dim}")
        self.heads = heads
        self.scale = scale
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.out = Linear(dim, dim)

    def forward(
        self,
        tokens: Tensor,
        bias: Tensor | None = None,
        queries: int | None = None,
        seen: int = 0,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, [B, N, D] -> ([B, queries, D], weights).

        `bias` [.., N, N] is added to the scores; -inf makes a weight exactly zero. Only the first
        `queries` tokens ask (all, if None). The attention weights of the first `seen` tokens are
        returned too, fp32 [B, heads, seen, N]; None if `seen` is 0.
        """
        q, k, v = self._project(tokens, queries)
        if bias is not None:
            bias = bias[..., : q.shape[2], :].to(q.dtype)
        weights = self._weights(q[:, :, :seen], k, bias) if seen else None
        if weights is not None and seen == q.shape[2]:  # all weights are here already
            mixed = weights.to(v.dtype) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
        return self.out(mixed.transpose(1, 2).flatten(2)), weights

    def _project(self, tokens: Tensor, queries: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [B, N, D] -> q [B, heads, queries, d], k and v [B, heads, N, d]."""
        if queries is None:
            return self._split(self.qkv(tokens), 3)
        dim = tokens.shape[2]
        q = machine.linear(tokens[:, :queries], self.qkv.weight[:dim])
        k_v = machine.linear(tokens, self.qkv.weight[dim:])
        return *self._split(q, 1), *self._split(k_v, 2)

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """[B, N, parts·D] -> that many [B, heads, N, d]."""
        batch, count, _ = x.shape
        return x.view(batch, count, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def _weights(self, q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
        """softmax(scale·q·k + bias) in fp32, under autocast too, [B, heads, rows, N]."""
        with torch.autocast(q.device.type, enabled=False):
            scores = (q.float() * self.scale) @ k.float().transpose(2, 3)
            if bias is not None:
                scores += bias[..., : q.shape[2], :]
            return scores.softmax(dim=3)


class Block(nn.Module):
    """A pre-norm transformer block: tokens += attention(norm), then tokens += mlp(norm).

    In training each half is left out of a share `drop_path` of the samples (Huang et al. 2016).
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
        self, tokens: Tensor, bias: Tensor | None = None, queries: int | None = None
    ) -> Tensor:
        """[B, N, D] -> [B, queries, D] (all N, if None); `bias` as in `Attention`."""
        return self.refine(self.attend(tokens, bias, queries)[0])

    def attend(
        self,
        tokens: Tensor,
        bias: Tensor | None = None,
        queries: int | None = None,
        seen: int = 0,
    ) -> tuple[Tensor, Tensor | None]:
        """Do the block's first half; return tokens and weights as `Attention` does."""
        update, weights = self.attention(self.norm1(tokens), bias, queries, seen)
        return tokens[:, :queries] + self.drop(update), weights

    def refine(self, tokens: Tensor) -> Tensor:
        """Do the block's second half, [B, N, D] -> [B, N, D]."""
        return tokens + self.drop(self.mlp(self.norm2(tokens)))
