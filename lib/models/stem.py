"""The convolutional stem of TokenPose-S, with which HRNet begins too."""

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from lib.models.backbone import Backbone


class Stem(Backbone):
    """Two 3×3 convolutions of stride 2, then four bottlenecks: [B,3,H,W] -> [B,256,H/4,W/4]."""

    stride = 4
    channels = 256

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        downsample = nn.Sequential(nn.Conv2d(64, 256, 1, bias=False), nn.BatchNorm2d(256))
        self.layer1 = nn.Sequential(
            Bottleneck(64, 64, downsample=downsample), *(Bottleneck(256, 64) for _ in range(3))
        )

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], normalised -> [B, 256, H/4, W/4]."""
        x = images.contiguous(memory_format=torch.channels_last)
        x = self.bn1(self.conv1(x)).relu_()
        x = self.bn2(self.conv2(x)).relu_()
        return self.layer1(x)

    def init_weights(self) -> None:
        """Draw the convolutions as torchvision's ResNets do (He et al. 2015, fan out)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
