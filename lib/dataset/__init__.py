"""Data sets by name, built from the configuration."""

from pathlib import Path
from typing import Literal

from yacs.config import CfgNode

from lib.dataset.augment import Augmentation
from lib.dataset.images import ImageFolder, ImageZip
from lib.dataset.loader import build_test_loader, build_train_loader
from lib.dataset.pose_dataset import PoseDataset
from lib.dataset.records import Annotation, Boxes, shared_images
from lib.dataset.registry import DATASETS, DatasetSpec, build_skeleton, dataset_spec
from lib.dataset.skeleton import SKELETONS, Skeleton

__all__ = [
    "DATASETS",
    "SKELETONS",
    "Annotation",
    "Boxes",
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
    "shared_images",
]


def build_dataset(cfg: CfgNode, split: Literal["train", "test"]) -> PoseDataset:
    """Return the people of DATASET.TRAIN_SET, augmented, or of DATASET.TEST_SET, not augmented.

    UserError names the key or the file that is wrong.
    """
    options, training = cfg.DATASET, split == "train"
    annotation = read_annotation(cfg, split)
    images = resolve_path(cfg, options.ROOT) / annotation.folder
    is_zip = options.DATA_FORMAT == "zip"
    return PoseDataset(
        annotation,
        ImageZip(images.with_name(f"{images.name}.zip")) if is_zip else ImageFolder(images),
        build_skeleton(cfg),
        tuple(cfg.MODEL.IMAGE_SIZE),
        augmentation=Augmentation(
            scale_factor=options.SCALE_FACTOR,
            rotation_factor=options.ROT_FACTOR,
            flip=options.FLIP,
            half_body_probability=options.PROB_HALF_BODY,
            half_body_joints=options.NUM_JOINTS_HALF_BODY,
            color=options.COLOR,
            cutout=options.CUTOUT,
        )
        if training
        else None,
        seed=cfg.SEED,
        color_rgb=options.COLOR_RGB,
        smooth=not training and cfg.TEST.SMOOTH_CROP,
        unbiased=options.UNBIASED,
        max_pixels=options.MAX_PIXELS,
        replace_bad=training and options.SKIP_BAD_IMAGES > 0,
    )


def read_annotation(cfg: CfgNode, split: Literal["train", "test"]) -> Annotation:
    """Read the people of DATASET.TRAIN_SET or TEST_SET; UserError from its reader."""
    options, test = cfg.DATASET, cfg.TEST
    boxes = Boxes(tuple(cfg.MODEL.IMAGE_SIZE))
    if split == "test" and not test.USE_GT_BBOX:
        boxes = Boxes(boxes.size, resolve_path(cfg, test.COCO_BBOX_FILE), test.IMAGE_THRE)
    image_set = options.TRAIN_SET if split == "train" else options.TEST_SET
    return dataset_spec(cfg).read(
        resolve_path(cfg, options.ROOT), image_set, build_skeleton(cfg), boxes
    )


def resolve_path(cfg: CfgNode, path: str | Path) -> Path:
    """Return `path`, under DATA_DIR if it is relative."""
    return Path(cfg.DATA_DIR) / path
