"""What every backbone has in common: features, normalisation, frozen stages."""

from collections.abc import Sequence

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

Channels3 = tuple[float, float, float]


class Backbone(nn.Module):
    """What a network asks of its backbone: images [B, 3, H, W] -> [B, channels, H/s, W/s].

    `stride` s is image pixels a feature cell; `strides` are those of all its `features`. Images are
    normalised with `mean` and `std`, of RGB in the range 0 to 1. TRAIN.FROZEN_STAGES freezes some
    of its `stages`.
    """

    stride: int
    strides: Sequence[int] = ()  # empty: only `stride`
    channels: int
    stages: int = 1
    mean: Channels3 = IMAGENET_DEFAULT_MEAN
    std: Channels3 = IMAGENET_DEFAULT_STD

    def features(self, images: Tensor) -> dict[int, Tensor]:
        """Return all feature maps by their stride; here only that of `forward`."""
        return {self.stride: self(images)}

    @property
    def feature_channels(self) -> dict[int, int]:
        """Channels of the maps of `features`, by stride."""
        return {self.stride: self.channels}

    def init_weights(self) -> None:
        """Draw the initial weights, unless torch's defaults are used."""

    def stage_parameters(self, stages: int) -> list[nn.Parameter]:
        """Return the weights of the first stages; here the backbone is one stage."""
        return list(self.parameters()) if stages else []

    def freeze(self, stages: int) -> None:
        """Train the first stages no more: neither their weights nor their batch norms."""
        for weight in self.stage_parameters(stages):
            weight.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        """Set the mode; frozen layers stay in evaluation."""
        super().train(mode)
        for module in self.modules():
            weights = list(module.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                nn.Module.train(module, False)  # eval() of the backbone itself would come back here
        return self
