"""One person in one image: attention, pruning stages and MACs, for the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from einops import reduce
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.dataset import Skeleton, build_skeleton
from lib.dataset.transforms import box_error, box_to_center_scale, crop_image, crop_matrix
from lib.inference.pipeline import PixelsToJoints, build_decoding, normalise
from lib.models.pruning import Stage
from lib.models.tokenpose import JointLayers, TokenPose
from lib.models.tokenpose_spec import patch_grid
from lib.models.transformer import Attention, Block
from lib.utils.errors import UserError
from lib.utils.macs import count_macs

_SHOWN_SIDE = 640  # of the image that is shown, in pixels, about

Box = tuple[float, float, float, float]  # x, y, width, height in pixels


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


@dataclass(frozen=True)
class StageResult:
    """What the pruning after the attention of `layer` left alive."""

    layer: int
    kept: int  # visual tokens, or with a mask the connections of each visual token
    attended_by: np.ndarray  # int [HW]: by how many visual tokens; without a mask 1, or 0 if pruned
    connections: np.ndarray | None  # bool [HW, HW], the mask: which token (row) attends to which
    saved_gmacs: float  # compared to a network without this stage and later ones


@dataclass(frozen=True)
class Inspection:
    """The results for one image; attention as in `AttentionMaps`, fp32 NumPy."""

    image: np.ndarray  # uint8 RGB [zoom·h, zoom·w, 3]: the crop, finer than the network's
    grid: tuple[int, int]  # patches (columns, rows)
    skeleton: Skeleton
    joints: np.ndarray  # [J, 2] in pixels of `image`
    scores: np.ndarray  # [J]
    pruning: str  # the rule and its description
    removes_tokens: bool  # as `Pruner`
    to_visual: np.ndarray
    joint_layers: np.ndarray
    mask: np.ndarray | None  # bool [J, J]; None without joint layers
    stages: list[StageResult]
    dense_gmacs: float  # multiply-adds of the same network without pruning


@torch.inference_mode()
def record_attention(model: TokenPose, images: Tensor) -> AttentionMaps:
    """Run a network in evaluation mode on images [B, 3, H, W], normalised with its mean and std.

    A hook on each attention module computes the weights of the keypoint tokens again, from the same
    tokens and mask; the output of the network stays bit-identical.
    """
    assert not model.training, "drop path and batch norm of training would show another network"
    num_joints = model.keypoint_tokens.shape[1]
    recorded: list[Tensor] = []  # of each layer, [B, J, tokens in the sequence]

    def record(
        module: nn.Module, inputs: tuple, output: tuple[Tensor, Tensor | None, object]
    ) -> None:
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


def box_crop(
    shape: Sequence[int], box: Box | None, size: tuple[int, int], unbiased: bool = True
) -> np.ndarray:
    """Return the matrix, float64 [2, 3], from an image of `shape` (h, w, ...) to the box's crop.

    None is the whole image. UserError if the box has no size or lies outside the image.
    """
    x, y, width, height = box or (0.0, 0.0, shape[1], shape[0])
    problem = box_error((x, y, width, height), shape)
    if problem:
        raise UserError(f"--box {x:g},{y:g},{width:g},{height:g} {problem}")
    view = box_to_center_scale((x, y, width, height), size)
    return crop_matrix(*view, 0.0, size, unbiased=unbiased)


def inspect(cfg: CfgNode, model: TokenPose, image: np.ndarray, box: Box | None) -> Inspection:
    """Predict the person in the box of an image, uint8 RGB, and record attention and pruning."""
    size = (cfg.MODEL.IMAGE_SIZE[0], cfg.MODEL.IMAGE_SIZE[1])
    skeleton = build_skeleton(cfg)
    matrix = box_crop(image.shape, box, size, cfg.DATASET.UNBIASED)
    crop = crop_image(image, matrix, size, cfg.TEST.SMOOTH_CROP)
    channels = crop if cfg.DATASET.COLOR_RGB else crop[..., ::-1].copy()
    pixels = torch.from_numpy(channels[None]).to(next(model.parameters()).device)
    maps = record_attention(model.eval(), normalise(pixels, model.mean, model.std))
    decoder = PixelsToJoints(model, size, build_decoding(cfg, skeleton))
    joints, scores = (output[0].cpu().numpy() for output in decoder.decode(maps.heatmaps))
    zoom = max(1, round(_SHOWN_SIDE / max(size)))
    # The edges of the patches must match, not the centers of the pixels.
    finer = zoom * matrix + np.array([[0, 0, 1], [0, 0, 1]]) * (zoom - 1) / 2
    mask, pruner = joint_mask(model), model.transformer.pruner
    gmacs = _gmacs_by_stage(model, size)
    return Inspection(
        image=crop_image(image, finer, [zoom * side for side in size]),
        grid=patch_grid(cfg),
        skeleton=skeleton,
        joints=zoom * joints + (zoom - 1) / 2,
        scores=scores,
        pruning=f"{pruner.name}: {pruner.description}" if pruner else "none",
        removes_tokens=pruner is not None and pruner.removes_tokens,
        to_visual=maps.to_visual[0].cpu().numpy(),
        joint_layers=maps.joint_layers[0].cpu().numpy(),
        mask=None if mask is None else mask.cpu().numpy(),
        stages=[
            _stage_result(stage, maps.to_visual.shape[3], before - after)
            for stage, (before, after) in zip(maps.stages, pairwise(gmacs), strict=True)
        ],
        dense_gmacs=gmacs[0],
    )


def _stage_result(stage: Stage, count: int, saved_gmacs: float) -> StageResult:
    if stage.connections is None:
        alive = stage.alive_tokens(count)[0].cpu().numpy().astype(int)
        return StageResult(stage.layer, int(alive.sum()), alive, None, saved_gmacs)
    connections = stage.connections[0].cpu().numpy()
    kept = int(connections[0].sum())  # the same in every row
    return StageResult(stage.layer, kept, connections.sum(axis=0), connections, saved_gmacs)


def _gmacs_by_stage(model: TokenPose, size: tuple[int, int]) -> list[float]:
    """The multiply-adds with the first 0, 1, … of the pruning stages, in 1e9."""
    prune_layers, gmacs = model.transformer.prune_layers, []
    for number in range(len(prune_layers) + 1):  # the last are those of the network itself
        model.transformer.prune_layers = prune_layers[:number]
        gmacs.append(count_macs(model, size))
    return gmacs
