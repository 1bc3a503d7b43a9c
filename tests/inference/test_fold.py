"""Folded batch norms: the same heatmaps, whatever the backbone, and training stays as it is."""

from collections.abc import Callable

import pytest
import torch
from timm.models import DenseNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from yacs.config import CfgNode

from lib.inference.fold import fold_batch_norms
from lib.inference.runtimes import build_runner
from lib.models import PoseNetwork, build_model
from lib.models.simple_baseline import SimpleBaseline
from lib.models.timm_backbone import TimmBackbone, feature_strides

MakeCfg = Callable[..., CfgNode]
SIZE = (96, 64)
# With batch norms that no convolution precedes: densenet121 (half of them) and repvgg_a0.
BACKBONES = {
    "tf_efficientnet_lite0": 0, "resnet18": 0, "mobilenetv3_small_050": 0, "densenet121": 62,
    "repvgg_a0": 17, "convnext_atto": 0,
}  # fmt: skip


def train_norms(network: nn.Module) -> None:
    """Give batch norms statistics and weights as of a trained network."""
    generator = torch.Generator().manual_seed(0)
    for norm in network.modules():
        if isinstance(norm, BatchNorm):
            norm.running_mean.normal_(0, 0.3, generator=generator)
            norm.running_var.uniform_(0.5, 1.5, generator=generator)
            norm.weight.data.uniform_(0.5, 1.5, generator=generator)
            norm.bias.data.normal_(0, 0.3, generator=generator)


def simple_baseline(name: str) -> PoseNetwork:
    torch.manual_seed(0)
    backbone = TimmBackbone(name, feature_strides(name)[-1], image_size=SIZE)
    network = SimpleBaseline(backbone=backbone, filters=[16], kernels=[4], num_joints=3)
    train_norms(network)
    return network


def count_norms(network: nn.Module) -> int:
    return sum(isinstance(module, BatchNorm) for module in network.modules())


@pytest.mark.parametrize("name", BACKBONES)
def test_a_folded_network_computes_the_same(name: str) -> None:
    if name == "densenet121" and not hasattr(DenseNet, "forward_intermediates"):
        pytest.skip("timm before 1.0.31 has no feature maps of densenet121")
    network, images = simple_baseline(name), torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        folded = fold_batch_norms(network, SIZE)
        expected, actual = network.eval()(images), folded(images)
    assert count_norms(folded) == BACKBONES[name] < count_norms(network)
    assert (actual - expected).abs().max() <= 1e-5 * (expected.max() - expected.min())


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
def test_convolutions_read_channels_last(name: str) -> None:
    folded = fold_batch_norms(simple_baseline(name), SIZE)
    layouts = []

    def note(module: nn.Module, inputs: tuple[Tensor]) -> None:
        layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))

    for module in folded.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_pre_hook(note)
    with torch.inference_mode():
        folded(torch.randn(2, 3, 64, 96))
    assert len(layouts) > 10
    assert all(layouts)


def test_training_goes_on_as_if_nothing_had_been_folded(small_cfg: MakeCfg) -> None:
    """Weights, statistics, gradients and modes stay; later weights are in the next runner."""
    cfg = small_cfg(PRUNE="token")
    cfg.MODEL.BACKBONE, cfg.MODEL.BACKBONE_STRIDE, cfg.MODEL.PATCH_SIZE = "resnet18", 8, [1, 1]
    cfg.TRAIN.FROZEN_STAGES = 1
    model, images = build_model(cfg).train(), torch.zeros(1, 48, 64, 3, dtype=torch.uint8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    trained = [weight.requires_grad for weight in model.parameters()]
    first = build_runner(model, "eager", "fp32", (64, 48))(images)
    assert [module.training for module in model.modules()] == modes
    assert [weight.requires_grad for weight in model.parameters()] == trained
    assert all(weight.grad is None for weight in model.parameters())
    assert model.state_dict().keys() == before.keys()
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        model.backbone.network.model.bn1.bias.add_(1)
    assert not build_runner(model, "eager", "fp32", (64, 48))(images).equal(first)


class Shared(PoseNetwork):
    """A convolution whose output is read twice, and one that two norms follow in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        x = x + self.norms[0](x)
        return self.norms[1](self.second(x)) + self.norms[2](self.second(x.relu()))


def test_what_others_read_too_is_not_folded() -> None:
    network, images = Shared().eval(), torch.randn(2, 3, 64, 96)
    train_norms(network)
    folded = fold_batch_norms(network, SIZE)
    torch.testing.assert_close(folded(images), network(images))
    assert count_norms(folded) == 3
