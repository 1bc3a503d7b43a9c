"""Images of training batches and of predictions."""

from collections.abc import Sequence

import numpy as np
from yacs.config import CfgNode

from lib.core.engine import StepResult
from lib.dataset.heatmap import decode
from lib.dataset.pose_dataset import PoseDataset
from lib.dataset.predictions import Predictions
from lib.dataset.skeleton import Skeleton
from lib.dataset.transforms import crop_matrix, rescale_joints, transform_points
from lib.utils import drawing


def debug_images(cfg: CfgNode, result: StepResult, skeleton: Skeleton) -> dict[str, np.ndarray]:
    """Draw a training batch as the DEBUG keys require: name -> image uint8 [H, W, 3], RGB.

    `gt` and `pred` show annotated and predicted joints, `hm_gt` and `hm_pred` their heatmaps.
    """
    debug = cfg.DEBUG
    drawn: dict[str, np.ndarray] = {}
    if not debug.DEBUG:
        return drawn
    images = _rgb(result.batch["image"].cpu().numpy(), cfg.DATASET.COLOR_RGB)
    visible = result.batch["visible"].cpu().numpy()
    if debug.SAVE_BATCH_IMAGES_GT:
        joints = result.batch["joints"].cpu().numpy()
        drawn["gt"] = drawing.draw_batch(images, joints, visible, skeleton)
    if debug.SAVE_BATCH_IMAGES_PRED:
        cells = decode(result.output, refine=False)[0].cpu()
        sizes = cfg.MODEL.HEATMAP_SIZE, cfg.MODEL.IMAGE_SIZE
        joints = rescale_joints(cells, *sizes, cfg.DATASET.UNBIASED).numpy()
        drawn["pred"] = drawing.draw_batch(images, joints, visible, skeleton)
    if debug.SAVE_HEATMAPS_GT:
        drawn["hm_gt"] = drawing.draw_batch_heatmaps(images, result.target.cpu().numpy())
    if debug.SAVE_HEATMAPS_PRED:
        heatmaps = result.output.float().cpu().numpy()
        drawn["hm_pred"] = drawing.draw_batch_heatmaps(images, heatmaps)
    return drawn


def contact_sheet(
    dataset: PoseDataset, predictions: Predictions, people: Sequence[int] | None = None
) -> np.ndarray:
    """Draw people of a data set as pairs of crops: annotation, then prediction.

    uint8 [H, W, 3], RGB. `people` are their indices; default: the first 24. Without annotation the
    first crop of a pair has no joints.
    """
    pairs = []
    for index in range(min(24, len(dataset))) if people is None else people:
        sample = dataset[index]
        image = _rgb(sample["image"], dataset.color_rgb)
        box, size = (sample["center"], sample["scale"]), image.shape[1::-1]
        matrix = crop_matrix(*box, 0.0, size, unbiased=dataset.unbiased)
        joints = transform_points(predictions.joints[index], matrix)
        pairs.append((image, sample["joints"], sample["visible"]))
        pairs.append((image, joints, predictions.scores[index]))
    images, joints, scores = (np.stack(column) for column in zip(*pairs, strict=True))
    return drawing.draw_batch(images, joints, scores, dataset.skeleton, len(images))


def _rgb(images: np.ndarray, is_rgb: bool) -> np.ndarray:
    return images if is_rgb else images[..., ::-1]
