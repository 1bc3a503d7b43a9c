"""The registry of networks, and what a network of another kind needs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.models import MODELS, ModelSpec, PoseNetwork, build_model, check_model
from lib.models.backbones import BACKBONES, Backbone
from lib.utils.errors import UserError

MakeCfg = Callable[..., CfgNode]


class TinyNetwork(PoseNetwork):
    def __init__(self, num_joints: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, num_joints, 4, stride=4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images)


def test_a_network_needs_its_spec_and_a_registry_line_only(
    small_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ModelSpec(build=lambda cfg: TinyNetwork(cfg.MODEL.NUM_JOINTS))
    monkeypatch.setitem(MODELS, "tiny", spec)
    cfg = small_cfg(NAME="tiny", DIM=7, PATCH_SIZE=[5, 5])  # TokenPose's rules do not apply
    assert build_model(check_model(cfg))(torch.zeros(2, 3, 48, 64)).shape == (2, 16, 12, 16)


class Pool(Backbone):
    stride, channels = 8, 3
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images, 8)


def test_a_backbone_sets_stride_channels_and_normalisation(
    small_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKBONES, "pool", Pool)
    cfg = small_cfg(BACKBONE="pool", BACKBONE_STRIDE=8, PATCH_SIZE=[2, 2])
    network = build_model(cfg)
    assert network(torch.zeros(2, 3, 48, 64)).shape == (2, 16, 12, 16)
    assert (network.mean, network.std) == (Pool.mean, Pool.std)
    with pytest.raises(UserError, match="BACKBONE_STRIDE = 4: pool has features of stride 8"):
        build_model(small_cfg(BACKBONE="pool"))


def test_a_timm_backbone_works_by_its_name(small_cfg: MakeCfg) -> None:
    cfg = small_cfg(BACKBONE="resnet18", BACKBONE_STRIDE=16, PATCH_SIZE=[1, 1])
    assert build_model(cfg)(torch.zeros(2, 3, 48, 64)).shape == (2, 16, 12, 16)
    with pytest.raises(UserError, match="BACKBONE_STRIDE = 3: resnet18 has features of stride 2, "):
        build_model(small_cfg(BACKBONE="resnet18", BACKBONE_STRIDE=3, IMAGE_SIZE=[48, 48]))
    with pytest.raises(UserError, match=r"'resnet_18': .* did you mean resnet18"):
        build_model(small_cfg(BACKBONE="resnet_18"))


def test_a_misspelled_name_is_answered_with_the_nearest(small_cfg: MakeCfg) -> None:
    with pytest.raises(
        UserError, match=r"MODEL.NAME = 'pose_tokenpos'.*did you mean pose_tokenpose_s\?"
    ):
        check_model(small_cfg(NAME="pose_tokenpos"))


def test_joints_are_those_of_the_skeleton(small_cfg: MakeCfg) -> None:
    with pytest.raises(UserError, match=r"MODEL.NUM_JOINTS = 17: the skeleton mpii has 16 joints"):
        build_model(small_cfg(NUM_JOINTS=17))
    cfg = small_cfg(NUM_JOINTS=17)
    cfg.DATASET.SKELETON = "coco"
    assert build_model(cfg)(torch.zeros(1, 3, 48, 64)).shape == (1, 17, 12, 16)
