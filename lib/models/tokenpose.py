"""TokenPose with sparsity: keypoint tokens look at image patches, then at their neighbours.

TokenPose: Li et al., "TokenPose: Learning Keypoint Tokens for Human Pose Estimation", ICCV 2021.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.dataset.skeleton import skeleton_of
from lib.models import sparsity
from lib.models.layers import Linear
from lib.models.position import Position
from lib.models.stem import Stem
from lib.models.transformer import Block
from lib.utils import machine
from lib.utils.errors import UserError


class PatchEmbedding(nn.Linear):
    """Patches of the feature map, flattened in the order (ph, pw, c), to tokens."""

    def __init__(self, channels: int, patch_size: tuple[int, int], dim: int) -> None:
        super().__init__(channels * patch_size[0] * patch_size[1], dim)
        self.patch_size = patch_size

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, (h/ph)·(w/pw), dim]; a convolution reads patches where they lie."""
        width, height = self.patch_size
        kernel = self.weight.view(len(self.weight), height, width, -1).permute(0, 3, 1, 2)
        tokens = F.conv2d(features, kernel, self.bias, stride=(height, width))
        return tokens.flatten(2).transpose(1, 2)


class SparseTransformer(nn.Module):
    """Blocks over keypoint and visual tokens, pruned at chosen layers.

    Only keypoint tokens leave it, so its last block asks for nothing else.
    """

    def __init__(
        self,
        blocks: list[Block],
        position: Position,
        *,
        prune: str,
        prune_layers: tuple[int, ...],
        keep_ratio: float,
    ) -> None:
        super().__init__()
        assert prune in sparsity.KINDS, prune
        self.blocks = nn.ModuleList(blocks)
        self.position = position
        self.prune = prune
        self.prune_layers = () if prune == "none" else prune_layers
        self.keep_ratio = keep_ratio
        self.choose: sparsity.Choose = machine.largest

    def forward(
        self, tokens: Tensor, joints: int, stages: list[sparsity.Stage] | None = None
    ) -> Tensor:
        """Tokens [B, J + HW, D], the first J = `joints` for keypoints -> keypoint tokens [B, J, D].

        Where `stages` is a list, what each pruning left alive is put on it.
        """
        alive = tokens.shape[1] - joints
        places = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[0], -1)
        position, bias = self.position.table, None
        tokens = tokens + position
        for layer, block in enumerate(self.blocks):
            if layer and self.position.repeated:
                tokens = tokens + position
            if layer == len(self.blocks) - 1:
                break
            if layer not in self.prune_layers:
                tokens = block(tokens, bias)
                continue
            alive = sparsity.keep_count(alive, self.keep_ratio)
            if self.prune == "token":
                tokens, weights = block.attend(tokens, seen=joints)
                kept = sparsity.strongest_tokens(weights, joints, alive, self.choose)
                tokens, places = sparsity.take(tokens, kept), places.gather(1, kept)
                position = sparsity.take(position, kept)
            else:
                tokens, weights = block.attend(tokens, bias, seen=tokens.shape[1])
                bias = sparsity.strongest_connections(weights, bias, joints, alive, self.choose)
            tokens = block.refine(tokens)
            if stages is not None:
                stages.append(sparsity.Stage(layer, joints, places, bias))
        return self.blocks[-1](tokens, queries=joints)  # keypoint tokens' rows are never masked


class JointLayers(nn.ModuleList):
    """Blocks in which a keypoint token attends to itself, its mirror and its neighbours only."""

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


def head(dim: int, hidden: int, cells: int) -> nn.Sequential:
    """Each keypoint token to its heatmap, dim -> cells; through `hidden` where dim ≤ hidden/2."""
    widths = (dim, hidden, cells) if dim <= hidden / 2 else (dim, cells)
    layers = [(nn.LayerNorm(a), Linear(a, b)) for a, b in pairwise(widths)]
    return nn.Sequential(*(layer for pair in layers for layer in pair))


class TokenPose(nn.Module):
    """The whole network; its parts are handed in."""

    def __init__(
        self,
        *,
        stem: nn.Module,
        patches: PatchEmbedding,
        transformer: SparseTransformer,
        joint_layers: nn.Module,
        head: nn.Module,
        num_joints: int,
        heatmap_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.stem = stem
        self.patches = patches
        self.keypoint_tokens = nn.Parameter(torch.zeros(1, num_joints, patches.out_features))
        self.transformer = transformer
        self.joint_layers = joint_layers
        self.head = head
        self.heatmap_size = heatmap_size
        trunc_normal_(self.keypoint_tokens, std=0.02)

    def forward(self, images: Tensor, stages: list[sparsity.Stage] | None = None) -> Tensor:
        """Images [B, 3, H, W], float, ImageNet-normalised -> heatmaps [B, J, h, w].

        Where `stages` is a list, a report of each pruning stage is put on it.
        """
        visual = self.patches(self.stem(images))
        keypoints = self.keypoint_tokens.expand(images.shape[0], -1, -1)
        tokens = torch.cat((keypoints, visual), dim=1)
        keypoints = self.transformer(tokens, keypoints.shape[1], stages)
        keypoints = self.joint_layers(keypoints)
        width, height = self.heatmap_size
        return self.head(keypoints).unflatten(2, (height, width))


def _init_transformer(module: nn.Module) -> None:
    """Draw linear weights from a normal of 0.02, cut at two units; biases start at zero."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build_tokenpose_s(cfg: CfgNode) -> TokenPose:
    """TokenPose-S: the short convolutional stem, then the transformer."""
    model, sparse = cfg.MODEL, cfg.MODEL.SPARSITY
    dim, joints = model.DIM, model.NUM_JOINTS
    grid = tuple(
        size // Stem.stride // patch
        for size, patch in zip(model.IMAGE_SIZE, model.PATCH_SIZE, strict=True)
    )

    def blocks(depth: int) -> list[Block]:
        heads, ratio = model.TRANSFORMER_HEADS, model.TRANSFORMER_MLP_RATIO
        drops = [model.DROP_PATH * layer / max(1, depth - 1) for layer in range(depth)]
        return [Block(dim, heads, ratio, scale=dim**-0.5, drop_path=drop) for drop in drops]

    transformer = SparseTransformer(
        blocks(model.TRANSFORMER_DEPTH),
        Position(model.POS_EMBEDDING_TYPE, joints, grid, dim),
        prune=sparse.PRUNE,
        prune_layers=tuple(sparse.PRUNE_LAYERS),
        keep_ratio=sparse.KEEP_RATIO,
    )
    cells = math.prod(model.HEATMAP_SIZE)
    hidden = cells // 8 if model.HIDDEN_HEATMAP_DIM < 0 else model.HIDDEN_HEATMAP_DIM
    network = TokenPose(
        stem=Stem(),
        patches=PatchEmbedding(Stem.out_channels, tuple(model.PATCH_SIZE), dim),
        transformer=transformer,
        joint_layers=_joint_layers(blocks(sparse.JOINT_DEPTH), joints, sparse.JOINT_HOPS),
        head=head(dim, hidden, cells),
        num_joints=joints,
        heatmap_size=tuple(model.HEATMAP_SIZE),
    )
    if model.INIT:
        network.apply(_init_transformer)
    if model.INIT_WEIGHTS:
        network.stem.init_weights()
    return network


def _joint_layers(blocks: list[Block], joints: int, hops: int) -> nn.Module:
    if not blocks:
        return nn.Identity()
    if hops < 0:
        return JointLayers(blocks, torch.ones(joints, joints, dtype=torch.bool))
    try:
        mask = skeleton_of(joints).joint_mask(hops)
    except UserError as error:
        raise UserError(
            f"{error}; set MODEL.SPARSITY.JOINT_HOPS -1 to let all joints see each other"
        ) from None
    return JointLayers(blocks, torch.from_numpy(mask))
