"""Datasets by name, and how the configuration builds them."""

from pathlib import Path
from typing import Literal

from yacs.config import CfgNode

from lib.dataset.appearance import Appearance
from lib.dataset.augment import Augmentation
from lib.dataset.loader import build_test_loader, build_train_loader
from lib.dataset.mpii import PoseDataset, find_gt, fits_its_box, open_images, read_records
from lib.dataset.skeleton import MPII, Skeleton
from lib.utils.errors import UserError

__all__ = [
    "DATASETS",
    "annotation_path",
    "build_dataset",
    "build_test_loader",
    "build_train_loader",
    "rooted",
]

# Datasets in MPII's layout, and the skeleton that each is annotated with.
DATASETS: dict[str, Skeleton] = {"mpii": MPII, "lspet": MPII, "synthetic": MPII}


def build_dataset(cfg: CfgNode, split: Literal["train", "test"]) -> PoseDataset:
    """Return the people of DATASET.TRAIN_SET, augmented, or of DATASET.TEST_SET, as they are.

    UserError names the key or the file that is wrong.
    """
    options, training = cfg.DATASET, split == "train"
    if options.DATASET not in DATASETS:
        known = ", ".join(DATASETS)
        raise UserError(f"DATASET.DATASET: {options.DATASET!r} is not known, only {known}")
    skeleton = DATASETS[options.DATASET]
    if skeleton.num_joints != cfg.MODEL.NUM_JOINTS:
        raise UserError(
            f"MODEL.NUM_JOINTS: {cfg.MODEL.NUM_JOINTS} does not fit DATASET.DATASET "
            f"{options.DATASET!r}, whose people have {skeleton.num_joints} joints"
        )
    root = rooted(cfg, options.ROOT)
    image_set = options.TRAIN_SET if training else options.TEST_SET
    path = annotation_path(cfg, image_set)
    records = read_records(path, skeleton.num_joints, with_joints=image_set != "test")
    if training and options.SELECT_DATA:
        records = [record for record in records if fits_its_box(record)]
        if not records:
            raise UserError(f"{path}: DATASET.SELECT_DATA leaves nobody; set it to False")
    return PoseDataset(
        records,
        open_images(root, options.DATA_FORMAT),
        skeleton,
        tuple(cfg.MODEL.IMAGE_SIZE),
        augmentation=build_augmentation(cfg) if training else None,
        appearance=Appearance(options.COLOR, options.CUTOUT) if training else None,
        seed=cfg.SEED,
        color_rgb=options.COLOR_RGB,
        replace_bad=training and options.SKIP_BAD_IMAGES > 0,
        gt_path=find_gt(root, image_set),
    )


def annotation_path(cfg: CfgNode, image_set: str) -> Path:
    """Return the annotation file of a set, `train` or `valid` for instance."""
    return rooted(cfg, cfg.DATASET.ROOT) / "annot" / f"{image_set}.json"


def rooted(cfg: CfgNode, path: str | Path) -> Path:
    """Return `path`, put under DATA_DIR if it is relative."""
    return Path(cfg.DATA_DIR) / path


def build_augmentation(cfg: CfgNode) -> Augmentation:
    """Return how much the configuration varies the samples of training."""
    return Augmentation(
        scale_factor=cfg.DATASET.SCALE_FACTOR,
        rotation_factor=cfg.DATASET.ROT_FACTOR,
        flip=cfg.DATASET.FLIP,
        half_body_probability=cfg.DATASET.PROB_HALF_BODY,
        half_body_joints=cfg.DATASET.NUM_JOINTS_HALF_BODY,
    )
