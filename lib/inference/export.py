"""Export to ONNX, OpenVINO or fp16 weights; a file is kept only if it computes what eager does."""

import copy
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

import lib
from lib.config.check import value_of
from lib.dataset import build_dataset, build_skeleton
from lib.dataset.images import read_image
from lib.dataset.transforms import box_to_center_scale, crop_image, crop_matrix
from lib.inference import tracing
from lib.inference.exported import SECTION, open_exported, settings
from lib.inference.pipeline import PixelsToJoints, build_decoding
from lib.inference.tracing import HEATMAPS, IMAGES, JOINTS, SCORES, Outputs
from lib.models import build_model
from lib.utils.checkpoint import load_weights, read_weights, save_safetensors
from lib.utils.errors import UserError
from lib.utils.files import BLANK_SHA256, SHA256_KEY, atomic_write, seal
from lib.utils.text import is_valid_path, join_names

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "weights": ".safetensors"}  # by file format
MAX_CROPS = 8  # to check on

MEDIAN_TOLERANCE = 1e-5  # of the heatmaps' spread, median over crops; right exports: 1e-6
HALF_TOLERANCE = 2e-2  # the same of weights rounded to fp16; a trained network: 2e-3
MAX_TOLERANCE = 5e-2  # the same of any crop; one token of 24 moves heatmaps by 3e-2
JOINT_TOLERANCE = 0.05  # pixels of the crop
MIN_AGREEMENT = 0.95  # share of joints; a decoder that is wrong for one of 16 or 17 has less


@dataclass(frozen=True)
class Check:
    """How far an exported file is from eager, over crops.

    Differences are of heatmap cells and scores, as shares of the spread of eager's heatmaps. Median
    and maximum have separate limits because pruning decides: of two scores that are equal but for
    rounding, a runtime may keep the other one, which moves the heatmaps of that crop a little.
    """

    median: float
    maximum: float
    joints: float | None  # share within JOINT_TOLERANCE of eager's from the same heatmaps
    tolerance: float = MEDIAN_TOLERANCE  # of `median`

    @property
    def agrees(self) -> bool:
        """Whether the file may be used; False if a number is NaN."""
        is_close = self.median <= self.tolerance and self.maximum <= MAX_TOLERANCE
        return is_close and (self.joints is None or self.joints >= MIN_AGREEMENT)

    def __str__(self) -> str:
        joints = "" if self.joints is None else f"; {self.joints:.1%} of the joints agree"
        return (
            f"heatmaps differ from PyTorch's by {self.median:.1e} of their spread (median over "
            f"crops), at most {self.maximum:.1e}{joints}"
        )


@torch.no_grad()
def compare(
    network: PixelsToJoints, file: Outputs, crops: Tensor, tolerance: float = MEDIAN_TOLERANCE
) -> Check:
    """Compare `file` with eager on crops uint8 [N, h, w, 3], one alone, the rest in a batch."""
    batches = [batch for batch in (crops[:1], crops[1:]) if len(batch)]
    expected = torch.cat([network.heatmaps(batch) for batch in batches])
    outputs = [file(batch) for batch in batches]
    heatmaps, *decoded = (torch.cat(column) for column in zip(*outputs, strict=True))
    difference = (heatmaps - expected).abs().flatten(1).amax(dim=1)
    agreement = None
    if decoded:
        (joints, scores), (expected_joints, expected_scores) = decoded, network.decode(heatmaps)
        difference = difference.maximum((scores - expected_scores).abs().amax(dim=1))
        distance = (joints - expected_joints).norm(dim=-1)
        agreement = (distance <= JOINT_TOLERANCE).float().mean().item()
    share = difference / (expected.max() - expected.min())
    return Check(share.median().item(), share.max().item(), agreement, tolerance)


def export(
    cfg: CfgNode,
    weights: str | Path,
    path: Path,
    crops: Tensor,
    *,
    file_format: str,
    decode: bool,
    finish: Callable[[Path], object] | None = None,
) -> Check:
    """Export the network of a checkpoint to `path`, as `onnx`, `openvino` or `weights`.

    The file takes any number of crops, uint8 [B, h, w, 3], and returns heatmaps [B, J, h', w'];
    with `decode` also joints [B, J, 2] in crop pixels and scores [B, J]; `weights` are rounded to
    fp16, for `load_weights`. It is compared with eager on `crops`, which should be real ones; then
    `finish` may change it. UserError, with nothing left on disk, if they differ, or a file cannot
    be read or written.
    """
    if path.suffix != SUFFIXES[file_format]:
        raise UserError(f"{path}: a file of format {file_format} ends in {SUFFIXES[file_format]}")
    model = build_model(cfg)
    load_weights(model, weights)
    decoding = build_decoding(cfg, build_skeleton(cfg))
    network = PixelsToJoints(model, tuple(cfg.MODEL.IMAGE_SIZE), decoding).eval()
    with ExitStack() as stack:
        if file_format == "openvino":
            tracing.import_openvino()  # fails before any work, as `touch` below
            stack.enter_context(atomic_write(path.with_suffix(".bin"))).touch()  # its weights
        temporary = stack.enter_context(atomic_write(path))
        temporary.touch()
        if file_format == "weights":
            check = compare(network, _save_half(network, temporary), crops, HALF_TOLERANCE)
        else:
            program = tracing.trace(network if decode else network.heatmaps, network.size)
            outputs = [HEATMAPS, JOINTS, SCORES] if decode else [HEATMAPS]
            convert, save = _WRITERS[file_format]
            save(convert(program, outputs), describe(cfg, decode), temporary)
            check = compare(network, open_exported(temporary)[1], crops)
        if not check.agrees:
            raise UserError(f"{path} is not written, it would be wrong: {check}")
        if finish is not None:
            finish(temporary)
    return check


def describe(cfg: CfgNode, decode: bool) -> dict[str, str]:
    """Return the metadata of an exported file."""
    order = "RGB" if cfg.DATASET.COLOR_RGB else "BGR"
    corner = "corner cells are at those" if cfg.DATASET.UNBIASED else "first cell is at that"
    metadata = {
        **settings(cfg),
        SHA256_KEY: BLANK_SHA256,
        "joint_names": json.dumps(build_skeleton(cfg).names),
        IMAGES: f"uint8 [batch, height, width, 3], {order}, crops of one person each; "
        "the network normalises them",
        HEATMAPS: f"float32 [batch, joint, height, width]; the centers of the {corner} of the "
        "crop's corner pixels",
    }
    if decode:
        pixels = "pixels of the crop, 0 is the center of the first pixel"
        metadata[JOINTS] = f"float32 [batch, joint, 2], (x, y) in {pixels}"
        metadata[SCORES] = "float32 [batch, joint], the highest value of each heatmap"
        for key in ("TEST.POST_PROCESS", "TEST.REFINEMENT", "TEST.BLUR_KERNEL"):
            metadata[key] = json.dumps(value_of(cfg, key))
    return metadata


def save_onnx(model: Any, metadata: dict[str, str], path: Path) -> None:
    """Write an `onnx.ModelProto` with metadata, and a checksum in it."""
    model.producer_name, model.producer_version = "improved-tokenpose-sparsity", lib.__version__
    model.ClearField("metadata_props")
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(seal(model.SerializeToString()))


def save_openvino(model: Any, metadata: dict[str, str], path: Path) -> None:
    """Write an `openvino.Model`, .xml and .bin, with metadata, and a checksum in it."""
    for key, value in metadata.items():
        model.set_rt_info(value, [SECTION, key])
    tracing.import_openvino().save_model(model, path, compress_to_fp16=False)
    path.write_bytes(seal(path.read_bytes(), path.with_suffix(".bin").read_bytes()))


_WRITERS = {
    "onnx": (tracing.to_onnx, save_onnx),
    "openvino": (tracing.to_openvino, save_openvino),
}


def _save_half(network: PixelsToJoints, path: Path) -> Outputs:
    """Write the weights in fp16; return the heatmaps that the file gives."""
    rounded = copy.deepcopy(network.heatmaps)
    save_safetensors(rounded.network.state_dict(), path, torch.float16)
    weights = read_weights(path)
    large = [name for name, value in weights.items() if not value.isfinite().all()]
    if large:
        raise UserError(f"fp16 holds numbers up to 65504, which {join_names(large)} exceeds")
    rounded.network.load_state_dict(weights)
    return lambda crops: [rounded(crops)]


def crops_of_set(
    cfg: CfgNode, count: int = MAX_CROPS, problem: str = "name images to check on with --images"
) -> tuple[Tensor, str]:
    """Return crops spread over the test set, uint8 [N, h, w, 3], and a description of them.

    UserError, with the `problem` that this is, if it cannot be read.
    """
    try:
        dataset = build_dataset(cfg, "test")
        people = range(0, len(dataset), max(1, len(dataset) // count))[:count]
        crops = torch.from_numpy(np.stack([dataset[index]["image"] for index in people]))
    except UserError as error:
        raise UserError(f"{problem}: {error}") from None
    return crops, f"{len(crops)} people of {dataset.annotation.path}"


def crops_of_images(cfg: CfgNode, path: Path) -> tuple[Tensor, str]:
    """Return whole images, one file or the first of a folder, as `crops_of_set` does."""
    files = [path]
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if is_valid_path(str(file))]
        files = [file for file in files if cv2.haveImageReader(str(file))]
    if not files:
        raise UserError(f"{path} has no images to check the export on")
    size, crops = cfg.MODEL.IMAGE_SIZE, []
    for file in files[:MAX_CROPS]:
        image = read_image(file, cfg.DATASET.MAX_PIXELS)
        view = box_to_center_scale((0, 0, *image.shape[1::-1]), size)
        matrix = crop_matrix(*view, 0.0, size, unbiased=cfg.DATASET.UNBIASED)
        crop = crop_image(image, matrix, size, cfg.TEST.SMOOTH_CROP)
        crops.append(crop if cfg.DATASET.COLOR_RGB else crop[..., ::-1])
    return torch.from_numpy(np.stack(crops)), f"{len(crops)} images from {path}"
