"""OKS, COCO's similarity of two poses: suppression of repeated people, and AP, by pycocotools."""

import contextlib
import io
import json
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from yacs.config import CfgNode

from lib.dataset import PoseDataset, Skeleton
from lib.dataset.coco import load_coco
from lib.dataset.predictions import Predictions
from lib.dataset.records import column, read_numbers
from lib.dataset.transforms import PIXELS_PER_SCALE
from lib.metrics.base import Metric, relative_errors
from lib.utils.errors import UserError, as_user_error
from lib.utils.files import read_json, write_bytes

RESULTS_FILE = "keypoints_results.json"
MAX_PEOPLE = 20  # of an image; COCO's metric ignores others
# As the HRNet family prints them, in the order of COCO's tool.
SCORES = (
    "AP", "AP .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)",
)  # fmt: skip


def oks_nms(
    keypoints: np.ndarray, scores: np.ndarray, areas: np.ndarray, threshold: float,
    sigmas: np.ndarray, min_visible: float | None = None, soft: bool = False,
) -> np.ndarray:  # fmt: skip
    """Keep the best of people whose OKS is above `threshold`; their indices, best first.

    keypoints [N, J, 3] (x, y, score), scores [N], areas [N] in pixels, sigmas [J]. With
    `min_visible`, only joints whose score is above it count: that of the worse of the two people,
    as the HRNet family's code computes it (it means both). With `soft`, the best person lowers the
    scores of others by exp(-OKS² / threshold) instead, and at most 20 are kept.
    """
    left, kept = scores.astype(np.float64), list[int]()
    counted = keypoints[:, :, 2] > (-np.inf if min_visible is None else min_visible)
    while left.max(initial=-np.inf) > -np.inf and not (soft and len(kept) == MAX_PEOPLE):
        best = int(left.argmax())
        kept.append(best)
        squared = ((keypoints[:, :, :2] - keypoints[best, :, :2]) ** 2).sum(axis=-1)
        size = (areas + areas[best]) / 2 + np.spacing(1)
        similar = np.exp(-squared / (8 * np.asarray(sigmas) ** 2 * size[:, None])) * counted
        oks = similar.sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
        if soft:
            left *= np.exp(-(oks**2) / threshold)
        else:
            left[oks > threshold] = -np.inf
        left[kept] = -np.inf
    return np.array(kept, dtype=np.int64)


soft_oks_nms = partial(oks_nms, soft=True)


@dataclass(frozen=True)
class OksAP(Metric):
    """COCO's average precision over OKS 0.5, 0.55, …, 0.95 (Lin et al. 2014), 0 to 1.

    A person's score is the box's times the mean over joints above `joint_threshold`. Repeated
    people are left out by `oks_nms`, with `soft` or not, at `oks_threshold`.
    """

    oks_threshold: float = 0.9
    soft: bool = False
    joint_threshold: float = 0.2

    name = "OKS-AP"
    needs = "annotations/person_keypoints_<set>.json"
    primary = "AP"
    plotted = MappingProxyType({"AP": "AP (OKS)", "AP .75": "AP (OKS 0.75)"})
    digits = 4
    error_unit = "OKS falloffs"
    max_error = 4.0
    threshold = (2 * np.log(2)) ** 0.5  # an OKS of 0.5

    def build(self, cfg: CfgNode) -> "OksAP":
        """Return the metric with the TEST keys of a configuration."""
        return OksAP(cfg.TEST.OKS_THRE, cfg.TEST.SOFT_NMS, cfg.TEST.IN_VIS_THRE)

    def can_score(self, dataset: PoseDataset) -> bool:
        """Whether the set is annotated."""
        return dataset.annotation.gt_path is not None

    def evaluate(self, predictions: Predictions, dataset: PoseDataset) -> dict[str, float]:
        """Return the scores of `coco_scores`."""
        return coco_scores(self._evaluation(predictions, dataset))

    def errors(self, predictions: Predictions, dataset: PoseDataset) -> np.ndarray:
        """Return distances over 2σ times the root of the person's area; nan for detected people."""
        joints, visible, area = (
            column(dataset.records, name) for name in ("joints", "visible", "area")
        )
        falloffs = 2 * np.array(dataset.skeleton.sigmas) * np.sqrt(area)[:, None]
        return relative_errors(predictions.joints, joints, visible > 0, falloffs)

    def contributions(self, predictions: Predictions, dataset: PoseDataset) -> np.ndarray:
        """Return each annotated person's share in AP: the precision at which they are found.

        It is 0 at thresholds where they are not. A resample varies who is found, but keeps these
        precisions.
        """
        evaluation = self._evaluation(predictions, dataset)
        images = [image for image in evaluation.evalImgs[: len(evaluation.params.imgIds)] if image]
        order = np.argsort(-np.concatenate([i["dtScores"] for i in images]), kind="stable")
        people, ignored = (  # id of the annotated person, 0 for none; both [thresholds, detections]
            np.concatenate([image[key] for image in images], axis=1)[:, order].astype(int)
            for key in ("dtMatches", "dtIgnore")
        )
        found = (people > 0) & (ignored == 0)
        precision = found.cumsum(axis=1) / np.maximum((ignored == 0).cumsum(axis=1), 1)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        counted = np.concatenate([np.extract(1 - i["gtIgnore"], i["gtIds"]) for i in images])
        shares = np.bincount(people[found], precision[found], 1 + int(counted.max()))
        shares = shares[counted.astype(int)]
        # COCO averages precision over 101 recalls, not over people.
        shares = shares * (len(shares) * evaluation.stats[0] / max(shares.sum(), 1e-12))
        return np.stack([shares, np.ones(len(shares))], axis=1)

    def parts(self, skeleton: Skeleton) -> dict[str, list[int]]:
        """Return the parts of the body, left and right together, and all joints."""
        parts: dict[str, list[int]] = {}
        for joint, name in enumerate(skeleton.names):
            parts.setdefault(name.rpartition("_")[2].capitalize(), []).append(joint)
        return parts | super().parts(skeleton)

    def save_predictions(
        self, folder: Path, predictions: Predictions, dataset: PoseDataset
    ) -> Path:
        """Write RESULTS_FILE, which COCO's tools read, beside the people before suppression."""
        super().save_predictions(folder, predictions, dataset)
        _, results = self._results(predictions, dataset)
        write_bytes(folder / RESULTS_FILE, json.dumps(results).encode())
        return folder / RESULTS_FILE

    def _evaluation(self, predictions: Predictions, dataset: PoseDataset) -> COCOeval:
        return coco_evaluation(*self._results(predictions, dataset), dataset.skeleton)

    def _results(
        self, predictions: Predictions, dataset: PoseDataset
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the annotation file, and people after suppression as entries of COCO's results."""
        content = load_coco(dataset.annotation.path, dataset.skeleton)
        records, sigmas = dataset.records, np.array(dataset.skeleton.sigmas)
        joint_scores = np.nan_to_num(predictions.scores.astype(np.float64))
        keypoints = np.dstack([np.nan_to_num(predictions.joints), joint_scores])
        seen = joint_scores > self.joint_threshold
        scores = (joint_scores * seen).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
        scores *= column(records, "score")
        areas = (column(records, "scale") * PIXELS_PER_SCALE).prod(axis=1)
        ids = {image["file_name"]: image["id"] for image in content["images"]}
        entries = []
        for image, group in groupby(range(len(records)), lambda index: records[index].image):
            people = np.array([*group])
            of_image = keypoints[people], scores[people], areas[people]
            kept = oks_nms(*of_image, self.oks_threshold, sigmas, soft=self.soft)
            common = {"image_id": ids[image], "category_id": content["categories"][0]["id"]}
            for person in people[kept]:
                numbers = keypoints[person].ravel().tolist()
                entries.append({**common, "keypoints": numbers, "score": float(scores[person])})
        return content, entries


def coco_evaluation(
    content: dict[str, Any], results: list[dict[str, Any]], skeleton: Skeleton
) -> COCOeval:
    """Return pycocotools' evaluation of results; `content` as of `load_coco`."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes([*map(dict, results)]), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def coco_scores(evaluation: COCOeval) -> dict[str, float]:
    """Return AP and AR by name, 0 to 1; nan for sizes that nobody has."""
    scores = zip(SCORES, evaluation.stats.tolist(), strict=True)
    return {name: score if score >= 0 else float("nan") for name, score in scores}


def score_results(
    gt_path: str | Path, results_path: str | Path, skeleton: Skeleton
) -> dict[str, float]:
    """Score a file of COCO's results against an annotation file; UserError if one is wrong."""
    content, results = load_coco(gt_path, skeleton), read_json(results_path)
    person, known = content["categories"][0]["id"], {image["id"] for image in content["images"]}
    with as_user_error(f"{results_path}: must be a list of COCO's results"):
        if not any(entry["category_id"] == person for entry in results):
            raise UserError(f"{results_path}: is empty, or no entry has `category_id` {person}")
        for index, entry in enumerate(results):
            where = f"{results_path}: entry {index}"
            if entry["image_id"] not in known:
                raise UserError(f"{where}: its `image_id` is of no image of {gt_path}")
            read_numbers(entry, "keypoints", (3 * skeleton.num_joints,), where)
            read_numbers(entry, "score", (), where)
        return coco_scores(coco_evaluation(content, results, skeleton))
