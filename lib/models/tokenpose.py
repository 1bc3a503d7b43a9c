"""TokenPose with sparsity: keypoint tokens attend to image patches, then to their neighbours.

TokenPose: Li et al., "TokenPose: Learning Keypoint Tokens for Human Pose Estimation", ICCV 2021.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import trunc_normal_
from torch import Tensor, nn

from lib.models.backbone import Backbone
from lib.models.position import Position
from lib.models.pruning import Pruned, Pruner, Stage, gather_tokens, keep_count
from lib.models.spec import PoseNetwork
from lib.models.transformer import Block


class PatchEmbedding(nn.Linear):
    """Patches of the feature map, flattened in the order (ph, pw, c), to tokens."""

    def __init__(self, channels: int, patch_size: tuple[int, int], dim: int) -> None:
        super().__init__(channels * patch_size[0] * patch_size[1], dim)
        self.patch_size = patch_size

    def init_weights(self) -> None:
        """As `init_transformer`; wider for small patches, so that tokens have the same variance."""
        trunc_normal_(self.weight, std=max(0.02, self.in_features**-0.5))
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, (h/ph)·(w/pw), dim], as a convolution, which needs no copy."""
        width, height = self.patch_size
        kernel = rearrange(self.weight, "dim (ph pw c) -> dim c ph pw", ph=height, pw=width)
        tokens = F.conv2d(features, kernel, self.bias, stride=(height, width))
        return rearrange(tokens, "b dim h w -> b (h w) dim")


class SparseTransformer(nn.Module):
    """Blocks over keypoint and visual tokens, pruned at chosen layers.

    Its output is the keypoint tokens alone, so its last block computes nothing else. Without a
    `pruner` it is dense. `parts` are the transformers in a row that TokenPose-L has.
    """

    def __init__(
        self,
        blocks: list[Block],
        position: Position,
        *,
        pruner: Pruner | None = None,
        prune_layers: tuple[int, ...] = (),
        keep_ratio: float = 1.0,
        parts: int = 1,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.part_depth = len(blocks) // parts
        self.position = position
        self.pruner = pruner
        self.prune_layers = prune_layers if pruner else ()
        self.keep_ratio = keep_ratio

    def forward(
        self,
        tokens: Tensor,
        num_joints: int,
        stages: list[Stage] | None = None,
        earlier: list[Tensor] | None = None,
    ) -> Tensor:
        """Tokens [B, J + HW, D], the first J for keypoints -> keypoint tokens [B, J, D].

        If `stages` is a list, each pruning stage is appended to it, and to `earlier` the keypoint
        tokens [B, J, D] after each part but the last.
        """
        alive = tokens.shape[1] - num_joints
        indices = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[0], -1)
        position: Tensor = self.position.table
        bias: Tensor | None = None
        blocks = cast(list[Block], list(self.blocks))
        tokens = tokens + position
        for layer, block in enumerate(blocks):
            if layer % self.part_depth:
                tokens = tokens + position if self.position.repeated else tokens
            elif layer and earlier is not None:  # another part begins
                earlier.append(tokens[:, :num_joints])
            if block is blocks[-1]:
                break
            if self.pruner is None or layer not in self.prune_layers:
                tokens = block(tokens, bias)
                continue
            alive = keep_count(alive, self.keep_ratio)
            tokens, pruned = self._prune(block, tokens, bias, num_joints, alive)
            if pruned.token_indices is None:
                bias = pruned.attention_bias
            else:
                position = gather_tokens(position, pruned.token_indices)
                indices = indices.gather(1, pruned.token_indices)
            if stages is not None:
                stages.append(Stage(layer, num_joints, indices, bias))
        return blocks[-1](tokens, num_queries=num_joints)  # rows of keypoints are never masked

    def _prune(
        self, block: Block, tokens: Tensor, bias: Tensor | None, num_joints: int, keep: int
    ) -> tuple[Tensor, Pruned]:
        """Run a block that prunes by its attention weights."""
        pruner = cast(Pruner, self.pruner)

        def choose(weights: Tensor) -> Pruned:
            return pruner.prune(weights, num_joints, keep, bias)

        num_weight_rows = tokens.shape[1] if pruner.needs_all_rows else num_joints
        return block.prune(tokens, bias, num_weight_rows, choose)


class JointLayers(nn.ModuleList):
    """Blocks in which a keypoint token attends to itself, its mirror and its neighbours only."""

    bias: Tensor

    def __init__(self, blocks: list[Block], mask: Tensor) -> None:
        """`mask` bool [J, J]: which joint (row) may attend to which."""
        super().__init__(blocks)
        bias = torch.zeros(mask.shape).masked_fill(~mask, -math.inf)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, keypoints: Tensor) -> Tensor:
        """[B, J, D] -> [B, J, D]."""
        for block in self:
            keypoints = block(keypoints, self.bias)
        return keypoints


class TokenPose(PoseNetwork):
    """The whole network, assembled from its parts."""

    def __init__(
        self,
        *,
        backbone: Backbone,
        patches: PatchEmbedding,
        transformer: SparseTransformer,
        joint_layers: nn.Module,
        head: nn.Module,
        num_joints: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.patches = patches
        self.keypoint_tokens = nn.Parameter(torch.zeros(1, num_joints, patches.out_features))
        self.transformer = transformer
        self.joint_layers = joint_layers
        self.head = head
        self.mean, self.std = backbone.mean, backbone.std
        trunc_normal_(self.keypoint_tokens, std=0.02)

    def forward(self, images: Tensor, stages: list[Stage] | None = None) -> Tensor:
        """Normalised images [B, 3, H, W] -> heatmaps [B, J, h, w]; `stages` gets what is pruned."""
        features = self.backbone.features(images)
        visual = self.patches(features[self.backbone.stride])
        # Without its axis of size 1, whose stride in the gradient of a batch of 1 DDP warns of.
        keypoints = self.keypoint_tokens[0].expand(images.shape[0], -1, -1)
        tokens = torch.cat((keypoints, visual), dim=1)
        earlier: list[Tensor] = []
        keypoints = self.transformer(tokens, keypoints.shape[1], stages, earlier)
        keypoints = self.joint_layers(keypoints)
        if earlier:
            keypoints = torch.cat((*earlier, keypoints), dim=2)
        return self.head(keypoints, features)


def init_transformer(module: nn.Module) -> None:
    """Draw linear weights from a normal of 0.02, truncated at two deviations; zero the biases."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
