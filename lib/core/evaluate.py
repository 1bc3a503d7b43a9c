"""PCKh of predictions on MPII, the files it reads, and the accuracy shown while training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib.dataset.heatmap import decode
from lib.utils.errors import UserError
from lib.utils.mat import read_mat
from lib.utils.text import markdown_table

JOINTS = (
    "rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor", "neck", "head",
    "rwri", "relb", "rsho", "lsho", "lelb", "lwri",
)  # fmt: skip
PARTS = {
    "Head": ("head",),
    "Shoulder": ("lsho", "rsho"),
    "Elbow": ("lelb", "relb"),
    "Wrist": ("lwri", "rwri"),
    "Hip": ("lhip", "rhip"),
    "Knee": ("lkne", "rkne"),
    "Ankle": ("lank", "rank"),
}
NOT_IN_MEAN = (6, 7)  # pelvis and thorax
HEAD_SIZE = 0.6  # of the head box's diagonal
# What the HRNet family prints as Mean@0.1 is index 11 of 0.00, 0.01, …: in truth the mean at 0.11.
MEANS = {"Mean": 0.5, "Mean@0.1": 0.1, "Mean@0.11": 0.11}


def pckh(pred: np.ndarray, gt: dict[str, np.ndarray]) -> dict[str, float]:
    """Score predictions as MPII does: percent of joints within a share of the head's size.

    pred [N,16,2] in the .mat's own 1-based pixels, gt as of `load_gt`. Returns percent at 0.5 for
    Head … Ankle (mean of left and right) and Mean, then Mean@0.1 and Mean@0.11. Means leave out
    pelvis and thorax and weigh joints by how often they are annotated. A part of which a joint is
    never annotated is nan, as is a mean without any joint.
    """
    curves = pckh_by_part(pred, gt, list(MEANS.values()))
    parts = {part: float(curves[part][0]) for part in PARTS}
    return parts | dict(zip(MEANS, curves["Mean"].tolist(), strict=True))


def pckh_by_part(
    pred: np.ndarray, gt: dict[str, np.ndarray], thresholds: Sequence[float]
) -> dict[str, np.ndarray]:
    """Percent within each threshold, float64 [T] each, of Head … Ankle and of Mean, as `pckh`."""
    curve = pckh_curve(pred, gt, thresholds)
    parts = {
        part: curve[:, [JOINTS.index(joint) for joint in joints]].mean(axis=1)
        for part, joints in PARTS.items()
    }
    weight = (gt["jnt_missing"] == 0).sum(axis=1)
    weight[list(NOT_IN_MEAN)] = 0
    with np.errstate(invalid="ignore"):
        return parts | {"Mean": np.nansum(curve * weight, axis=1) / weight.sum()}


def pckh_curve(
    pred: np.ndarray, gt: dict[str, np.ndarray], thresholds: Sequence[float]
) -> np.ndarray:
    """Percent of each joint's annotated people within each threshold, float64 [T,16].

    Thresholds [T] are shares of the head's size; nan for a joint that is never annotated.
    """
    errors = normalised_errors(pred, gt)
    hits = np.stack([(errors <= threshold).sum(axis=0) for threshold in thresholds])
    with np.errstate(invalid="ignore"):
        return 100 * hits / (~np.isnan(errors)).sum(axis=0)


def normalised_errors(pred: np.ndarray, gt: dict[str, np.ndarray]) -> np.ndarray:
    """Distance of each joint from its annotation in head sizes, float64 [N,16].

    pred [N,16,2] in 1-based pixels, gt as of `load_gt`; a head's size is 0.6 of its box's diagonal.
    nan where a joint is not annotated, so that comparisons are false there; a prediction that is
    not a number is infinitely far.
    """
    truth = np.transpose(gt["pos_gt_src"], (2, 0, 1)).astype(np.float64)
    assert np.shape(pred) == truth.shape, f"{np.shape(pred)} predicted, {truth.shape} annotated"
    low, high = gt["headboxes_src"].astype(np.float64)  # each [2,N]
    head_size = HEAD_SIZE * np.linalg.norm(high - low, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.linalg.norm(np.asarray(pred, np.float64) - truth, axis=2) / head_size[:, None]
    errors[np.isnan(errors)] = np.inf
    errors[gt["jnt_missing"].T != 0] = np.nan
    return errors


def format_table(scores: dict[str, dict[str, float]]) -> str:
    """Lay out scores of `pckh` as the HRNet family prints them: a Markdown table, a row a name."""
    columns = ["Arch", *next(iter(scores.values()))]
    rows = ([name, *(f"{value:.3f}" for value in row.values())] for name, row in scores.items())
    return markdown_table(columns, rows)


def heatmap_accuracy(
    output: Tensor, target: Tensor, threshold: float = 0.5
) -> tuple[Tensor, Tensor, Tensor]:
    """Share of joints whose highest cell lies near the target's, as shown while training.

    output and target [B,J,h,w]. Near is less than `threshold` tenths of the map's width in x and
    height in y; joints whose target peaks in the first two rows or columns, or nowhere, do not
    count. Returns the share of each joint [J] (0 … 1, nan where none counts), their mean (0 where
    none counts) and the number of joints that count, as tensors, so that no device has to wait.
    """
    height, width = target.shape[-2:]
    truth, _ = decode(target, refine=False)
    found, _ = decode(output, refine=False)
    counted = (truth > 1).all(dim=-1)
    x, y = (found - truth).unbind(-1)
    hits = counted & (torch.hypot(x * 10 / width, y * 10 / height) < threshold)
    accuracy = hits.sum(dim=0) / counted.sum(dim=0)
    joints = counted.any(dim=0).sum()
    return accuracy, accuracy.nansum() / joints.clamp(min=1), joints


def load_gt(path: str | Path) -> dict[str, np.ndarray]:
    """Read MPII's `gt_<set>.mat`: jnt_missing [16,N], pos_gt_src [16,2,N], headboxes_src [2,2,N].

    Coordinates are 1-based pixels. UserError where the file is missing, is no .mat, lacks an array,
    or has other joints or shapes.
    """
    gt = _load_mat(path, ("dataset_joints", "jnt_missing", "pos_gt_src", "headboxes_src"))
    names = [str(np.squeeze(name)).strip() for name in gt["dataset_joints"].ravel()]
    people = gt["jnt_missing"].shape[-1]
    shapes = {
        "jnt_missing": (16, people),
        "pos_gt_src": (16, 2, people),
        "headboxes_src": (2, 2, people),
    }
    for key, shape in shapes.items():
        _check_array(path, key, gt[key], [shape])
    if not np.isin(gt["jnt_missing"], (0, 1)).all():
        raise UserError(f"{path}: `jnt_missing` must be 0 or 1 everywhere")
    low, high = gt["headboxes_src"].astype(np.float64)
    with np.errstate(invalid="ignore"):
        sized = np.linalg.norm(high - low, axis=0) > 0  # nan is not
    if not sized.all():
        raise UserError(f"{path}: the head box of person {int(np.argmin(sized))} has no size")
    annotated = np.transpose(gt["jnt_missing"] == 0)[..., None]
    placed = np.isfinite(np.transpose(gt["pos_gt_src"], (2, 0, 1))) | ~annotated
    if not placed.all():
        person = int(np.argmin(placed.all(axis=(1, 2))))
        raise UserError(f"{path}: an annotated joint of person {person} is not a number")
    # Pelvis, thorax and neck are scored in no part and spelled in several ways.
    wrong = [
        (index, joint)
        for index, joint in enumerate(JOINTS)
        if any(joint in part for part in PARTS.values()) and names[index : index + 1] != [joint]
    ]
    if wrong:
        index, joint = wrong[0]
        raise UserError(f"{path}: entry {index} of `dataset_joints` must be `{joint}` (MPII order)")
    return gt


def load_predictions(path: str | Path, people: int | None = None) -> np.ndarray:
    """Read `preds` of a pred.mat, [N,16,2] or [N,16,3] in 1-based pixels, as float64 [N,16,2].

    UserError where the file is missing, is no .mat or lacks `preds`, where the shape is another,
    where N is not `people` (if given), or where a coordinate is not finite.
    """
    preds = _load_mat(path, ("preds",))["preds"]
    count = preds.shape[0] if people is None else people
    _check_array(path, "preds", preds, [(count, 16, 2), (count, 16, 3)])
    preds = preds[..., :2].astype(np.float64)
    broken = np.argwhere(~np.isfinite(preds).all(axis=-1))
    if len(broken):
        person, joint = broken[0]
        raise UserError(
            f"{path}: `preds` is not a finite number for person {person}, joint {joint} (from 0)"
        )
    return preds


def _load_mat(path: str | Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Read arrays of a .mat file; UserError where the file or an array is missing or broken."""
    content = read_mat(path)
    for key in keys:
        if not isinstance(content.get(key), np.ndarray):
            held = ", ".join(content) or "nothing"
            raise UserError(f"{path}: array `{key}` is missing; the file holds {held}")
    return {key: content[key] for key in keys}


def _check_array(
    path: str | Path, key: str, array: np.ndarray, shapes: Sequence[tuple[int, ...]]
) -> None:
    """UserError unless an array is of numbers and has one of the shapes."""
    if array.dtype.kind not in "buif" or array.shape not in shapes:
        expected = " or ".join(str(shape) for shape in shapes)
        raise UserError(
            f"{path}: `{key}` must be numbers of shape {expected}, not {array.dtype} {array.shape}"
        )
