"""The attention of the keypoint tokens in every layer, recorded while the network runs.

A forward hook on each attention module computes the weights of the keypoint tokens again, from the
same tokens and the same mask. The output of the network stays bit-identical.
"""

from dataclasses import dataclass
from typing import cast

import torch
from einops import reduce
from torch import Tensor, nn

from lib.models.pruning import Stage
from lib.models.tokenpose import JointLayers, TokenPose
from lib.models.transformer import Attention, Block


@dataclass(frozen=True)
class AttentionMaps:
    """Heatmaps of B images, and the attention of the J keypoint tokens, fp32, mean over the heads.

    The attention in a main layer to visual and keypoint tokens sums to 1; it is 0 for pruned ones.
    """

    heatmaps: Tensor  # [B, J, h, w]
    to_visual: Tensor  # [B, L, J, HW], of L main layers, in the order of the patches
    to_keypoints: Tensor  # [B, L, J, J]
    joint_layers: Tensor  # [B, M, J, J], of M joint layers
    stages: list[Stage]  # what each pruning left alive


@torch.inference_mode()
def record_attention(model: TokenPose, images: Tensor) -> AttentionMaps:
    """Run a network in evaluation mode on images [B, 3, H, W], normalised with its mean and std."""
    assert not model.training, "drop path and batch norm of training would show another network"
    num_joints = model.keypoint_tokens.shape[1]
    recorded: list[Tensor] = []  # of each layer, [B, J, tokens in the sequence]

    def record(module: nn.Module, inputs: tuple, output: tuple[Tensor, Tensor | None]) -> None:
        tokens, bias, *_ = inputs
        weights = output[1]  # known already in a layer that prunes by them
        if weights is None:  # `forward` does not run this hook again
            weights = cast(Attention, module).forward(tokens, bias, num_joints, num_joints)[1]
        assert weights is not None
        recorded.append(reduce(weights[:, :, :num_joints], "b heads j n -> b j n", "mean"))

    depth = len(model.transformer.blocks)
    joint_blocks = model.joint_layers if isinstance(model.joint_layers, JointLayers) else ()
    blocks = [cast(Block, block) for block in (*model.transformer.blocks, *joint_blocks)]
    hooks = [block.attention.register_forward_hook(record) for block in blocks]
    stages: list[Stage] = []
    try:
        heatmaps = model(images, stages).float()
    finally:
        for hook in hooks:
            hook.remove()
    first = recorded[0]  # nothing is pruned before the first layer
    main = first.new_zeros(len(first), depth, *first.shape[1:])
    for layer, weights in enumerate(recorded[:depth]):
        alive = [stage.token_indices for stage in stages if stage.layer < layer]
        tokens = alive[-1][:, None] if alive else torch.arange(first.shape[2], device=first.device)
        main[:, layer].scatter_(2, tokens.expand_as(weights), weights)
    to_visual, to_keypoints = main[..., num_joints:], main[..., :num_joints]
    joint_layers = torch.stack(recorded[depth:], 1) if joint_blocks else to_keypoints[:, :0]
    return AttentionMaps(heatmaps, to_visual, to_keypoints, joint_layers, stages)


def joint_mask(model: TokenPose) -> Tensor | None:
    """Which joint (row) may attend to which in the joint layers, bool [J, J]; None without them."""
    return model.joint_layers.bias == 0 if isinstance(model.joint_layers, JointLayers) else None
