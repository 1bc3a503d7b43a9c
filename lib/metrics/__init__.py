"""Registry of metrics. To add one, write a `Metric` and add it to `METRICS`."""

from yacs.config import CfgNode

from lib.dataset import build_skeleton, dataset_spec
from lib.metrics.base import Metric
from lib.metrics.oks import OksAP
from lib.metrics.pck import PCK
from lib.metrics.pckh import PCKh

__all__ = ["METRICS", "Metric", "build_metric"]

METRICS: dict[str, Metric] = {"pckh": PCKh(), "oks_ap": OksAP(), "pck": PCK()}


def build_metric(cfg: CfgNode) -> Metric:
    """Return the metric of DATASET.DATASET, with the options of the configuration.

    It is PCK instead of OKS-AP if the skeleton has no sigmas.
    """
    name = dataset_spec(cfg).metric
    name = "pck" if name == "oks_ap" and not build_skeleton(cfg).sigmas else name
    return METRICS[name].build(cfg)
