"""What a network has to beat: a prediction that never looks at the picture."""

from collections.abc import Sequence

import numpy as np

from lib.dataset.mpii import Record


def mean_pose(learned_from: Sequence[Record], asked: Sequence[Record]) -> np.ndarray:
    """Predict for everyone in `asked` the mean pose of `learned_from`, blind to pictures.

    The mean is taken over annotated joints, relative to each person's box. Returns [N, J, 2],
    0-based pixels.
    """
    center, scale, joints = _boxes_and_joints(learned_from)
    annotated = np.stack([record.visible for record in learned_from])[..., None]
    mean = ((joints - center) / scale * annotated).sum(axis=0)
    mean /= np.maximum(annotated.sum(axis=0), 1)
    center, scale, _ = _boxes_and_joints(asked)
    return mean * scale + center


def _boxes_and_joints(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centers [N, 1, 2], scales [N, 1, 2] and joints [N, J, 2]."""
    center = np.stack([record.center for record in records])[:, None]
    scale = np.stack([record.scale for record in records])[:, None]
    return center, scale, np.stack([record.joints for record in records]).astype(np.float64)
