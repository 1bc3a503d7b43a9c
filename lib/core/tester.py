"""Testing: people found in a set, and their score."""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import nn
from yacs.config import CfgNode

from lib.core.baseline import mean_pose
from lib.core.evaluate import load_gt, pckh
from lib.core.inference import Predictions, Runner, concatenate, predict
from lib.core.model_file import load_runner
from lib.core.pictures import contact_sheet
from lib.core.provenance import provenance
from lib.core.results import write_json, write_predictions
from lib.core.runtime import build_runner
from lib.dataset import annotation_path, build_dataset, build_test_loader
from lib.dataset.mpii import read_records
from lib.utils.distributed import World, any_of, gather, share_buffers
from lib.utils.drawing import save_image
from lib.utils.errors import UserError

log = logging.getLogger(__name__)


class Tester:
    """Finds and scores the people of `DATASET.TEST_SET`; several processes share the work."""

    def __init__(self, cfg: CfgNode, world: World) -> None:
        self.cfg = cfg
        self.world = world
        self.path = annotation_path(cfg, cfg.DATASET.TEST_SET)
        self.dataset = build_dataset(cfg, "test")
        self.loader = build_test_loader(cfg, self.dataset, world.rank, world.size)
        for name in sorted({record.image for record in self.dataset.records}):
            self.dataset.images.mark(name)  # a picture that is missing is told before any work
        self.gt = None if self.dataset.gt_path is None else load_gt(self.dataset.gt_path)
        people = len(self.dataset)
        if self.gt is not None and self.gt["jnt_missing"].shape[1] != people:
            raise UserError(f"{self.dataset.gt_path} is not of the {people} people in {self.path}")

    def predict(
        self, model: nn.Module, stopping: Callable[[], bool] = lambda: False
    ) -> Predictions:
        """Find every person of the set with a network, on the runtime that TEST.RUNTIME names.

        Its buffers become those of the first process. Otherwise as `predict_with`.
        """
        share_buffers(model, self.world)
        test, size = self.cfg.TEST, tuple(self.cfg.MODEL.IMAGE_SIZE)
        return self.predict_with(build_runner(model, test.RUNTIME, test.PRECISION, size), stopping)

    def predict_with(
        self, run: Runner, stopping: Callable[[], bool] = lambda: False
    ) -> Predictions:
        """Find every person of the set, each once, in the set's order.

        KeyboardInterrupt, between two batches, as soon as `stopping` says so to any process.
        """
        test = self.cfg.TEST
        own = predict(
            run,
            _until(stopping, self.loader),
            self.world.device,
            flip_order=self.dataset.skeleton.flip_order if test.FLIP_TEST else None,
            refine=test.POST_PROCESS,
            blur_kernel=test.BLUR_KERNEL,
        )
        if any_of([stopping()], self.world)[0]:
            raise KeyboardInterrupt
        return concatenate(gather(own, self.world))

    def score(self, predictions: Predictions) -> dict[str, float] | None:
        """PCKh by joint in percent; None where the set has no annotation to score with."""
        return None if self.gt is None else pckh(predictions.joints + 1, self.gt)

    def score_mean_pose(self) -> dict[str, float] | None:
        """Score who never looks, the mean pose of the training set, where there is one."""
        path = annotation_path(self.cfg, self.cfg.DATASET.TRAIN_SET)
        if self.gt is None or not path.exists():
            return None
        records = read_records(path, self.dataset.skeleton.num_joints)
        return pckh(mean_pose(records, self.dataset.records) + 1, self.gt)


def _until(stopping: Callable[[], bool], batches: Iterable[Any]) -> Iterator[Any]:
    for batch in batches:
        if stopping():
            return
        yield batch


def score_checkpoint(
    cfg: CfgNode, world: World, folder: Path, file: str | Path
) -> dict[str, dict[str, float]]:
    """Test what `load_runner` takes for a `file`; scores by name, none without annotation.

    Beside the network's stands the score of the mean pose. Writes `pred.mat`, `results.json` and
    `people.jpg`, some people as annotated and as found, to `folder`.
    """
    tester = Tester(cfg, world)
    run = load_runner(cfg, file, world.device)
    try:
        predictions = tester.predict_with(run)
    finally:
        tester.loader.close()
    found = {cfg.MODEL.NAME: tester.score(predictions), "mean pose": tester.score_mean_pose()}
    scores = {name: score for name, score in found.items() if score is not None}
    if world.is_first:
        write_predictions(folder / "pred.mat", predictions.joints)
        content = {
            "scores": found[cfg.MODEL.NAME],
            "mean pose": found["mean pose"],
            "people": len(predictions.joints),
            "weights": str(file),
            **provenance(cfg, tester.dataset, cfg.DATASET.TEST_SET),
        }
        write_json(folder / "results.json", content)
        save_image(folder / "people.jpg", contact_sheet(tester.dataset, predictions))
    return scores
