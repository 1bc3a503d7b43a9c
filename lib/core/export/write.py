"""Writing a network for other runtimes; each file is checked against eager before it is kept."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

import lib
from lib.core.export.check import Check, Probe, compare, probe_onnx, probe_openvino
from lib.core.model_file import FORMAT, SECTION, digest, is_exported, settings
from lib.core.tracing import (
    HEATMAPS,
    IMAGES,
    JOINTS,
    SCORES,
    ToJoints,
    import_openvino,
    to_onnx,
    to_openvino,
    trace,
)
from lib.dataset import annotation_path, build_dataset
from lib.dataset.images import decode_image
from lib.dataset.skeleton import skeleton_of
from lib.dataset.transforms import PIXELS_PER_SCALE, crop_image, crop_matrix
from lib.models import build_model
from lib.utils.checkpoint import load_weights
from lib.utils.errors import UserError
from lib.utils.files import replacing

ENDINGS = {"onnx": ".onnx", "openvino": ".xml"}

_PRUNING = {
    "none": "nothing is pruned",
    "connection": "pruned connections between visual tokens have weight 0",
    "token": "pruned visual tokens leave the sequence",
}
_MOST = 8  # crops to check on


def export(
    cfg: CfgNode, weights: str | Path, path: str | Path, crops: Tensor, *, kind: str, decode: bool
) -> Check:
    """Write the network of a checkpoint to `path`, as `onnx` or `openvino`.

    The file takes crops uint8 [B, h, w, 3], any number of them, and gives heatmaps [B, J, h', w'],
    or with `decode` joints [B, J, 2] in pixels of the crop and scores [B, J], as the TEST keys
    find them. What was written is run on `crops`, real ones, against eager. UserError, with nothing
    left on the disk, where it differs by more than rounding, and for whatever cannot be read or
    written.
    """
    path = Path(path)
    if path.suffix != ENDINGS[kind]:
        raise UserError(f"{path}: a file of format {kind} should end in {ENDINGS[kind]}")
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    if is_exported(weights):
        raise UserError(f"{weights} is exported already: export from the checkpoint")
    network = _network(cfg, weights)
    outputs = [HEATMAPS, JOINTS, SCORES] if decode else [HEATMAPS]
    with contextlib.ExitStack() as stack:
        if kind == "openvino":
            import_openvino()  # which may be missing
            # Its weights lie beside it, under the same name.
            stack.enter_context(replacing(path.with_suffix(".bin"))).touch()
        aside = stack.enter_context(replacing(path))
        aside.touch()  # that it cannot be written shows here, before any work
        program = trace(network if decode else network.pixels, network.size)
        metadata = describe(cfg, decode)
        if kind == "onnx":
            probe = _write_onnx(program, outputs, metadata, aside)
        else:
            probe = _write_openvino(program, outputs, metadata, aside)
        check = compare(network, probe, crops)
        if check.fault:
            raise UserError(f"{path} is not written, it would be wrong: {check.fault}")
    return check


def describe(cfg: CfgNode, decode: bool) -> dict[str, str]:
    """What an exported file says of itself: key -> value."""
    model, test = cfg.MODEL, cfg.TEST
    width, height = model.IMAGE_SIZE
    order = "RGB" if cfg.DATASET.COLOR_RGB else "BGR"
    facts = {
        "format": FORMAT,
        "method": f"TokenPose with sparse joint mask and attention pruning "
        f"({model.SPARSITY.PRUNE}: {_PRUNING[model.SPARSITY.PRUNE]})",
        "input": f"{IMAGES}: crops of a person each, uint8 [batch, {height}, {width}, 3], {order}, "
        "which are normalised inside",
        "color_order": order,
        **settings(cfg),
    }
    if decode:
        facts["output"] = (
            f"{JOINTS}: float32 [batch, {model.NUM_JOINTS}, 2], (x, y) in pixels of the crop, the "
            f"middle of the first pixel is 0; {SCORES}: float32 [batch, {model.NUM_JOINTS}], the "
            "highest value of each heatmap"
        )
        facts |= {f"TEST.{key}": json.dumps(test[key]) for key in ("POST_PROCESS", "BLUR_KERNEL")}
    else:
        w, h = model.HEATMAP_SIZE
        facts["output"] = (
            f"{HEATMAPS}: float32 [batch, {model.NUM_JOINTS}, {h}, {w}]; the middles of the outer "
            "cells lie on the middles of the crop's outer pixels"
        )
    with contextlib.suppress(UserError):  # a skeleton that nobody named
        facts["joint_names"] = json.dumps(skeleton_of(model.NUM_JOINTS).names)
    return facts


def crops_of_set(cfg: CfgNode) -> tuple[Tensor, str]:
    """The first crops of the test set, uint8 [N, h, w, 3], and where they come from."""
    try:
        people = build_dataset(cfg, "test")
        images = [people[index]["image"] for index in range(min(_MOST, len(people)))]
    except UserError as error:
        raise UserError(
            f"no real pictures to check the export on: {error}; name some with --images"
        ) from None
    where = annotation_path(cfg, cfg.DATASET.TEST_SET)
    return torch.from_numpy(np.stack(images)), f"{len(images)} people of {where}"


def crops_of_pictures(cfg: CfgNode, places: Sequence[str | Path]) -> tuple[Tensor, str]:
    """The first of some pictures, or of those in folders, each whole; else as `crops_of_set`.

    UserError where a file is not a picture, or a folder holds none.
    """
    files: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            files += [file for file in sorted(place.iterdir()) if cv2.haveImageReader(str(file))]
        else:
            files.append(place)
    if not files:
        raise UserError(f"no pictures in {', '.join(map(str, places))} to check the export on")
    files = files[:_MOST]
    crops = torch.from_numpy(np.stack([_whole_picture(cfg, file) for file in files]))
    return crops, f"{len(files)} pictures from {files[0].parent}"


def _whole_picture(cfg: CfgNode, file: Path) -> np.ndarray:
    try:
        image = decode_image(file.read_bytes(), str(file))
    except OSError as error:
        raise UserError(f"{file}: cannot read the image ({error.strerror})") from None
    size = cfg.MODEL.IMAGE_SIZE
    height, width = image.shape[:2]
    box = max(2.0, width, height * size[0] / size[1]) / PIXELS_PER_SCALE
    matrix = crop_matrix(((width - 1) / 2, (height - 1) / 2), (box, box), 0.0, size)
    crop = crop_image(image, matrix, size)
    return cv2.cvtColor(crop, cv2.COLOR_BGR2RGB) if cfg.DATASET.COLOR_RGB else crop


def _network(cfg: CfgNode, weights: str | Path) -> ToJoints:
    model = build_model(cfg)
    load_weights(model, weights)
    size, test = tuple(cfg.MODEL.IMAGE_SIZE), cfg.TEST
    network = ToJoints(model, size, refine=test.POST_PROCESS, blur_kernel=test.BLUR_KERNEL)
    return network.eval()


def _write_onnx(program: Any, outputs: list[str], metadata: dict[str, str], path: Path) -> Probe:
    model = to_onnx(program, outputs)
    model.producer_name, model.producer_version = "improved-tokenpose-sparsity", lib.__version__
    if JOINTS in outputs:
        del model.graph.output[0]  # the heatmaps, which keep their name inside
    for key, value in {**metadata, "sha256": digest(model)}.items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return probe_onnx(path)


def _write_openvino(
    program: Any, outputs: list[str], metadata: dict[str, str], path: Path
) -> Probe:
    model = to_openvino(program, outputs)
    for key, value in metadata.items():
        model.set_rt_info(value, [SECTION, key])
    if JOINTS in outputs:
        heatmaps = model.get_results()[0]
        heatmaps.input_value(0).get_node().set_friendly_name(HEATMAPS)
        model.remove_result(heatmaps)
    import_openvino().save_model(model, path, compress_to_fp16=False)
    return probe_openvino(path)
