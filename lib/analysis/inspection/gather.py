"""One person in one image: attention, pruning stages and MACs, for the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from yacs.config import CfgNode

from lib.analysis.inspection.attention import joint_mask, record_attention
from lib.dataset import Skeleton, build_skeleton
from lib.dataset.transforms import box_error, box_to_center_scale, crop_image, crop_matrix
from lib.inference.pipeline import PixelsToJoints, build_decoding, normalise
from lib.models.pruning import Stage
from lib.models.tokenpose import TokenPose
from lib.models.tokenpose_spec import patch_grid
from lib.utils.errors import UserError
from lib.utils.macs import count_macs

_SHOWN_SIDE = 640  # of the image that is shown, in pixels, about

Box = tuple[float, float, float, float]  # x, y, width, height in pixels


@dataclass(frozen=True)
class StageResult:
    """What the pruning after the attention of `layer` left alive.

    `kept` are the visual tokens, or with a mask the connections of each visual token, that are
    alive. `connections` bool [HW, HW] is the mask: which visual token (row) attends to which.
    `attended_by` int [HW] is how many visual tokens attend to each; without a mask it is 1, or 0 if
    the token is pruned. `saved_gmacs` compares to a network without this stage and later ones.
    """

    layer: int
    kept: int
    attended_by: np.ndarray
    connections: np.ndarray | None
    saved_gmacs: float


@dataclass(frozen=True)
class Inspection:
    """The results for one image; attention as in `attention.AttentionMaps`, fp32 NumPy.

    `image` uint8 RGB [zoom·h, zoom·w, 3] is the crop, finer than the network's; `joints` [J, 2] are
    in pixels of `image`, `scores` [J]. `grid` is the patch grid's (width, height). `mask` bool
    [J, J] is None without joint layers. `pruning` describes the rule; `removes_tokens` as `Pruner`.
    `dense_gmacs` are the multiply-adds of the same network without pruning.
    """

    image: np.ndarray
    grid: tuple[int, int]
    skeleton: Skeleton
    joints: np.ndarray
    scores: np.ndarray
    pruning: str
    removes_tokens: bool
    to_visual: np.ndarray
    joint_layers: np.ndarray
    mask: np.ndarray | None
    stages: list[StageResult]
    dense_gmacs: float


def box_crop(shape: Sequence[int], box: Box | None, size: tuple[int, int]) -> np.ndarray:
    """Return the matrix, float64 [2, 3], from an image of `shape` (h, w, ...) to the box's crop.

    None is the whole image. UserError if the box has no size or lies outside the image.
    """
    x, y, width, height = box or (0.0, 0.0, shape[1], shape[0])
    problem = box_error((x, y, width, height), shape)
    if problem:
        raise UserError(f"--box {x:g},{y:g},{width:g},{height:g} {problem}")
    return crop_matrix(*box_to_center_scale((x, y, width, height), size), 0.0, size)


def inspect(cfg: CfgNode, model: TokenPose, image: np.ndarray, box: Box | None) -> Inspection:
    """Predict the person in the box of an image, uint8 RGB, and record attention and pruning.

    The network runs once, in fp32, without the flip test.
    """
    size = (cfg.MODEL.IMAGE_SIZE[0], cfg.MODEL.IMAGE_SIZE[1])
    skeleton, matrix = build_skeleton(cfg), box_crop(image.shape, box, size)
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
