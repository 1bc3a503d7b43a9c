"""The accuracy of heatmaps that training logs."""

from pathlib import Path

import numpy as np
import torch

from lib.dataset.heatmap import encode
from lib.metrics.heatmap_accuracy import heatmap_accuracy


def test_it_equals_the_published_one(shared: Path) -> None:
    golden = np.load(shared / "golden/heatmap_accuracy.npz")
    accuracy, mean, count = heatmap_accuracy(
        torch.tensor(golden["output"]), torch.tensor(golden["target"])
    )
    np.testing.assert_array_equal(accuracy, golden["acc"][1:])
    assert mean.item() == golden["avg"]
    assert count.item() == golden["cnt"]


def test_only_joints_with_a_target_count() -> None:
    joints = torch.tensor([[[20.0, 10.0], [20.0, 10.0], [20.0, 10.0], [20.0, 1.0]]])
    visible = torch.tensor([[1.0, 1.0, 0.0, 1.0]])  # the last is in the first two rows
    target, _ = encode(joints, visible, (40, 20), sigma=1)
    # Near is less than 2 cells in x and less than 1 in y.
    moved = joints + torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    output, _ = encode(moved, torch.ones(1, 4), (40, 20), sigma=1)
    accuracy, mean, count = heatmap_accuracy(output, target)
    assert accuracy[:2].tolist() == [1, 0]
    assert accuracy[2:].isnan().all()
    assert (mean.item(), count.item()) == (0.5, 2)
    _, mean, count = heatmap_accuracy(output, torch.zeros_like(target))
    assert (mean.item(), count.item()) == (0, 0)
