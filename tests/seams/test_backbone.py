"""A backbone of another stride and normalisation under TokenPose; and any timm network by name."""

import pytest
import torch
from desk import Desk
from torch import nn
from toy_backbone import ToyBackbone

from lib.config import load_cfg
from lib.inference.pipeline import PixelsToHeatmaps
from lib.models import build_model
from lib.models.backbones import BACKBONES
from lib.models.tokenpose import TokenPose

TOY = ("MODEL.BACKBONE", "toy", "MODEL.BACKBONE_STRIDE", 8, "MODEL.PATCH_SIZE", [1, 1])
RESNET = ("MODEL.BACKBONE", "resnet18", "MODEL.BACKBONE_STRIDE", 8, "MODEL.PATCH_SIZE", [2, 2])
FROZEN = ("MODEL.BACKBONE_STRIDE", 8, "TRAIN.FROZEN_STAGES")
VIT = (
    *("MODEL.BACKBONE", "vit_tiny_patch16_224", "MODEL.BACKBONE_STRIDE", 16),
    *("MODEL.PATCH_SIZE", [1, 1], "MODEL.SPARSITY.PRUNE", "none"),
)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "toy", ToyBackbone)


def build(desk: Desk, *opts: object) -> TokenPose:
    model = build_model(load_cfg(desk.yaml, opts))
    assert isinstance(model, TokenPose)
    return model


@pytest.mark.parametrize(("opts", "tokens"), [(TOY, 4 * 4), (RESNET, 2 * 2)])
def test_tokens_and_positions_follow_its_stride(desk: Desk, opts: tuple, tokens: int) -> None:
    model = build(desk, *opts)
    assert model.transformer.position.table.shape[1] == 16 + tokens
    features = model.backbone(torch.randn(2, 3, 32, 32))
    assert features.shape == (2, model.backbone.channels, 4, 4)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 16, 16, 16)


def test_its_input_is_normalised_with_its_own_mean(desk: Desk) -> None:
    model = build(desk, *TOY)
    inputs = []
    model.backbone.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    crops = torch.tensor([51, 102, 153], dtype=torch.uint8).expand(1, 32, 32, 3)
    PixelsToHeatmaps(model)(crops)
    torch.testing.assert_close(inputs[0], torch.zeros(1, 3, 32, 32), atol=1e-6, rtol=0)


@pytest.mark.parametrize("opts", [TOY, RESNET, VIT])
def test_it_trains(desk: Desk, opts: tuple) -> None:
    trained = desk.on_cfg("train", *opts, "TRAIN.END_EPOCH", 1)
    assert trained.code == 0, trained.err
    tested = desk.on_cfg("test", *opts)
    assert tested.code == 0, tested.err


class TwoLevels(ToyBackbone):
    """The toy with a finer feature map and two stages."""

    strides = (4, 8)
    stages = 2

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 5, 4, stride=4)

    def features(self, images: torch.Tensor) -> dict[int, torch.Tensor]:
        return {4: self.fine(images), 8: self(images)}

    @property
    def feature_channels(self) -> dict[int, int]:
        return {4: 5, 8: self.channels}

    def stage_parameters(self, stages: int) -> list[nn.Parameter]:
        return list(self.fine.parameters()) if stages == 1 else super().stage_parameters(stages)


def test_its_levels_reach_the_head_and_its_stages_freeze(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKBONES, "toy", TwoLevels)
    opts = (*TOY, "MODEL.HEAD", "filter", "MODEL.FILTER.STRIDES", [4, 8], "TRAIN.FROZEN_STAGES", 1)
    model = build(desk, *opts)
    assert not model.backbone.fine.weight.requires_grad
    assert model.backbone.patches.weight.requires_grad
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 16, 16, 16)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("MODEL.BACKBONE", "toy"), "toy has features of stride 8"),
        (("MODEL.BACKBONE", "resnet18", "MODEL.BACKBONE_STRIDE", 1), "stride 2, 4, 8, 16, 32"),
        (("MODEL.BACKBONE", "resnet_18"), "did you mean resnet18?"),
        (("MODEL.BACKBONE", "convnext_ato.d2_in1k"), "did you mean convnext_atto?"),
        (("MODEL.BACKBONE", "resnet18", *FROZEN, 6), "TRAIN.FROZEN_STAGES = 6: resnet18 has 5"),
    ],
)
def test_a_wrong_backbone_is_one_line(desk: Desk, opts: tuple, message: str) -> None:
    desk.on_cfg("train", *opts).fails_with(message)
