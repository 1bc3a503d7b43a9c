"""SimpleBaseline: shapes, training, and configurations that do not fit."""

from pathlib import Path

import pytest
import torch
from desk import Desk
from yacs.config import CfgNode

from lib.config import load_cfg
from lib.models import build_model
from lib.utils.errors import UserError

OPTS = (
    "MODEL.NAME", "pose_resnet", "MODEL.BACKBONE", "resnet18", "MODEL.BACKBONE_STRIDE", 8,
    "MODEL.EXTRA.NUM_DECONV_FILTERS", [8, 4], "MODEL.EXTRA.NUM_DECONV_KERNELS", [4, 3],
)  # fmt: skip


def baseline_cfg(path: Path, *opts: object) -> CfgNode:
    path.write_text("MODEL: {IMAGE_SIZE: [64, 32], HEATMAP_SIZE: [32, 16]}")
    return load_cfg(path, [*OPTS, *opts])


def test_each_deconvolution_doubles_the_features(tmp_path: Path) -> None:
    model = build_model(baseline_cfg(tmp_path / "small.yaml"))
    heatmaps = model(torch.randn(2, 3, 32, 64))
    assert heatmaps.shape == (2, 16, 16, 32)
    heatmaps.square().mean().backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize(
    "opts",
    [
        ("MODEL.HEATMAP_SIZE", [16, 8]),
        ("MODEL.EXTRA.NUM_DECONV_FILTERS", [8]),
        ("MODEL.EXTRA.NUM_DECONV_FILTERS", []),
        ("MODEL.EXTRA.NUM_DECONV_KERNELS", ["4", "4"]),
        ("MODEL.BACKBONE_STRIDE", 12),
        ("MODEL.EXTRA.NUM_DECONV_LAYERS", 3),
        ("MODEL.EXTRA.FINAL_CONV_KERNEL", 3),
        ("MODEL.EXTRA.NUM_DECONV_FILTER", [8, 4]),
    ],
)
def test_a_configuration_that_does_not_fit_is_one_line(opts: tuple, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        build_model(baseline_cfg(tmp_path / "small.yaml", *opts))
    assert "\n" not in str(error.value)


def test_it_trains_tests_and_exports(desk: Desk) -> None:
    # The heatmaps of the small configuration are half of its images.
    assert desk.on_cfg("train", *OPTS, "TRAIN.END_EPOCH", 1).code == 0
    assert desk.on_cfg("test", *OPTS).code == 0
    exported = desk.on_cfg("export", *OPTS)
    assert exported.code == 0, exported.err
