"""OKS, COCO's similarity of two poses: suppression of repeated people, and AP, by pycocotools."""

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
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
from lib.dataset.records import read_numbers
from lib.dataset.transforms import PIXELS_PER_SCALE
from lib.metrics.base import Metric
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
    sigmas: np.ndarray, min_visible: float | None = None,
) -> np.ndarray:  # fmt: skip
    """Keep the best of people whose OKS is above `threshold`; their indices, best first.

    keypoints [N, J, 3] (x, y, score), scores [N], areas [N] in pixels, sigmas [J]. With
    `min_visible`, only joints whose score is above it count: that of the worse of the two people,
    as the HRNet family's code computes it (it means both).
    """

    def drop(left: np.ndarray, similar: np.ndarray) -> np.ndarray:
        return np.where(similar > threshold, -np.inf, left)

    return _suppress(keypoints, scores, areas, sigmas, min_visible, drop, len(scores))


def soft_oks_nms(
    keypoints: np.ndarray, scores: np.ndarray, areas: np.ndarray, threshold: float,
    sigmas: np.ndarray, min_visible: float | None = None,
) -> np.ndarray:  # fmt: skip
    """Choose at most 20 people, best first; a choice lowers the scores of similar people.

    Arguments as of `oks_nms`; scores are multiplied by exp(-OKS² / threshold).
    """

    def lower(left: np.ndarray, similar: np.ndarray) -> np.ndarray:
        return left * np.exp(-(similar**2) / threshold)

    return _suppress(keypoints, scores, areas, sigmas, min_visible, lower, MAX_PEOPLE)


def _suppress(
    keypoints: np.ndarray, scores: np.ndarray, areas: np.ndarray, sigmas: np.ndarray,
    min_visible: float | None, rescore: Callable[[np.ndarray, np.ndarray], np.ndarray], limit: int,
) -> np.ndarray:  # fmt: skip
    """Take the best person, rescore all by their OKS with that one, and so on; -inf is out."""
    left, kept = scores.astype(np.float64), list[int]()
    counted = keypoints[:, :, 2] > (-np.inf if min_visible is None else min_visible)
    while len(kept) < limit and left.max(initial=-np.inf) > -np.inf:
        best = int(left.argmax())
        kept.append(best)
        squared = ((keypoints[:, :, :2] - keypoints[best, :, :2]) ** 2).sum(axis=-1)
        size = (areas + areas[best]) / 2 + np.spacing(1)
        similar = np.exp(-squared / (8 * np.asarray(sigmas) ** 2 * size[:, None])) * counted
        left = rescore(left, similar.sum(axis=1) / np.maximum(counted.sum(axis=1), 1))
        left[kept] = -np.inf
    return np.array(kept, dtype=np.int64)


@dataclass(frozen=True)
class OksAP(Metric):
    """COCO's average precision over OKS 0.5, 0.55, …, 0.95 (Lin et al. 2014), 0 to 1.

    A person's score is the box's times the mean over joints above `joint_threshold`. Repeated
    people are left out by `oks_nms`, or with `soft` by `soft_oks_nms`, at `oks_threshold`.
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
        rows = [(record.joints, record.visible, record.area) for record in dataset.records]
        joints, visible, areas = (np.array(column) for column in zip(*rows, strict=True))
        falloffs = 2 * np.array(dataset.skeleton.sigmas) * np.sqrt(areas)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            errors = np.linalg.norm(predictions.joints - joints, axis=-1) / falloffs
        return np.where(visible > 0, np.nan_to_num(errors, nan=np.inf), np.nan)

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
        shares = shares * (len(shares) * coco_scores(evaluation)["AP"] / max(shares.sum(), 1e-12))
        return np.stack([shares, np.ones(len(shares))], axis=1)

    def save_predictions(
        self, folder: Path, predictions: Predictions, dataset: PoseDataset
    ) -> Path:
        """Write RESULTS_FILE, which COCO's tools read, beside the people before suppression."""
        super().save_predictions(folder, predictions, dataset)
        content, path = load_coco(dataset.annotation.path, dataset.skeleton), folder / RESULTS_FILE
        write_bytes(path, json.dumps(self._results(predictions, dataset, content)).encode())
        return path

    def _evaluation(self, predictions: Predictions, dataset: PoseDataset) -> COCOeval:
        content = load_coco(dataset.annotation.path, dataset.skeleton)
        results = self._results(predictions, dataset, content)
        return coco_evaluation(content, results, dataset.skeleton)

    def _results(
        self, predictions: Predictions, dataset: PoseDataset, content: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Return the people after suppression, as entries of COCO's results."""
        records, nms = dataset.records, soft_oks_nms if self.soft else oks_nms
        joint_scores = np.nan_to_num(predictions.scores.astype(np.float64))
        keypoints = np.dstack([np.nan_to_num(predictions.joints), joint_scores])
        seen = joint_scores > self.joint_threshold
        scores = (joint_scores * seen).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
        scores *= [record.score for record in records]
        areas = np.array([np.prod(record.scale * PIXELS_PER_SCALE) for record in records])
        sigmas, threshold = np.array(dataset.skeleton.sigmas), self.oks_threshold
        ids = {image["file_name"]: image["id"] for image in content["images"]}
        entries = []
        for image, group in groupby(range(len(records)), lambda index: records[index].image):
            people = np.array([*group])
            kept = nms(keypoints[people], scores[people], areas[people], threshold, sigmas)
            entries += [
                {
                    "image_id": ids[image],
                    "category_id": content["categories"][0]["id"],
                    "keypoints": keypoints[person].ravel().tolist(),
                    "score": float(scores[person]),
                }
                for person in people[kept]
            ]
        return entries


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
    if not isinstance(results, list) or not results:
        raise UserError(f"{results_path}: must be a list of results that is not empty")
    known = {image["id"] for image in content["images"]}
    for index, entry in enumerate(results):
        where = f"{results_path}: entry {index}"
        image_id = entry.get("image_id") if isinstance(entry, dict) else None
        if not isinstance(image_id, int | str) or image_id not in known:
            raise UserError(f"{where}: its `image_id` is of no image of {gt_path}")
        read_numbers(entry, "keypoints", (3 * skeleton.num_joints,), where)
        read_numbers(entry, "score", (), where)
    if all(entry.get("category_id") != content["categories"][0]["id"] for entry in results):
        raise UserError(f"{results_path}: no entry has the `category_id` of a person")
    with as_user_error(f"{results_path}: cannot be scored"):
        return coco_scores(coco_evaluation(content, results, skeleton))
