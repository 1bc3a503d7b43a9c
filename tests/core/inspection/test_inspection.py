"""What an inspection gathers: the right crop, the network's own joints, and the stages' figures."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from lib.core.inference import predict
from lib.core.inspection.gather import crop_of, inspect
from lib.core.runtime import build_runner
from lib.dataset.transforms import box_to_view, crop_image, crop_matrix, transform_points
from lib.models import build_model
from lib.utils.errors import UserError

MakeCfg = Callable[..., CfgNode]
SIZE = (64, 48)


def network(cfg: CfgNode) -> nn.Module:
    torch.manual_seed(0)
    return build_model(cfg).eval()


def photograph(height: int = 90, width: int = 150) -> np.ndarray:
    """Smooth colors, so that pictures of two finenesses can be compared."""
    y, x = np.mgrid[:height, :width]
    waves = (np.sin(x / 17), np.cos(y / 13), np.sin((x + y) / 29))
    return np.stack([np.uint8(120 + 100 * wave) for wave in waves], axis=2)


@pytest.mark.parametrize("shape", [(100, 300), (300, 100), (48, 64), (20, 20_000), (20_000, 20)])
def test_without_a_box_all_of_the_picture_is_in_the_crop(shape: tuple[int, int]) -> None:
    height, width = shape
    corners = transform_points(
        np.array([[0, 0], [width - 1, height - 1.0]]), crop_of(shape, None, SIZE)
    )
    assert (corners >= 0).all()
    assert (corners <= np.array(SIZE) - 1).all()


@pytest.mark.parametrize("box", [(400, 0, 5, 5), (0, -9, 5, 9), (3, 3, 0, 5), (1e300, 0, 5, 5)])
def test_a_box_that_is_none_of_a_person_is_told(box: tuple) -> None:
    with pytest.raises(UserError, match=r"--box .* (outside|size)"):
        crop_of((300, 400), box, SIZE)


@pytest.mark.parametrize("color_rgb", [True, False])
def test_joints_are_those_of_the_network(color_rgb: bool, small_cfg: MakeCfg) -> None:
    cfg = small_cfg(PRUNE="token")
    cfg.DATASET.COLOR_RGB = color_rgb
    model, image = network(cfg), photograph()
    box = (30, 10, 60, 50)
    seen = inspect(cfg, model, image, box)
    center, scale = box_to_view(box, SIZE)
    crop = crop_image(image, crop_matrix(center, scale, 0.0, SIZE), SIZE)
    batch = {
        "image": torch.from_numpy((crop if color_rgb else crop[..., ::-1]).copy())[None],
        "center": torch.from_numpy(center)[None],
        "scale": torch.from_numpy(scale)[None],
    }
    run = build_runner(model, "eager", "fp32", SIZE)
    wanted = predict(
        run, [batch], torch.device("cpu"), flip_order=None, refine=True, blur_kernel=11
    )
    zoom = seen.picture.shape[1] / SIZE[0]
    matrix = crop_matrix(center, scale, 0.0, SIZE)
    in_crop = transform_points(wanted.joints[0], matrix)
    assert np.allclose(seen.joints, zoom * (in_crop + 0.5) - 0.5, atol=1e-6)
    assert np.allclose(seen.scores, wanted.scores[0])


def test_the_finer_picture_shows_what_the_network_sees(small_cfg: MakeCfg) -> None:
    cfg, image = small_cfg(), photograph()
    seen = inspect(cfg, network(cfg), image, None)
    crop = crop_image(image, crop_of(image.shape, None, SIZE), SIZE)
    shrunk = cv2.resize(seen.picture, SIZE, interpolation=cv2.INTER_AREA)
    inner = np.s_[11:-11, 9:-9]  # black lies around it
    assert seen.picture.shape == (480, 640, 3)
    assert np.abs(shrunk.astype(int) - crop)[inner].max() <= 8
    assert np.abs(shrunk.astype(int) - crop)[inner].mean() < 1


@pytest.mark.parametrize("prune", ["none", "connection", "token"])
def test_stages_tell_what_is_alive_and_saved(prune: str, small_cfg: MakeCfg) -> None:
    cfg = small_cfg(PRUNE=prune, NUM_JOINTS=17)
    seen = inspect(cfg, network(cfg), photograph(), None)
    figures = [(stage.layer, stage.before, stage.kept) for stage in seen.stages]
    assert figures == ([] if prune == "none" else [(1, 24, 17), (3, 17, 12)])
    saved = seen.dense_work.total - seen.work.total
    assert sum(stage.saved_macs for stage in seen.stages) == saved
    assert (saved > 0) == (prune == "token")
    for stage in seen.stages:
        if prune == "token":
            assert stage.alive.sum() == stage.kept
            assert stage.connections is None
        else:
            assert (stage.connections.sum(axis=1) == stage.kept).all()
            assert np.array_equal(stage.alive, stage.connections.any(axis=0))
    assert seen.to_visual.shape == (5, 17, 24)
    assert seen.grid == (4, 6)


def test_joints_without_a_skeleton_are_told(small_cfg: MakeCfg) -> None:
    cfg = small_cfg(NUM_JOINTS=14, JOINT_HOPS=-1)
    with pytest.raises(UserError, match=r"MODEL.NUM_JOINTS: 14"):
        inspect(cfg, network(cfg), photograph(), None)
