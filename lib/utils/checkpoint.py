"""Checkpoints: weights and training states, written atomically, read as untrusted files."""

import io
import logging
import pickle
import re
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from lib.utils.errors import UserError, as_user_error
from lib.utils.files import BLANK_SHA256, SHA256_KEY, atomic_write, seal, write_bytes
from lib.utils.text import join_names, shorten

log = logging.getLogger(__name__)

# Prefixes of wrappers, of the network or its parts: DataParallel, torch.compile, FSDP.
_WRAPPERS = r"(^|\.)((module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+"
# Names of dictionaries of weights in training checkpoints, the preferred first.
_PREFERRED = (r"(^|[_.])(ema|swa)($|[_.])", r"^best", r"^(model|state_dict|net|params|weights)")


class _Ignored:
    """Takes the place of what training checkpoints hold beside weights: nothing else is called."""

    def __init__(self, *arguments: object) -> None: ...

    __setstate__ = __init__


class _Dictionary:
    """Takes the place of other dictionaries, such as configurations, with their entries."""

    def __new__(cls, *arguments: object) -> Any:
        return OrderedDict()  # torch fills no subclass


_NAMES = """argparse.Namespace types.SimpleNamespace torch.torch_version.TorchVersion
    builtins.list builtins.dict builtins.int builtins.float builtins.frozenset builtins.getattr
    datetime.datetime datetime.date datetime.timedelta datetime.timezone
    pathlib.PosixPath pathlib.PurePosixPath pathlib.WindowsPath pathlib.PureWindowsPath
    pathlib._local.PosixPath pathlib._local.WindowsPath
    numpy.dtype numpy.ndarray numpy.core.multiarray.scalar numpy.core.multiarray._reconstruct
    numpy._core.multiarray.scalar numpy._core.multiarray._reconstruct
    mmengine.logging.history_buffer.HistoryBuffer"""
_DICTIONARIES = """collections.defaultdict yacs.config.CfgNode easydict.EasyDict
    addict.addict.Dict mmengine.config.config.ConfigDict"""
_IGNORED: list[Any] = [(_Ignored, name) for name in _NAMES.split()]
_IGNORED += [(_Dictionary, name) for name in _DICTIONARIES.split()]


@dataclass(frozen=True)
class PublishedNames:
    """The names of a network's weights in files of other codebases.

    `rename` are (pattern, replacement) of `re.sub`, applied in turn; `ignored` is a pattern of
    names, after renaming, that the network does not need.
    """

    rename: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = ()
    ignored: str = r"(?!)"  # nothing

    def apply(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights by the network's names; those that have them already keep them."""
        renamed = {}
        for name, value in weights.items():
            for pattern, replacement in self.rename:
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
    needed, stored = without_counters(model.state_dict()), read_weights(path)
    weights = by_names(model, stored)
    computed = dict(model.named_buffers())  # a sine position, for one
    extra = [name for name in weights if name not in needed and name not in computed]
    missing = [name for name in needed if name not in weights]
    if missing:
        hint = "use the configuration it was trained with"
        if len(missing) == len(needed):
            extra, hint = list(stored), "set MODEL.NAME to its network, or rename its weights"
        raise UserError(
            f"{path} does not fit this network: {join_names(missing)} missing ({len(missing)} of "
            f"{len(needed)}), not needed: {shorten(join_names(extra)) or 'none'}; {hint}"
        )
    wrong = [
        f"{name} is {list(weights[name].shape)}, the network's {list(value.shape)}"
        for name, value in needed.items()
        if weights[name].shape != value.shape
    ]
    if wrong:
        raise UserError(f"{path} has weights of other shapes: {join_names(wrong)}")
    broken = [name for name in needed if not weights[name].float().isfinite().all()]
    if broken:
        raise UserError(f"{path} has weights that are not finite, in {join_names(broken)}")
    model.load_state_dict({name: weights[name] for name in needed}, strict=False)
    unused = f"; {len(extra)} unused ({shorten(join_names(extra))})" if extra else ""
    log.info("loaded %d weights from %s%s", len(needed), path, unused)


def load_pretrained(model: nn.Module, path: str | Path, layers: Sequence[str] = ("*",)) -> None:
    """Start from those weights of a file that fit the network, as `MODEL.PRETRAINED` requires.

    `layers` names the backbone's layers or the network's modules to load (`conv1`, `layer1`,
    `transformer`); `*` loads all. UserError if the file cannot be read or nothing fits.
    """
    needed = without_counters(model.state_dict())
    fitting = {
        name: value
        for name, value in by_names(model, read_weights(path)).items()
        if name in needed and value.shape == needed[name].shape and is_of_layers(name, layers)
    }
    if not fitting:
        raise UserError(f"MODEL.PRETRAINED: {path} has no weights that fit this network")
    model.load_state_dict(fitting, strict=False)
    log.info("initialised %d of %d weights from %s", len(fitting), len(needed), path)


def is_of_layers(name: str, layers: Sequence[str]) -> bool:
    """Whether a weight belongs to the layers, as `load_pretrained` takes them."""
    return "*" in layers or any(module in layers for module in name.split(".")[:4])


def without_counters(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return all weights, including batch norm's statistics, but not its counters."""
    return {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}


def by_names(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a file's weights by the names of the network, or of its `published_names`.

    Prefixes such as `module.`, `_orig_mod.` and `model.` are removed if more weights fit then.
    """
    needed, names = model.state_dict().keys(), getattr(model, "published_names", PublishedNames())
    choices = [names.apply(weights), dict(weights)]
    weights = {re.sub(_WRAPPERS, r"\1", name): value for name, value in weights.items()}
    for _ in range(4):
        choices.append(names.apply(weights))
        prefix = Counter(name.partition(".")[0] for name in weights).most_common(1)[0][0]
        weights = {name.removeprefix(f"{prefix}."): value for name, value in weights.items()}
    return max(choices, key=lambda choice: len(needed & choice.keys()))


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the weights in a file by their names there; UserError if there are none.

    Of several an average (`model_ema`) is preferred, then `best_state_dict`; the log says so.
    """
    content = read_checkpoint(path)
    with as_user_error(f"{path} has no weights"):
        found = dict(_dictionaries(content))
        if not found:
            raise UserError(f"{path} has no weights: no dictionary of names and tensors")
        name, *others = sorted(found, key=lambda n: [not re.search(p, n) for p in _PREFERRED])
        if others:
            log.info("%s: taking its %s, not its %s", path, name, join_names(others))
        return dict(found[name])


def _dictionaries(
    content: object, name: str = "", depth: int = 2
) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Yield the dictionaries of weights in a checkpoint, and their names in it."""
    if isinstance(content, Mapping) and _is_weights(content):
        yield name, content
    elif isinstance(content, Mapping) and depth:
        for key, value in content.items():
            yield from _dictionaries(value, f"{name}.{key}".strip("."), depth - 1)


def _is_weights(content: Mapping[Any, Any]) -> bool:
    """Whether all entries have a name and are dense tensors with data, not quantized."""
    return len(content) > 0 and all(
        isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided
        and not (value.is_meta or value.is_quantized or value.is_nested)
        for name, value in content.items()
    )  # fmt: skip


def read_checkpoint(path: str | Path) -> Any:
    """Read a `.pth` or `.safetensors` file without running code in it; UserError if damaged."""
    with as_user_error(f"{path}: cannot read the checkpoint"):
        data = Path(path).read_bytes()
    try:
        if Path(path).suffix == ".safetensors":
            if SHA256_KEY.encode() in data and seal(data) != data:
                raise ValueError("its checksum is wrong")
            return safetensors.torch.load(data)
        _check_sums(data)
        with torch.serialization.safe_globals(_IGNORED):
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
    """Write a `.pth` file by `atomic_write`; UserError if it cannot be written."""
    memory = io.BytesIO()
    torch.save(content, memory)
    with atomic_write(path, keep_previous) as temporary:
        temporary.write_bytes(memory.getbuffer())


def save_weights(weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Write weights to `path`, a `.pth` file, and to a `.safetensors` file next to it."""
    save_checkpoint(_on_cpu(weights), path)
    save_safetensors(weights, Path(path).with_suffix(".safetensors"))


def save_safetensors(
    weights: Mapping[str, Tensor], path: str | Path, dtype: torch.dtype | None = None
) -> None:
    """Write a `.safetensors` file by `atomic_write`; all but counters become `dtype`, if given."""
    metadata = {"format": "pt", SHA256_KEY: BLANK_SHA256}
    write_bytes(Path(path), seal(safetensors.torch.save(_on_cpu(weights, dtype), metadata)))


def _on_cpu(weights: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    return {
        name: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous()
        for name, value in weights.items()
    }
