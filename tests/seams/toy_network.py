"""A small convolutional network: the example of a network in CONTRIBUTING.md."""

from torch import Tensor, nn
from yacs.config import CfgNode

from lib.config.check import Rule, check
from lib.models import ModelSpec, PoseNetwork


class ToyNetwork(PoseNetwork):
    """Three convolutions: images [B, 3, H, W] -> heatmaps [B, J, H/2, W/2]."""

    mean = (0.5, 0.5, 0.5)  # of its input; ImageNet's by default
    std = (0.25, 0.25, 0.25)

    def __init__(self, width: int, num_joints: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 5, padding=2), nn.ReLU())
        self.head = nn.Conv2d(width, num_joints, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.layer1(self.bn1(self.conv1(images))))


def build_toy(cfg: CfgNode) -> ToyNetwork:
    return ToyNetwork(cfg.MODEL.EXTRA.get("WIDTH", 16), cfg.MODEL.NUM_JOINTS)


def check_toy(cfg: CfgNode) -> None:
    half = [side // 2 for side in cfg.MODEL.IMAGE_SIZE]
    rule = Rule("MODEL.HEATMAP_SIZE", f"be {half}", lambda size, cfg: list(size) == half)
    check(cfg, [rule])


TOY_NETWORK = ModelSpec(build=build_toy, check=check_toy)
