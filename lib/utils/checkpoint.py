"""Checkpoints: weights and training states, written whole or not at all, read without trust.

Every file that is written here carries a SHA-256 of its content: `.pth` in the comment that ends
the zip archive that it is, `.safetensors` in its metadata. PyTorch's reader notices no flipped bit.
"""

import hashlib
import io
import logging
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from lib.utils.errors import UserError
from lib.utils.files import replacing
from lib.utils.text import some

FORMAT = 1  # of checkpoint.pth, so that later readers can tell

log = logging.getLogger(__name__)

_BLOCK = r"^((?:joint_layers|transformer\.blocks)\.\d+)\."
# From the names of the published codebases to ours, applied in turn.
_RENAME = (
    (r"^(module\.)+", ""),
    (r"^features\.", ""),
    (r"^(conv|bn|layer)(\d)", r"stem.\1\2"),
    (r"^patch_to_embedding\.", "patches."),
    (r"^keypoint_token$", "keypoint_tokens"),
    (r"^pos_embedding$", "transformer.position.table"),
    (r"^joint_transformer\.layers\.", "joint_layers."),
    (r"^transformer\.layers\.", "transformer.blocks."),
    (_BLOCK + r"0\.(fn\.)?norm\.", r"\1.norm1."),
    (_BLOCK + r"0\.(fn\.)+to_qkv\.", r"\1.attention.qkv."),
    (_BLOCK + r"0\.(fn\.)+to_out\.0\.", r"\1.attention.out."),
    (_BLOCK + r"1\.fn\.norm\.", r"\1.norm2."),
    (_BLOCK + r"1\.fn\.fn\.net\.0\.", r"\1.mlp.0."),
    (_BLOCK + r"1\.fn\.fn\.net\.3\.", r"\1.mlp.2."),
    (r"^mlp_head\.", "head."),
)
# What a file may hold and no network needs: counters, fixed tables, published left-overs.
_LEFT_OVER = re.compile(r"num_batches_tracked$|(^|\.)joint_mask$|transformer\.norm\.")


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a file's weights into the model; log in one line what was loaded.

    Takes our files and those of the published codebases, weights alone or a whole training
    checkpoint, as `.pth` or `.safetensors`. UserError where the file cannot be read or a weight of
    the network is missing or has another shape; the model is then as it was.
    """
    weights = _rename(read_weights(path))
    wanted = _needed(model)
    missing = [name for name in wanted if name not in weights]
    if missing:
        raise UserError(
            f"{path} is not of this network: {some(missing)} missing "
            f"({len(missing)} of {len(wanted)}); test with the configuration it was trained with"
        )
    _check_shapes({name: weights[name] for name in wanted}, wanted, path)
    broken = [name for name in wanted if not weights[name].isfinite().all()]
    if broken:
        raise UserError(f"{path} holds numbers that are not finite, in {some(broken)}")
    model.load_state_dict({name: weights[name] for name in wanted}, strict=False)
    extra = [name for name in weights if name not in wanted and not _is_fixed(name, model)]
    left = f"; {len(extra)} not of this network left out ({some(extra)})" if extra else ""
    log.info("loaded %d weights from %s%s", len(wanted), path, left)


def load_pretrained(model: nn.Module, path: str | Path, layers: Sequence[str] = ("*",)) -> None:
    """Start from those weights of a file that the network has too, as `MODEL.PRETRAINED` asks.

    `layers` names the stem's layers or our modules to take (`conv1`, `layer1`, `transformer`); `*`
    takes all. UserError where the file cannot be read or nothing fits.
    """
    wanted = _needed(model)
    fitting = {
        name: value
        for name, value in _rename(read_weights(path)).items()
        if name in wanted
        and value.shape == wanted[name].shape
        and ("*" in layers or any(part in layers for part in name.split(".")[:2]))
    }
    if not fitting:
        raise UserError(f"MODEL.PRETRAINED: {path} has no weight that fits this network")
    model.load_state_dict(fitting, strict=False)
    log.info("started from %d of %d weights, from %s", len(fitting), len(wanted), path)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the weights in a file by their names there; UserError where there are none."""
    if Path(path).suffix == ".safetensors":
        content: Any = _read(path, _load_safetensors)
    else:
        content = read_checkpoint(path)
    for key in ("ema", "model", "state_dict"):  # of a training checkpoint: ours, the family's
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path} holds no weights")
    strange = [
        str(name)
        for name, value in content.items()
        if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if strange:
        raise UserError(f"{path} holds no weights: {some(strange)} are not tensors")
    return dict(content)


def read_checkpoint(path: str | Path, sealed: bool = False) -> Any:
    """Read a `.pth` file without running any code in it; UserError where that cannot be done.

    `sealed` asks for the checksum that our files carry; where a file has one it must be right.
    """
    return _read(path, lambda file: _load_pth(file, sealed))


def save_atomically(content: Any, path: str | Path, keeps_previous: bool = False) -> None:
    """Write a `.pth` file, with its checksum; UserError where it cannot be written.

    A crash at any instant leaves the old file or the new one; `keeps_previous` as of `replacing`.
    """
    memory = io.BytesIO()
    torch.save(content, memory)
    with replacing(path, keeps_previous) as aside, aside.open("wb") as file:
        file.write(_seal(memory.getbuffer()[:-2]))


def save_weights(weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Write weights as `path`, a `.pth` file, and beside it as `.safetensors`."""
    plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    save_atomically(plain, path)
    with replacing(Path(path).with_suffix(".safetensors")) as aside:
        marks = {"format": "pt", "sha256": _digest(plain)}
        aside.write_bytes(safetensors.torch.save(plain, marks))


def _seal(archive: memoryview) -> bytes:
    """An archive whose last two bytes, the length of its comment, are cut off -> with checksum."""
    digest = hashlib.sha256(archive).hexdigest().encode()
    return b"".join((archive, len(digest).to_bytes(2, "little"), digest))


def _load_pth(path: str, sealed: bool) -> Any:
    data = Path(path).read_bytes()
    length = hashlib.sha256().digest_size * 2
    end = len(data) - length - 2
    if data[end : end + 2] == length.to_bytes(2, "little"):
        if _seal(memoryview(data)[:end]) != data:
            raise ValueError("its checksum is wrong")
    elif sealed:
        raise ValueError("its checksum is missing")
    elif zipfile.is_zipfile(io.BytesIO(data)):
        _check_zip(data)
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _check_zip(data: bytes) -> None:
    """Heed the sums that the archives of others carry; PyTorch does not look at them."""
    end = data.rfind(b"PK\5\6")  # the record that ends an archive, and then its comment
    if end + 22 + int.from_bytes(data[end + 20 : end + 22], "little") != len(data):
        raise ValueError("its end is missing")
    broken = zipfile.ZipFile(io.BytesIO(data)).testzip()
    if broken:
        raise ValueError(f"the checksum of {broken} is wrong")


def _load_safetensors(path: str) -> dict[str, Tensor]:
    weights = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, "pt") as file:
        digest = (file.metadata() or {}).get("sha256")
    if digest is not None and digest != _digest(weights):
        raise ValueError("its checksum is wrong")
    return weights


def _digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, in the order of the names."""
    found = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name]
        found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        found.update(value.contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def _read(path: str | Path, reader: Callable[[str], Any]) -> Any:
    try:
        return reader(str(path))
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a checkpoint") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} is no checkpoint, or it holds objects that could run code; nothing was loaded"
        ) from None
    # A damaged file can make the readers fail in any way.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"cannot read {path}, is it whole? ({reason})") from None


def _rename(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give published weights our names; drop what no network needs."""
    renamed = {}
    for name, value in weights.items():
        for pattern, ours in _RENAME:
            name = re.sub(pattern, ours, name)
        if not _LEFT_OVER.search(name):
            renamed[name] = value
    return renamed


def _needed(model: nn.Module) -> dict[str, Tensor]:
    """Every weight of the network, batch norm's running statistics among them."""
    return {
        name: value for name, value in model.state_dict().items() if not _LEFT_OVER.search(name)
    }


def _is_fixed(name: str, model: nn.Module) -> bool:
    """Whether the network computes that table itself (a sine position)."""
    return name in dict(model.named_buffers())


def _check_shapes(weights: dict[str, Tensor], wanted: dict[str, Tensor], path: str | Path) -> None:
    wrong = [
        f"{name} is {list(weights[name].shape)}, the network's {list(value.shape)}"
        for name, value in wanted.items()
        if weights[name].shape != value.shape
    ]
    if wrong:
        raise UserError(f"{path} is of another shape: {some(wrong)}")
