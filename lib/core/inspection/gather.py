"""One person in one picture, and all that the network did to find them.

Everything that `page` and `pictures` show is gathered here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from yacs.config import CfgNode

from lib.core.inference import normalise
from lib.core.inspection.attention import joint_mask, look
from lib.core.inspection.macs import Work, saved_by_stage, work_of
from lib.dataset.heatmap import decode
from lib.dataset.skeleton import Skeleton, skeleton_of
from lib.dataset.transforms import (
    box_to_view,
    crop_image,
    crop_matrix,
    fault_of_box,
    heatmap_to_crop,
)
from lib.models.tokenpose import TokenPose
from lib.utils.errors import UserError

_PICTURE_SIDE = 640  # of the picture that is shown, in pixels, about

Box = tuple[float, float, float, float]  # x, y, width, height in pixels


@dataclass(frozen=True)
class StageSeen:
    """What the pruning after a layer's attention left alive, and what that saves.

    `kept` of `before` tokens or, with `connection`, of the connections of each visual token, are
    alive. `alive` bool [HW] are the tokens that are there still or that another token still looks
    at; `connections` bool [HW, HW] who (row) looks at whom.
    """

    layer: int
    before: int
    kept: int
    alive: np.ndarray
    connections: np.ndarray | None
    saved_macs: int


@dataclass(frozen=True)
class Inspection:
    """What was seen; attention as in `attention.Looks`, of one picture, fp32 NumPy.

    `picture` uint8 RGB [zoom·h, zoom·w, 3] is the crop, finer than the network sees it; `joints`
    [J, 2] are in pixels of `picture`, `scores` [J]. `grid` is the patch grid's (width, height).
    `mask` bool [J, J] is None where there are no joint layers.
    """

    picture: np.ndarray
    image_size: tuple[int, int]
    grid: tuple[int, int]
    skeleton: Skeleton
    joints: np.ndarray
    scores: np.ndarray
    prune: str
    keep_ratio: float
    joint_hops: int
    to_visual: np.ndarray
    to_keypoints: np.ndarray
    joint_layers: np.ndarray
    mask: np.ndarray | None
    stages: list[StageSeen]
    work: Work
    dense_work: Work


def crop_of(shape: Sequence[int], box: Box | None, image_size: tuple[int, int]) -> np.ndarray:
    """The map, float64 [2, 3], from a picture of `shape` (h, w, ...) to the crop about a box.

    None is the whole picture, as of `lib.predictor`. UserError where the box is none of a person.
    """
    place = (0.0, 0.0, shape[1], shape[0]) if box is None else box
    fault = fault_of_box(place, shape)
    if fault:
        raise UserError(f"--box {','.join(f'{number:g}' for number in place)} {fault}")
    return crop_matrix(*box_to_view(place, image_size), 0.0, image_size)


def inspect(cfg: CfgNode, model: TokenPose, photograph: np.ndarray, box: Box | None) -> Inspection:
    """Find the person in the box of a photograph, uint8 RGB, and gather what the network did.

    The plain network runs once, in fp32, on the picture as it is: no mirror picture.
    """
    size = tuple(cfg.MODEL.IMAGE_SIZE)
    skeleton = skeleton_of(cfg.MODEL.NUM_JOINTS)
    matrix = crop_of(photograph.shape, box, size)
    crop = crop_image(photograph, matrix, size)
    seen_so = crop if cfg.DATASET.COLOR_RGB else crop[..., ::-1].copy()
    device = next(model.parameters()).device
    looks = look(model.eval(), normalise(torch.from_numpy(seen_so[None]).to(device)))
    cells, scores = decode(looks.heatmaps, cfg.TEST.BLUR_KERNEL, cfg.TEST.POST_PROCESS)
    joints = heatmap_to_crop(cells[0].double().cpu().numpy(), size, cfg.MODEL.HEATMAP_SIZE)

    zoom = max(1, round(_PICTURE_SIDE / max(size)))
    # The edges of the patches, not the middles of the pixels, are what must fit.
    finer = zoom * matrix + np.array([[0, 0, 1], [0, 0, 1]]) * (zoom - 1) / 2
    own, dense = work_of(model, size), work_of(model, size, dense=True)
    count = looks.to_visual.shape[3]
    mask = joint_mask(model)
    return Inspection(
        picture=crop_image(photograph, finer, [zoom * side for side in size]),
        image_size=size,
        grid=tuple(
            side // 4 // patch for side, patch in zip(size, cfg.MODEL.PATCH_SIZE, strict=True)
        ),
        skeleton=skeleton,
        joints=zoom * joints + (zoom - 1) / 2,
        scores=scores[0].cpu().numpy(),
        prune=model.transformer.prune,
        keep_ratio=cfg.MODEL.SPARSITY.KEEP_RATIO,
        joint_hops=cfg.MODEL.SPARSITY.JOINT_HOPS,
        to_visual=looks.to_visual[0].cpu().numpy(),
        to_keypoints=looks.to_keypoints[0].cpu().numpy(),
        joint_layers=looks.joint_layers[0].cpu().numpy(),
        mask=None if mask is None else mask.cpu().numpy(),
        stages=_stages(looks.stages, count, own, dense),
        work=own,
        dense_work=dense,
    )


def _stages(stages: Sequence, count: int, own: Work, dense: Work) -> list[StageSeen]:
    saved = saved_by_stage(own, dense, [stage.layer for stage in stages])
    seen, before = [], count
    for stage, macs in zip(stages, saved, strict=True):
        alive = stage.tokens(count)[0].cpu().numpy()
        connections = None
        kept = int(alive.sum())
        if stage.connections is not None:
            connections = stage.connections[0].cpu().numpy()
            kept = int(connections[0].sum())  # as many in every row
        seen.append(StageSeen(stage.layer, before, kept, alive, connections, macs))
        before = kept
    return seen
