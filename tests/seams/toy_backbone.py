"""A backbone of stride 8: the example in CONTRIBUTING.md."""

from torch import Tensor, nn

from lib.models.backbones import Backbone


class ToyBackbone(Backbone):
    """Two convolutions: images [B, 3, H, W] -> [B, 16, H/8, W/8]."""

    stride = 8
    channels = 16
    mean = (51 / 255, 102 / 255, 153 / 255)
    std = (0.2, 0.2, 0.2)

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        self.mixer = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.mixer(self.patches(images).relu())
