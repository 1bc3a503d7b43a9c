"""A pruning rule: the example in CONTRIBUTING.md."""

from einops import reduce
from torch import Tensor

from lib.models.pruning import Pruned, Pruner, keep_tokens


class PopularTokens(Pruner):
    """Keep the visual tokens that all tokens, not only keypoint tokens, attend to most."""

    name = "popular"
    description = "removes the visual tokens with the least attention"
    removes_tokens = True
    needs_all_rows = True

    def prune(
        self, weights: Tensor, num_joints: int, keep: int, attention_bias: Tensor | None
    ) -> Pruned:
        scores = reduce(weights.detach(), "b heads row column -> b column", "sum")
        return Pruned(token_indices=keep_tokens(scores[:, num_joints:], num_joints, keep))
