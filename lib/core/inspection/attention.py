"""Where the keypoint tokens look: each layer's attention, seen from outside as the network runs.

A forward hook on each attention asks it once more, for the keypoint tokens alone, with the same
tokens and the same mask. What the network itself computes stays as it is, to the bit.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.models.sparsity import Stage
from lib.models.tokenpose import JointLayers, TokenPose


@dataclass(frozen=True)
class Looks:
    """What a network found in B pictures, and where its J keypoint tokens looked meanwhile.

    Weights are means over the heads, fp32. Of each of the L layers of the main transformer
    `to_visual` [B, L, J, HW] is what goes to visual tokens, each at its place on the patch grid,
    row by row, exactly 0 where one has left; `to_keypoints` [B, L, J, J] is the rest. Together they
    are 1. `joint_layers` [B, M, J, J] are the weights of the M joint layers, `stages` what each
    pruning left alive, `heatmaps` [B, J, h, w] the network's answer.
    """

    heatmaps: Tensor
    to_visual: Tensor
    to_keypoints: Tensor
    joint_layers: Tensor
    stages: list[Stage]


@torch.inference_mode()
def look(model: TokenPose, images: Tensor) -> Looks:
    """Run a network in evaluation on images [B, 3, H, W], ImageNet-normalised, and watch it."""
    assert not model.training, "dropped paths and batch norm would show another network"
    joints = model.keypoint_tokens.shape[1]
    weights: list[Tensor] = []  # of each layer, [B, J, tokens in the sequence]

    def record(attention: nn.Module, asked: tuple, answer: tuple[Tensor, Tensor | None]) -> None:
        tokens, bias, *_ = asked
        # A layer that prunes has shown its weights already; those are what it decided by.
        seen = answer[1]
        if seen is None:
            seen = attention.forward(tokens, bias, joints, joints)[1]
        weights.append(seen[:, :, :joints].mean(dim=1))

    blocks = [*model.transformer.blocks, *_joint_blocks(model)]
    hooks = [block.attention.register_forward_hook(record) for block in blocks]
    stages: list[Stage] = []
    try:
        heatmaps = model(images, stages).float()
    finally:
        for hook in hooks:
            hook.remove()
    depth = len(model.transformer.blocks)
    count = weights[0].shape[2]  # nothing is pruned before the first layer
    whole = [_put_back(part, layer, stages, count) for layer, part in enumerate(weights[:depth])]
    main = torch.stack(whole, dim=1)
    within = torch.stack(weights[depth:], dim=1) if weights[depth:] else main[:, :0, :, :joints]
    return Looks(heatmaps, main[..., joints:], main[..., :joints], within, stages)


def joint_mask(model: TokenPose) -> Tensor | None:
    """Which joint (row) may attend to which in the joint layers, bool [J, J]; None without them."""
    return model.joint_layers.bias == 0 if isinstance(model.joint_layers, JointLayers) else None


def _joint_blocks(model: TokenPose) -> list[nn.Module]:
    return list(model.joint_layers) if isinstance(model.joint_layers, JointLayers) else []


def _put_back(weights: Tensor, layer: int, stages: list[Stage], count: int) -> Tensor:
    """Weights of a layer's tokens [B, J, n], put where the tokens come from: [B, J, `count`]."""
    places = next((stage.places for stage in reversed(stages) if stage.layer < layer), None)
    if places is None:
        return weights
    whole = weights.new_zeros(*weights.shape[:2], count)
    return whole.scatter_(2, places[:, None].expand_as(weights), weights)
