"""An inspection: its crop, the predicted joints, and exact numbers of each pruning stage."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from yacs.config import CfgNode

from lib.analysis.inspection.gather import box_crop, inspect
from lib.dataset.transforms import box_to_center_scale, crop_image, crop_matrix, transform_points
from lib.inference.pipeline import Decoding, PixelsToHeatmaps, predict
from lib.models import PoseNetwork, build_model
from lib.models.pruning import PRUNERS, Pruned, Pruner, keep_tokens
from lib.utils.errors import UserError
from lib.utils.macs import count_macs

MakeCfg = Callable[..., CfgNode]
SIZE = (64, 48)


def network(cfg: CfgNode) -> PoseNetwork:
    torch.manual_seed(0)
    return build_model(cfg).eval()


def smooth_image(height: int = 90, width: int = 150) -> np.ndarray:
    """Smooth colors, so that crops of two resolutions can be compared."""
    y, x = np.mgrid[:height, :width]
    waves = (np.sin(x / 17), np.cos(y / 13), np.sin((x + y) / 29))
    return np.stack([np.uint8(120 + 100 * wave) for wave in waves], axis=2)


@pytest.mark.parametrize("shape", [(100, 300), (300, 100), (48, 64), (20, 20_000), (20_000, 20)])
def test_without_a_box_the_crop_contains_the_whole_image(shape: tuple[int, int]) -> None:
    height, width = shape
    corners = np.array([[0, 0], [width - 1, height - 1.0]])
    in_crop = transform_points(corners, box_crop(shape, None, SIZE))
    assert (in_crop >= 0).all()
    assert (in_crop <= np.array(SIZE) - 1).all()


@pytest.mark.parametrize("box", [(400, 0, 5, 5), (0, -9, 5, 9), (3, 3, 0, 5), (1e300, 0, 5, 5)])
def test_an_impossible_box_is_an_error(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(UserError, match=r"--box .* (outside|pixel|finite)"):
        box_crop((300, 400), box, SIZE)


@pytest.mark.parametrize("color_rgb", [True, False])
def test_joints_equal_those_of_the_pipeline(color_rgb: bool, small_cfg: MakeCfg) -> None:
    cfg = small_cfg(PRUNE="token")
    cfg.DATASET.COLOR_RGB = color_rgb
    model, image = network(cfg), smooth_image()
    model.mean, model.std = (0.3, 0.4, 0.5), (0.2, 0.25, 0.3)  # the network's, not ImageNet's
    box = (30, 10, 60, 50)
    result = inspect(cfg, model, image, box)
    center, scale = box_to_center_scale(box, SIZE)
    matrix = crop_matrix(center, scale, 0.0, SIZE)
    crop = crop_image(image, matrix, SIZE)
    batch = {
        "image": torch.from_numpy((crop if color_rgb else crop[..., ::-1]).copy())[None],
        "center": torch.from_numpy(center)[None],
        "scale": torch.from_numpy(scale)[None],
    }
    run = PixelsToHeatmaps(model)  # not a runner: folded norms round, and DARK steps amplify it
    expected = predict(run, [batch], torch.device("cpu"), Decoding())
    zoom = result.image.shape[1] / SIZE[0]
    in_crop = transform_points(expected.joints[0], matrix)
    assert np.allclose(result.joints, zoom * (in_crop + 0.5) - 0.5, atol=1e-3)
    assert np.allclose(result.scores, expected.scores[0])


def test_the_image_is_the_crop_in_a_higher_resolution(small_cfg: MakeCfg) -> None:
    cfg, image = small_cfg(), smooth_image()
    result = inspect(cfg, network(cfg), image, None)
    crop = crop_image(image, box_crop(image.shape, None, SIZE), SIZE)
    shrunk = cv2.resize(result.image, SIZE, interpolation=cv2.INTER_AREA)
    inner = np.s_[11:-11, 9:-9]  # the border is black
    assert result.image.shape == (480, 640, 3)
    assert np.abs(shrunk.astype(int) - crop)[inner].max() <= 8
    assert np.abs(shrunk.astype(int) - crop)[inner].mean() < 1


@pytest.mark.parametrize("prune", ["none", "connection", "token"])
def test_stages_have_exact_counts_and_savings(prune: str, small_cfg: MakeCfg) -> None:
    cfg = small_cfg(PRUNE=prune)
    model = network(cfg)
    result = inspect(cfg, model, smooth_image(), None)
    kept = [(stage.layer, stage.kept) for stage in result.stages]
    assert kept == ([] if prune == "none" else [(1, 17), (3, 12)])
    pruned = count_macs(model, SIZE)  # the network prunes as before
    assert result.dense_gmacs == count_macs(network(small_cfg(PRUNE="none")), SIZE)
    saved = sum(stage.saved_gmacs for stage in result.stages)
    assert saved == pytest.approx(result.dense_gmacs - pruned)
    assert (saved > 0) == (prune == "token")
    for stage in result.stages:
        if prune == "token":
            assert stage.connections is None
            assert sorted(stage.attended_by) == [0] * (24 - stage.kept) + [1] * stage.kept
        else:
            assert (stage.connections.sum(axis=1) == stage.kept).all()
            assert np.array_equal(stage.attended_by, stage.connections.sum(axis=0))
    assert result.to_visual.shape == (5, 16, 24)
    assert result.grid == (4, 6)


class FirstTokens(Pruner):
    """A pruning rule that keeps the first tokens."""

    name = "first"
    description = "removes the last visual tokens"
    removes_tokens = True

    def prune(self, weights: Tensor, num_joints: int, keep: int, bias: Tensor | None) -> Pruned:
        scores = -torch.arange(weights.shape[3] - num_joints).expand(len(weights), -1).float()
        return Pruned(token_indices=keep_tokens(scores, num_joints, keep))


def test_a_registered_pruning_rule_is_inspected(
    small_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRUNERS, "first", FirstTokens())
    cfg = small_cfg(PRUNE="first")
    result = inspect(cfg, network(cfg), smooth_image(), None)
    assert result.pruning == "first: removes the last visual tokens"
    for stage, kept in zip(result.stages, (17, 12), strict=True):
        assert np.array_equal(stage.attended_by, np.arange(24) < kept)


def test_num_joints_must_match_the_skeleton(small_cfg: MakeCfg) -> None:
    model = network(small_cfg())
    with pytest.raises(UserError, match=r"MODEL.NUM_JOINTS = 14"):
        inspect(small_cfg(NUM_JOINTS=14), model, smooth_image(), None)
