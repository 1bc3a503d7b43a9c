"""Registry of data sets: each has a reader, a skeleton and a metric.

To add one, add it to `DATASETS`, a new skeleton to `lib.dataset.skeleton.SKELETONS`, and a new
metric to `lib.metrics.METRICS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from yacs.config import CfgNode

from lib.config.check import check_name, config_error
from lib.dataset.coco import read_coco
from lib.dataset.mpii import read_mpii
from lib.dataset.records import Annotation, Boxes
from lib.dataset.skeleton import SKELETONS, Skeleton
from lib.dataset.skeleton_file import SUFFIXES, read_skeleton

# (root folder, name of the set, skeleton, boxes to crop, if the format does not say) -> its people;
# UserError names the file that is wrong
Reader = Callable[[Path, str, Skeleton, Boxes], Annotation]


@dataclass(frozen=True)
class DatasetSpec:
    """A data set: the reader of its files, and the names of its skeleton and metric."""

    read: Reader
    skeleton: str
    metric: str


DATASETS: dict[str, DatasetSpec] = {
    **{name: DatasetSpec(read_mpii, "mpii", "pckh") for name in ("mpii", "lspet", "synthetic")},
    "coco": DatasetSpec(read_coco, "coco", "oks_ap"),
}


def dataset_spec(cfg: CfgNode) -> DatasetSpec:
    """Return the spec of DATASET.DATASET; UserError if there is none."""
    check_name(cfg, "DATASET.DATASET", DATASETS)
    return DATASETS[cfg.DATASET.DATASET]


def build_skeleton(cfg: CfgNode) -> Skeleton:
    """Return the skeleton DATASET.SKELETON or, if that is empty, the one of the data set.

    UserError if there is none of that name, its file is wrong, or MODEL.NUM_JOINTS differs.
    """
    name = cfg.DATASET.SKELETON or dataset_spec(cfg).skeleton
    is_file = name.endswith(SUFFIXES)
    if cfg.DATASET.SKELETON and not is_file:
        check_name(cfg, "DATASET.SKELETON", (*SKELETONS, "FILE.yaml"))
    skeleton = read_skeleton(Path(cfg.DATA_DIR) / name) if is_file else SKELETONS[name]
    if skeleton.num_joints != cfg.MODEL.NUM_JOINTS:
        text = f"the skeleton {name} has {skeleton.num_joints} joints"
        raise config_error(cfg, "MODEL.NUM_JOINTS", text)
    if cfg.DATASET.PROB_HALF_BODY > 0 and not skeleton.upper_body:
        raise config_error(cfg, "DATASET.PROB_HALF_BODY", f"{name} has no `upper_body`: add it")
    return skeleton
