"""Any network of timm as a backbone."""

import functools
from collections.abc import Mapping
from typing import Any, cast

import timm
import torch
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from lib.models.backbone import Backbone, Channels3
from lib.models.transformer import Linear
from lib.utils.errors import UserError


class TimmBackbone(Backbone):
    """Feature maps of a timm network, which normalises as its trained weights require.

    Layers behind the last feature map are left out. Weights are random until `load_trained`.
    """

    network: FeatureGetterNet

    def __init__(
        self,
        name: str,
        stride: int,
        strides: tuple[int, ...] = (),
        image_size: tuple[int, int] = (256, 256),
    ) -> None:
        """`forward` gives the features of `stride`; `features` those and the ones of `strides`."""
        super().__init__()
        known = feature_strides(name)
        self.name, self.stride = name, stride
        self.strides = sorted({stride, *strides})
        # Of several levels with a stride, as in a plain ViT, the last.
        self._levels = [len(known) - 1 - known[::-1].index(stride) for stride in self.strides]
        self._image_size = image_size
        trained = timm.get_pretrained_cfg(name)
        has_fixed_size = trained is not None and trained.fixed_input_size
        self._options = {"img_size": image_size[::-1]} if has_fixed_size else {}
        self.network = self._create()
        if trained is not None:
            self.mean, self.std = cast(Channels3, trained.mean), cast(Channels3, trained.std)

    @property
    def feature_channels(self) -> dict[int, int]:
        """Channels of the maps of `features`, by stride."""
        return dict(zip(self.strides, self.network.feature_info.channels(), strict=True))

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Channels of the map of `forward`."""
        return self.feature_channels[self.stride]

    def features(self, images: Tensor) -> dict[int, Tensor]:
        """[B, 3, H, W], normalised -> {s: [B, C, H/s, W/s]}."""
        maps = self.network(images.contiguous(memory_format=torch.channels_last))
        return dict(zip(self.strides, maps, strict=True))

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], normalised -> [B, channels, H/stride, W/stride]."""
        return self.features(images)[self.stride]

    def stage_parameters(self, stages: int) -> list[nn.Parameter]:
        """Return the weights that the first `stages` of timm's feature maps depend on."""
        if not stages:
            return []
        weights = [weight for weight in self.network.parameters() if weight.requires_grad]
        width, height = self._image_size
        training = self.training
        self.eval()
        model = cast(Any, self.network.model)
        with torch.enable_grad():
            (feature,) = model.forward_intermediates(
                torch.zeros(1, 3, height, width), indices=[stages - 1], intermediates_only=True
            )
            gradients = torch.autograd.grad(feature.sum(), weights, allow_unused=True)
        self.train(training)
        return [w for w, gradient in zip(weights, gradients, strict=True) if gradient is not None]

    def load_trained(self, weights: Mapping[str, Tensor] | None = None) -> None:
        """Load weights by timm's names, None: timm's own; UserError if they do not come or fit."""
        overlay = None
        hint = "download failed, or there are none; offline, name a file or an installed package"
        if weights is not None:
            _check_names(weights, self.network.model.state_dict(), self.name)
            overlay = {"state_dict": dict(weights)}
            hint = "these are another network's"
        try:
            trained = self._create(pretrained=True, pretrained_cfg_overlay=overlay)
        except Exception as error:  # of huggingface_hub, the network, or a weight's shape
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"no trained weights for {self.name}: {hint} ({lines[-1].strip()[:160]})"
            ) from None
        self.load_state_dict({f"network.{k}": v for k, v in trained.state_dict().items()})

    def _create(self, **options: Any) -> FeatureGetterNet:
        network = _create_network(self.name, out_indices=self._levels, **self._options, **options)
        for module in network.modules():
            if type(module) is nn.Linear:
                module.__class__ = Linear  # with the same weights
        return network


@functools.cache
def feature_strides(name: str) -> tuple[int, ...]:
    """Return the strides of all feature maps of a timm network; UserError if it has none."""
    try:
        with torch.device("meta"):
            # Not `reduction()`, which has the last three of a plain ViT only.
            network = _create_network(name)
            if not hasattr(network.model, "forward_intermediates"):  # which some lack in older timm
                raise AttributeError("it has no forward_intermediates")
            levels = cast(list[dict[str, int]], network.feature_info.info)
            return tuple(level["reduction"] for level in levels)
    except (RuntimeError, AttributeError, AssertionError, TypeError, ValueError) as error:
        raise UserError(f"MODEL.BACKBONE: timm gives no features of {name}: {error}") from None


def _create_network(name: str, **options: Any) -> FeatureGetterNet:
    network = timm.create_model(name, features_only=True, feature_cls="getter", **options)
    return cast(FeatureGetterNet, network)


def _check_names(weights: Mapping[str, Tensor], needed: Mapping[str, Tensor], name: str) -> None:
    """UserError unless weights are of a timm network: all `needed`, and none that it has not."""
    missing = [key for key in needed if key not in weights and "num_batches" not in key]
    with torch.device("meta"):
        whole = timm.create_model(name).state_dict()
    unknown = [key for key in weights if key not in whole]
    if missing or unknown:
        problem = f"{missing[0]} is missing" if missing else f"it has no {unknown[0]}"
        raise UserError(f"these are not the weights of {name}: {problem}")
    broken = [key for key in needed if key in weights and not weights[key].isfinite().all()]
    if broken:
        raise UserError(f"{broken[0]} has values that are not finite")
