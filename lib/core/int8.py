"""What int8 costs a network, and the people that it is calibrated on."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from yacs.config import CfgNode

from lib.core.tester import Tester
from lib.dataset import build_skeleton
from lib.dataset.heatmap import decode
from lib.inference.export import crops_of_set
from lib.inference.pipeline import Runner, build_decoding, predict_heatmaps
from lib.inference.quantize import import_nncf, quantize_file
from lib.utils.distributed import Distributed
from lib.utils.errors import UserError

log = logging.getLogger(__name__)

# Compares the runners before and after; UserError if the loss is too large.
Measure = Callable[[Runner, Runner], str]
NEAR = 0.05  # of the heatmap's longer side: a joint that moves less agrees


def quantization(
    cfg: CfgNode,
    distributed: Distributed,
    file_format: str,
    crops: Tensor | None,
    *,
    people: int,
    max_loss: float | None,
) -> Callable[[Path], str]:
    """Return a function that makes an exported file int8, calibrated on so many training people.

    It raises UserError at a loss of more than `max_loss` percent of the test score (None: 0.5), or
    of the joints in `crops`, if given (None: 5). UserError at once if a package or people are
    missing.
    """
    if file_format == "openvino":
        import_nncf()
    if crops is None:
        measure = _compare_scores(cfg, distributed, 0.5 if max_loss is None else max_loss)
    else:
        measure = _compare_joints(cfg, crops, 5.0 if max_loss is None else max_loss)
    train = cfg.clone()
    train.defrost()
    train.DATASET.TEST_SET = cfg.DATASET.TRAIN_SET  # as in a test: not augmented
    problem = "int8 is calibrated on DATASET.TRAIN_SET"
    calibration, source = crops_of_set(train, people, problem)
    log.info("calibrating on %s", source)
    return partial(quantize_file, crops=calibration, measure=measure)


def _compare_scores(cfg: CfgNode, distributed: Distributed, max_loss: float) -> Measure:
    """Compare the scores on the test set; a loss may be `max_loss` percent of the score."""
    tester = Tester(cfg, distributed)
    name, primary = tester.metric.name, tester.metric.primary
    if not tester.can_score:
        raise UserError(f"DATASET.TEST_SET {cfg.DATASET.TEST_SET} has no scores; use --images")

    def measure(before: Runner, after: Runner) -> str:
        try:
            scores = [tester.score(tester.predict_with(run)) or {} for run in (before, after)]
        finally:
            tester.loader.close()
        old, new = (score[primary] for score in scores)
        sign = 1 if tester.metric.higher_is_better else -1
        text = f"{name} {primary} {new:.4g}, fp32 {old:.4g}, {len(tester.dataset)} people"
        return _check(text, 100 * sign * (old - new) / old if old else 0.0, max_loss)

    return measure


def _compare_joints(cfg: CfgNode, crops: Tensor, max_loss: float) -> Measure:
    """Compare the joints in crops, of which `max_loss` percent may move by more than NEAR."""
    decoding = build_decoding(cfg, build_skeleton(cfg))

    @torch.inference_mode()
    def measure(before: Runner, after: Runner) -> str:
        heatmaps = [
            predict_heatmaps(run, crops, decoding.flip_order, decoding.shift)
            for run in (before, after)
        ]
        old, new = (decode(maps, decoding.blur_kernel, decoding.refine)[0] for maps in heatmaps)
        moved = (old - new).norm(dim=-1) > NEAR * max(heatmaps[0].shape[2:])
        loss = 100 * moved.float().mean().item()
        text = f"{100 - loss:.4g} % of the joints of {len(crops)} images are where fp32 has them"
        return _check(text, loss, max_loss)

    return measure


def _check(text: str, loss: float, max_loss: float) -> str:
    if not loss <= max_loss:  # nan too
        raise UserError(
            f"int8 is not written, it loses {loss:.2f} %, more than --max-loss {max_loss:g}: {text}"
        )
    log.info("int8: %s", text)
    return text
