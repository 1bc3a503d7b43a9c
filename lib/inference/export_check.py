"""The check of an exported file: it must compute what eager computes, on the same crops."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.inference.pipeline import PixelsToJoints
from lib.inference.tracing import Outputs

MEDIAN_TOLERANCE = 1e-5  # of the heatmaps' spread, median over crops; right exports: 1e-6
HALF_TOLERANCE = 2e-2  # the same of weights rounded to fp16; a trained network: 2e-3
MAX_TOLERANCE = 5e-2  # the same of any crop; one token of 24 moves heatmaps by 3e-2
JOINT_TOLERANCE = 0.05  # pixels of the crop
MIN_AGREEMENT = 0.95  # share of joints; a decoder that is wrong for one of 16 or 17 has less


@dataclass(frozen=True)
class Check:
    """How far an exported file is from eager.

    `median` and `maximum` are over crops: the largest difference of a heatmap cell, or of a score,
    as a share of the spread of eager's heatmaps. They have separate limits because pruning decides:
    of two scores that are equal but for rounding, a runtime may keep the other one, which moves the
    heatmaps of that crop a little. `joints` is the share of joints within JOINT_TOLERANCE of
    eager's decoding of the file's own heatmaps, None if the file does not decode. Rounding moves a
    joint far only if the log of its heatmap is flat. `tolerance` is the limit of `median`.
    """

    median: float
    maximum: float
    joints: float | None
    tolerance: float = MEDIAN_TOLERANCE

    @property
    def agrees(self) -> bool:
        """Whether the file may be used; False if a number is NaN."""
        is_close = self.median <= self.tolerance and self.maximum <= MAX_TOLERANCE
        return is_close and (self.joints is None or self.joints >= MIN_AGREEMENT)

    def __str__(self) -> str:
        joints = "" if self.joints is None else f"; {self.joints:.1%} of the joints agree"
        return (
            f"heatmaps differ from PyTorch's by {self.median:.1e} of their spread (median over "
            f"crops), at most {self.maximum:.1e}{joints}"
        )


@torch.no_grad()
def compare(
    network: PixelsToJoints, file: Outputs, crops: Tensor, tolerance: float = MEDIAN_TOLERANCE
) -> Check:
    """Run an exported file and eager on crops uint8 [N, h, w, 3], one alone, the rest in a batch.

    `file` gives heatmaps, or heatmaps, joints and scores.
    """
    batches = [batch for batch in (crops[:1], crops[1:]) if len(batch)]
    expected = torch.cat([network.heatmaps(batch) for batch in batches])
    outputs = [file(batch) for batch in batches]
    heatmaps, *decoded = (torch.cat(column) for column in zip(*outputs, strict=True))
    difference = (heatmaps - expected).abs().flatten(1).amax(dim=1)
    agreement = None
    if decoded:
        (joints, scores), (expected_joints, expected_scores) = decoded, network.decode(heatmaps)
        difference = difference.maximum((scores - expected_scores).abs().amax(dim=1))
        distance = (joints - expected_joints).norm(dim=-1)
        agreement = (distance <= JOINT_TOLERANCE).float().mean().item()
    share = difference / (expected.max() - expected.min())
    return Check(share.median().item(), share.max().item(), agreement, tolerance)
