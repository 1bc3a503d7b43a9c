"""Registry of metrics. To add one, write a `Metric` and add it to `METRICS`."""

from yacs.config import CfgNode

from lib.dataset import dataset_spec
from lib.metrics.base import Metric
from lib.metrics.oks import OksAP
from lib.metrics.pckh import PCKh

__all__ = ["METRICS", "Metric", "build_metric"]

METRICS: dict[str, Metric] = {"pckh": PCKh(), "oks_ap": OksAP()}


def build_metric(cfg: CfgNode) -> Metric:
    """Return the metric of DATASET.DATASET, with the options of the configuration."""
    return METRICS[dataset_spec(cfg).metric].build(cfg)
