"""Testing: predict the people of a set and score the predictions."""

import hashlib
import logging
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from lib.core.provenance import data_fingerprint, provenance
from lib.core.results import RESULTS, results_folder, write_json
from lib.core.visualize import contact_sheet
from lib.dataset import build_dataset, build_test_loader, read_annotation
from lib.dataset.predictions import Predictions, concatenate
from lib.inference.pipeline import Runner, build_decoding, predict
from lib.inference.runtimes import build_runner, load_runner
from lib.metrics import build_metric
from lib.metrics.mean_pose import mean_pose
from lib.models import PoseNetwork
from lib.utils.distributed import Distributed, all_gather, all_reduce_any, broadcast_buffers
from lib.utils.drawing import save_image
from lib.utils.errors import UserError
from lib.utils.logging import FILE_ONLY

log = logging.getLogger(__name__)


class Tester:
    """Predicts and scores the people of `DATASET.TEST_SET`; several processes share the work."""

    def __init__(self, cfg: CfgNode, distributed: Distributed) -> None:
        self.cfg = cfg
        self.distributed = distributed
        self.dataset = build_dataset(cfg, "test")
        self.loader = build_test_loader(cfg, self.dataset, distributed.rank, distributed.world_size)
        data_fingerprint(self.dataset)  # a missing image is an error before any work
        self.metric = build_metric(cfg)
        self.can_score = self.metric.can_score(self.dataset)

    def predict(
        self, network: PoseNetwork, should_stop: Callable[[], bool] = lambda: False, **options: Any
    ) -> Predictions:
        """Predict every person with a network on TEST.RUNTIME; options as of `predict_with`.

        Its buffers are replaced by those of the main process.
        """
        broadcast_buffers(network, self.distributed)
        test, size = self.cfg.TEST, tuple(self.cfg.MODEL.IMAGE_SIZE)
        runner = build_runner(network, test.RUNTIME, test.PRECISION, size)
        return self.predict_with(runner, should_stop, **options)

    def predict_with(
        self, run: Runner, should_stop: Callable[[], bool] = lambda: False, **options: Any
    ) -> Predictions:
        """Predict every person of the set once, in the order of the set; options as of `predict`.

        KeyboardInterrupt, between two batches, once `should_stop` is true in any process.
        """
        batches = takewhile(lambda batch: not should_stop(), self.loader)
        decoding = build_decoding(self.cfg, self.dataset.skeleton)
        predictions = predict(run, batches, self.distributed.device, decoding, **options)
        if all_reduce_any([should_stop()], self.distributed)[0]:
            raise KeyboardInterrupt
        return concatenate(all_gather(predictions, self.distributed))

    def score(self, predictions: Predictions) -> dict[str, float] | None:
        """Return the metric's scores; None if the set has no annotation to score with."""
        if not self.can_score:
            return None
        scores = self.metric.evaluate(predictions, self.dataset)
        return {name: float(score) for name, score in scores.items()}  # checkpoints hold no NumPy

    def score_mean_pose(self) -> dict[str, float] | None:
        """Return the scores of the training set's mean pose; None without annotation of both."""
        if not self.can_score:
            return None
        try:
            train = read_annotation(self.cfg, "train")
        except UserError as error:  # a data set only for testing has none
            log.info("no score of the mean pose: %s", error)
            return None
        return self.score(mean_pose(train.records, self.dataset.records))


def evaluate_checkpoint(
    cfg: CfgNode, distributed: Distributed, folder: Path, file: str | Path
) -> str:
    """Test a file that `load_runner` reads; return the table of scores.

    The table compares the network with the mean pose. Writes the predictions, `results.json` and
    `people.jpg`, the first people as annotated and as predicted, to `results_folder(folder, ...)`.
    """
    tester = Tester(cfg, distributed)
    run = load_runner(cfg, file, distributed.device)
    try:
        predictions = tester.predict_with(run)
    finally:
        tester.loader.close()
    scores, baseline = tester.score(predictions), tester.score_mean_pose()
    metric = tester.metric
    rows = {cfg.MODEL.NAME: scores, "mean pose": baseline}
    scored = {name: row for name, row in rows.items() if row is not None}
    table = metric.table(scored) if scored else "no scores: the set has no annotation"
    if distributed.is_main:
        origin = provenance(cfg, tester.dataset, cfg.DATASET.TEST_SET)
        parts = cfg.MODEL, cfg.DATASET, {**cfg.TEST, "MODEL_FILE": ""}, origin["data"]
        tested = hashlib.sha256(Path(file).read_bytes() + repr(parts).encode()).hexdigest()
        folder = results_folder(folder, tested)
        metric.save_predictions(folder, predictions, tester.dataset)
        content = {
            "scores": scores, "mean pose": baseline,
            "metric": {"name": metric.name, "primary": metric.primary},
            "people": len(predictions.joints), "weights": str(file), "tested": tested, **origin,
        }  # fmt: skip
        write_json(folder / RESULTS, content)
        save_image(folder / "people.jpg", contact_sheet(tester.dataset, predictions))
        log.info("%s\n%s", file, table, extra=FILE_ONLY)
        log.info("predictions, scores and images: %s", folder)
    return table
