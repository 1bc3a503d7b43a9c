"""PCKh, MPII's metric, and the .mat files that it reads and writes.

MPII counts pixels from 1. This file and `lib.dataset.mpii` are the only ones that convert.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from lib.dataset import PoseDataset, Skeleton
from lib.dataset.mpii import GT_NAMES as JOINTS
from lib.dataset.predictions import Predictions
from lib.metrics.base import Metric, relative_errors
from lib.utils.errors import UserError
from lib.utils.mat import read_mat, write_mat

PARTS = {  # joints, right and left
    "Head": [9],
    "Shoulder": [12, 13],
    "Elbow": [11, 14],
    "Wrist": [10, 15],
    "Hip": [2, 3],
    "Knee": [1, 4],
    "Ankle": [0, 5],
}
IN_MEAN = [joint for joint in range(len(JOINTS)) if joint not in (6, 7)]  # pelvis, thorax
HEAD_SIZE = 0.6  # of the head box's diagonal
# The HRNet family prints index 11 of 0.00, 0.01, … as Mean@0.1, which is the mean at 0.11.
MEANS = {"Mean": 0.5, "Mean@0.1": 0.1, "Mean@0.11": 0.11}
PREDICTIONS_FILE = "pred.mat"


class PCKh(Metric):
    """Percent of joints within a share of the head's size (Andriluka et al. 2014)."""

    name = "PCKh@0.5"
    needs = "annot/gt_<set>.mat"
    primary = "Mean"
    plotted = MappingProxyType({"Mean": "PCKh@0.5 (%)", "Mean@0.1": "PCKh@0.1 (%)"})
    error_unit = "head sizes"
    max_error = 1.0
    threshold = 0.5

    def can_score(self, dataset: PoseDataset) -> bool:
        """Whether there is a gt_<set>.mat; UserError if it is damaged or has other people."""
        if dataset.annotation.gt_path is None:
            return False
        self._gt(dataset)
        return True

    def evaluate(self, predictions: Predictions, dataset: PoseDataset) -> dict[str, float]:
        """Return the scores of `pckh`."""
        return pckh(predictions.joints + 1, self._gt(dataset))

    def errors(self, predictions: Predictions, dataset: PoseDataset) -> np.ndarray:
        """Return `normalised_errors`."""
        return normalised_errors(predictions.joints + 1, self._gt(dataset))

    def parts(self, skeleton: Skeleton) -> dict[str, list[int]]:
        """Return the parts of the body, left and right together, and the joints of the mean."""
        return PARTS | {"Mean": IN_MEAN}

    def curves(
        self, predictions: Predictions, dataset: PoseDataset, thresholds: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return `pckh_by_part`."""
        return pckh_by_part(predictions.joints + 1, self._gt(dataset), thresholds.tolist())

    def save_predictions(
        self, folder: Path, predictions: Predictions, dataset: PoseDataset
    ) -> Path:
        """Write `pred.mat`, key `preds`, [N, 16, 2], 1-based, as the family does."""
        path = folder / PREDICTIONS_FILE
        write_mat(path, {"preds": predictions.joints + 1.0})
        return path

    def load_predictions(self, folder: Path, dataset: PoseDataset) -> Predictions:
        """Read `pred.mat`."""
        joints = load_predictions(folder / PREDICTIONS_FILE, len(dataset)) - 1
        return Predictions(joints, np.ones(joints.shape[:2]))

    def _gt(self, dataset: PoseDataset) -> dict[str, np.ndarray]:
        path = dataset.annotation.gt_path
        if path is None:
            raise UserError(f"{dataset.annotation.path}: PCKh needs {self.needs}")
        gt = load_gt(path)
        if gt["jnt_missing"].shape[1] != len(dataset):
            raise UserError(
                f"{path} does not have the {len(dataset)} people of {dataset.annotation.path}"
            )
        return gt


def pckh(pred: np.ndarray, gt: dict[str, np.ndarray]) -> dict[str, float]:
    """Score predictions as MPII does: percent of joints within a share of the head's size.

    pred [N,16,2] in the .mat's own 1-based pixels, gt from `load_gt`. Returns percent at 0.5 for
    Head … Ankle (mean of left and right) and Mean, then Mean@0.1 and Mean@0.11. Means leave out
    pelvis and thorax and weigh joints by their number of annotations. A part with a joint that is
    never annotated is nan, and so is a mean without any joint.
    """
    curves = pckh_by_part(pred, gt, list(MEANS.values()))
    parts = {part: float(curves[part][0]) for part in PARTS}
    return parts | dict(zip(MEANS, curves["Mean"].tolist(), strict=True))


def pckh_by_part(
    pred: np.ndarray, gt: dict[str, np.ndarray], thresholds: Sequence[float]
) -> dict[str, np.ndarray]:
    """Percent within each threshold, float64 [T] each, of Head … Ankle and of Mean, as `pckh`."""
    errors = normalised_errors(pred, gt)
    hits = np.stack([(errors <= threshold).sum(axis=0) for threshold in thresholds])
    annotated = (~np.isnan(errors)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        curve = 100 * hits / annotated  # [T,16]
        mean = 100 * hits[:, IN_MEAN].sum(axis=1) / annotated[IN_MEAN].sum()
    parts = {part: curve[:, joints].mean(axis=1) for part, joints in PARTS.items()}
    return parts | {"Mean": mean}


def normalised_errors(pred: np.ndarray, gt: dict[str, np.ndarray]) -> np.ndarray:
    """Distance of each joint from its annotation in head sizes, [N,16], as of `relative_errors`.

    pred [N,16,2] in 1-based pixels, gt from `load_gt`; a head's size is 0.6 of its box's diagonal.
    """
    truth = np.transpose(gt["pos_gt_src"], (2, 0, 1)).astype(np.float64)
    assert np.shape(pred) == truth.shape, f"{np.shape(pred)} predicted, {truth.shape} annotated"
    low, high = gt["headboxes_src"].astype(np.float64)  # each [2,N]
    head_size = HEAD_SIZE * np.linalg.norm(high - low, axis=0)
    return relative_errors(pred, truth, gt["jnt_missing"].T == 0, head_size[:, None])


def load_gt(path: str | Path) -> dict[str, np.ndarray]:
    """Read MPII's `gt_<set>.mat`: jnt_missing [16,N], pos_gt_src [16,2,N], headboxes_src [2,2,N].

    Coordinates are 1-based pixels. UserError if the file is missing, damaged, lacks an array, or
    has other joints or shapes.
    """
    gt = _load_mat(path, ("dataset_joints", "jnt_missing", "pos_gt_src", "headboxes_src"))
    names = [str(np.squeeze(name)).strip() for name in gt["dataset_joints"].ravel()]
    people = gt["jnt_missing"].shape[-1]
    _check_array(path, gt, "jnt_missing", (16, people))
    _check_array(path, gt, "pos_gt_src", (16, 2, people))
    _check_array(path, gt, "headboxes_src", (2, 2, people))
    if not np.isin(gt["jnt_missing"], (0, 1)).all():
        raise UserError(f"{path}: `jnt_missing` must be 0 or 1 everywhere")
    annotated = gt["jnt_missing"] == 0  # [16,N]
    low, high = gt["headboxes_src"].astype(np.float64)
    with np.errstate(invalid="ignore"):
        unsized = ~(np.linalg.norm(high - low, axis=0) > 0) & annotated.any(axis=0)  # nan too
    if unsized.any():
        raise UserError(f"{path}: the head box of person {int(np.argmax(unsized))} has no size")
    unplaced = (annotated & ~np.isfinite(gt["pos_gt_src"]).all(axis=1)).any(axis=0)
    if unplaced.any():
        person = int(np.argmax(unplaced))
        raise UserError(f"{path}: an annotated joint of person {person} is not a number")
    # Pelvis, thorax and neck belong to no part, and their spelling varies.
    for joint in sorted(joint for joints in PARTS.values() for joint in joints):
        if names[joint : joint + 1] != [JOINTS[joint]]:
            expected = f"must be `{JOINTS[joint]}` (MPII order)"
            raise UserError(f"{path}: entry {joint} of `dataset_joints` {expected}")
    return gt


def load_predictions(
    path: str | Path, people: int | None = None, annotated: np.ndarray | bool = True
) -> np.ndarray:
    """Read `preds` of a pred.mat, [N,16,2] or [N,16,3] in 1-based pixels, as float64 [N,16,2].

    UserError if the file is missing or damaged, lacks `preds`, has another shape, N is not `people`
    (if given), or a joint that is `annotated` [N,16] is not finite.
    """
    content = _load_mat(path, ("preds",))
    count = len(content["preds"]) if people is None else people
    _check_array(path, content, "preds", (count, 16, 2), (count, 16, 3))
    preds = content["preds"][..., :2].astype(np.float64)
    broken = np.argwhere(~np.isfinite(preds).all(axis=-1) & annotated)
    if len(broken):
        person, joint = broken[0]
        raise UserError(
            f"{path}: `preds` is not a finite number for person {person}, joint {joint} (from 0)"
        )
    return preds


def _load_mat(path: str | Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Read arrays of a .mat file; UserError if the file is damaged or an array is missing."""
    content = read_mat(path)
    for key in keys:
        if not isinstance(content.get(key), np.ndarray):
            names = ", ".join(content) or "nothing"
            raise UserError(f"{path}: array `{key}` is missing; the file holds {names}")
    return {key: content[key] for key in keys}


def _check_array(
    path: str | Path, arrays: Mapping[str, np.ndarray], key: str, *shapes: tuple[int, ...]
) -> None:
    """Raise UserError unless an array has numbers and one of the shapes."""
    array = arrays[key]
    if array.dtype.kind not in "buif" or array.shape not in shapes:
        expected = " or ".join(str(shape) for shape in shapes)
        raise UserError(
            f"{path}: `{key}` must be numbers of shape {expected}, not {array.dtype} {array.shape}"
        )
