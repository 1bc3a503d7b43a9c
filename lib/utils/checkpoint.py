"""Checkpoints: weights and training states, written atomically, read as untrusted files."""

import io
import logging
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from lib.utils.errors import UserError
from lib.utils.files import atomic_write
from lib.utils.text import join_names

log = logging.getLogger(__name__)

_DATA_PARALLEL = (r"^(module\.)+", "")  # the prefix of networks saved inside DataParallel


@dataclass(frozen=True)
class PublishedNames:
    """The names of a network's weights in files of other codebases.

    `rename` are (pattern, replacement) of `re.sub`, applied in turn; `ignored` is a pattern of
    names, after renaming, that the network does not need.
    """

    rename: tuple[tuple[str, str], ...] = ()
    ignored: str = r"(?!)"  # nothing

    def apply(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights by the network's names; those that have them already keep them."""
        renamed = {}
        for name, value in weights.items():
            for pattern, replacement in (_DATA_PARALLEL, *self.rename):
                name = re.sub(pattern, replacement, name)
            if not re.search(self.ignored, name):
                renamed[name] = value
        return renamed


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a file's weights into the model; log in one line what was loaded.

    Takes our files and those of the codebases that `model.published_names` describes, weights alone
    or a whole training checkpoint, as `.pth` or `.safetensors`. UserError if the file cannot be
    read or a weight of the network is missing or has another shape; the model is then unchanged.
    """
    needed, weights = _needed_weights(model), _renamed_weights(model, path)
    missing = [name for name in needed if name not in weights]
    if missing:
        raise UserError(
            f"{path} does not fit this network: {join_names(missing)} missing "
            f"({len(missing)} of {len(needed)}); use the configuration it was trained with"
        )
    wrong = [
        f"{name} is {list(weights[name].shape)}, the network's {list(value.shape)}"
        for name, value in needed.items()
        if weights[name].shape != value.shape
    ]
    if wrong:
        raise UserError(f"{path} has weights of other shapes: {join_names(wrong)}")
    broken = [name for name in needed if not weights[name].isfinite().all()]
    if broken:
        raise UserError(f"{path} has weights that are not finite, in {join_names(broken)}")
    model.load_state_dict({name: weights[name] for name in needed}, strict=False)
    computed = dict(model.named_buffers())  # a sine position, for one
    extra = [name for name in weights if name not in needed and name not in computed]
    unused = f"; {len(extra)} unused ({join_names(extra)})" if extra else ""
    log.info("loaded %d weights from %s%s", len(needed), path, unused)


def load_pretrained(model: nn.Module, path: str | Path, layers: Sequence[str] = ("*",)) -> None:
    """Start from those weights of a file that fit the network, as `MODEL.PRETRAINED` requires.

    `layers` names the backbone's layers or the network's modules to load (`conv1`, `layer1`,
    `transformer`); `*` loads all. UserError if the file cannot be read or nothing fits.
    """
    needed = _needed_weights(model)
    fitting = {
        name: value
        for name, value in _renamed_weights(model, path).items()
        if name in needed
        and value.shape == needed[name].shape
        and ("*" in layers or any(module in layers for module in name.split(".")[:2]))
    }
    if not fitting:
        raise UserError(f"MODEL.PRETRAINED: {path} has no weights that fit this network")
    model.load_state_dict(fitting, strict=False)
    log.info("initialised %d of %d weights from %s", len(fitting), len(needed), path)


def _needed_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return all weights of the network, including batch norm's running statistics."""
    return {name: value for name, value in model.state_dict().items() if not _is_counter(name)}


def _renamed_weights(model: nn.Module, path: str | Path) -> dict[str, Tensor]:
    """Read the weights in a file by the model's names."""
    names = getattr(model, "published_names", PublishedNames())
    weights = names.apply(read_weights(path))
    return {name: value for name, value in weights.items() if not _is_counter(name)}


def _is_counter(name: str) -> bool:
    """Whether this is a counter of batch norm, which no output depends on."""
    return name.endswith("num_batches_tracked")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the weights in a file by their names there; UserError if there are none."""
    content = read_checkpoint(path)
    for key in ("ema", "model", "state_dict"):  # of a training checkpoint: ours, the family's
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path} has no weights")
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        raise UserError(f"{path} has no weights: not all of its entries are tensors with a name")
    return dict(content)


def read_checkpoint(path: str | Path) -> Any:
    """Read a `.pth` or `.safetensors` file without running any code in it.

    UserError if it cannot be read.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the checkpoint ({error.strerror})") from None
    try:
        if Path(path).suffix == ".safetensors":
            return safetensors.torch.load(data)
        _check_sums(data)
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} is not a checkpoint, or has objects that could run code; nothing was loaded"
        ) from None
    except Exception as error:  # a damaged file can make the readers fail in any way
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"cannot read {path}, it may be damaged ({reason})") from None


def _check_sums(data: bytes) -> None:
    """ValueError if a checksum of a `.pth` file is wrong, which PyTorch does not check."""
    if zipfile.is_zipfile(io.BytesIO(data)):  # not the format of torch before 1.6
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            broken = archive.testzip()
        if broken:
            raise ValueError(f"the checksum of {broken} is wrong")


def save_checkpoint(content: Any, path: str | Path, keep_previous: bool = False) -> None:
    """Write a `.pth` file atomically; `keep_previous` as of `atomic_write`.

    UserError if it cannot be written.
    """
    memory = io.BytesIO()
    torch.save(content, memory)
    with atomic_write(path, keep_previous) as temporary:
        temporary.write_bytes(memory.getbuffer())


def save_weights(weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Write weights to `path`, a `.pth` file, and to a `.safetensors` file next to it."""
    plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    save_checkpoint(plain, path)
    save_safetensors(plain, Path(path).with_suffix(".safetensors"))


def save_safetensors(
    weights: Mapping[str, Tensor], path: str | Path, dtype: torch.dtype | None = None
) -> None:
    """Write a `.safetensors` file atomically; weights other than counters become `dtype`, if given.

    UserError if it cannot be written.
    """
    plain = {
        name: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous()
        for name, value in weights.items()
    }
    with atomic_write(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(plain, {"format": "pt"}))
