"""Pictures of what was learned from and what was found."""

import numpy as np
from yacs.config import CfgNode

from lib.core.engine import Step
from lib.core.inference import Predictions
from lib.dataset.heatmap import decode
from lib.dataset.mpii import PoseDataset
from lib.dataset.skeleton import Skeleton
from lib.dataset.transforms import crop_matrix, heatmap_to_crop, transform_points
from lib.utils import drawing


def debug_pictures(cfg: CfgNode, step: Step, skeleton: Skeleton) -> dict[str, np.ndarray]:
    """Draw a training batch as the DEBUG keys ask: name -> picture uint8 [H, W, 3], RGB.

    `gt` and `pred` show the people, `hm_gt` and `hm_pred` their heatmaps, annotated and found.
    """
    debug, pictures = cfg.DEBUG, {}
    if not debug.DEBUG:
        return pictures
    images = _rgb(step.batch["image"].cpu().numpy(), cfg.DATASET.COLOR_RGB)
    visible = step.batch["visible"].cpu().numpy()
    if debug.SAVE_BATCH_IMAGES_GT:
        joints = step.batch["joints"].cpu().numpy()
        pictures["gt"] = drawing.draw_batch(images, joints, visible, skeleton)
    if debug.SAVE_BATCH_IMAGES_PRED:
        cells, _ = decode(step.output, refine=False)
        joints = heatmap_to_crop(cells, cfg.MODEL.IMAGE_SIZE, cfg.MODEL.HEATMAP_SIZE)
        pictures["pred"] = drawing.draw_batch(images, joints.cpu().numpy(), visible, skeleton)
    if debug.SAVE_HEATMAPS_GT:
        pictures["hm_gt"] = drawing.draw_batch_heatmaps(images, step.target.cpu().numpy())
    if debug.SAVE_HEATMAPS_PRED:
        heatmaps = step.output.float().cpu().numpy()
        pictures["hm_pred"] = drawing.draw_batch_heatmaps(images, heatmaps)
    return pictures


def contact_sheet(dataset: PoseDataset, found: Predictions, most: int = 24) -> np.ndarray:
    """Draw the first people of a set in their crops, annotated (left) and found (right of it).

    uint8 [H, W, 3], RGB. Without annotation the left picture of a pair shows no joints.
    """
    pairs = []
    for index in range(min(most, len(dataset))):
        sample = dataset[index]
        image = _rgb(sample["image"], dataset.color_rgb)
        matrix = crop_matrix(sample["center"], sample["scale"], 0.0, image.shape[1::-1])
        joints = transform_points(found.joints[index], matrix)
        pairs.append((image, sample["joints"], sample["visible"]))
        pairs.append((image, joints, found.scores[index].clip(0, 1)))
    images, joints, shown = (np.stack(part) for part in zip(*pairs, strict=True))
    return drawing.draw_batch(images, joints, shown, dataset.skeleton, most=len(images))


def _rgb(images: np.ndarray, is_rgb: bool) -> np.ndarray:
    return images if is_rgb else images[..., ::-1]
