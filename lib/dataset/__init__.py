"""Data sets by name, built from the configuration."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from yacs.config import CfgNode

from lib.dataset.appearance import Appearance
from lib.dataset.augment import Augmentation
from lib.dataset.loader import build_test_loader, build_train_loader
from lib.dataset.pose_dataset import PoseDataset, open_images
from lib.dataset.records import Annotation, fits_its_box
from lib.dataset.registry import DATASETS, DatasetSpec, build_skeleton, dataset_spec
from lib.dataset.skeleton import SKELETONS, Skeleton
from lib.utils.errors import UserError

__all__ = [
    "DATASETS",
    "SKELETONS",
    "Annotation",
    "DatasetSpec",
    "PoseDataset",
    "Skeleton",
    "build_dataset",
    "build_skeleton",
    "build_test_loader",
    "build_train_loader",
    "dataset_spec",
    "read_annotation",
    "resolve_path",
]


def build_dataset(cfg: CfgNode, split: Literal["train", "test"]) -> PoseDataset:
    """Return the people of DATASET.TRAIN_SET, augmented, or of DATASET.TEST_SET, not augmented.

    UserError names the key or the file that is wrong.
    """
    options, training = cfg.DATASET, split == "train"
    annotation = read_annotation(cfg, options.TRAIN_SET if training else options.TEST_SET)
    if training and options.SELECT_DATA:
        records = [record for record in annotation.records if fits_its_box(record)]
        if not records:
            raise UserError(f"{annotation.path}: DATASET.SELECT_DATA removes everyone; unset it")
        annotation = replace(annotation, records=records)
    return PoseDataset(
        annotation,
        open_images(resolve_path(cfg, options.ROOT), options.DATA_FORMAT),
        build_skeleton(cfg),
        tuple(cfg.MODEL.IMAGE_SIZE),
        augmentation=Augmentation(
            scale_factor=options.SCALE_FACTOR,
            rotation_factor=options.ROT_FACTOR,
            flip=options.FLIP,
            half_body_probability=options.PROB_HALF_BODY,
            half_body_joints=options.NUM_JOINTS_HALF_BODY,
        )
        if training
        else None,
        appearance=Appearance(options.COLOR, options.CUTOUT) if training else None,
        seed=cfg.SEED,
        color_rgb=options.COLOR_RGB,
        replace_bad=training and options.SKIP_BAD_IMAGES > 0,
    )


def read_annotation(cfg: CfgNode, image_set: str) -> Annotation:
    """Read the people of a set, such as `train` or `valid`; UserError from its reader."""
    root = resolve_path(cfg, cfg.DATASET.ROOT)
    return dataset_spec(cfg).read(root, image_set, build_skeleton(cfg))


def resolve_path(cfg: CfgNode, path: str | Path) -> Path:
    """Return `path`, under DATA_DIR if it is relative."""
    return Path(cfg.DATA_DIR) / path
