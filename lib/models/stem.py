"""The convolutional stem: image to feature map of stride 4."""

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck as TorchvisionBottleneck

from lib.models.layers import conv_norm


class Bottleneck(TorchvisionBottleneck):
    """torchvision's ResNet bottleneck, whose batch norms fold away in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, h, w] -> [B, 4·planes, h, w]."""
        skip = x if self.downsample is None else conv_norm(*self.downsample, x)
        x = conv_norm(self.conv1, self.bn1, x).relu_()
        x = conv_norm(self.conv2, self.bn2, x).relu_()
        return conv_norm(self.conv3, self.bn3, x).add_(skip).relu_()


class Stem(nn.Module):
    """Two 3×3 convolutions of stride 2, then four bottlenecks: [B,3,H,W] -> [B,256,H/4,W/4]."""

    out_channels = 256
    stride = 4

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        widen = nn.Sequential(nn.Conv2d(64, 256, 1, bias=False), nn.BatchNorm2d(256))
        self.layer1 = nn.Sequential(
            Bottleneck(64, 64, downsample=widen), *(Bottleneck(256, 64) for _ in range(3))
        )

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], ImageNet-normalised -> [B, 256, H/4, W/4]."""
        x = images.contiguous(memory_format=torch.channels_last)
        x = conv_norm(self.conv1, self.bn1, x).relu_()
        x = conv_norm(self.conv2, self.bn2, x).relu_()
        return self.layer1(x)

    def init_weights(self) -> None:
        """Draw the convolutions as torchvision's ResNets do (He et al. 2015, fan out)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
