"""Whether an exported network gives what eager gives, on the same crops, to rounding."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lib.core.model_file import read_onnx, read_openvino
from lib.core.runtime import Onnx, OpenVino
from lib.core.tracing import HEATMAPS, JOINTS, SCORES, ToJoints
from lib.utils import machine
from lib.utils.errors import UserError

HEATMAP_TOLERANCE = 1e-4  # of the heatmaps' spread; scores likewise
JOINT_TOLERANCE = 0.05  # pixels of the crop
TIE = 1e-4  # two scores of the pruning that differ by less, of their size, are as good as equal
_STEADY = JOINT_TOLERANCE / 10  # by how much rounding of the heatmaps may move a joint, see Check


@dataclass(frozen=True)
class Check:
    """How far an exported network is from eager, at most, where both prune alike.

    A joint is steady where eager's own answer is the same, within a tenth of the tolerance, for the
    exported network's heatmaps and for eager's. It is not where two cells tie for the highest.
    """

    people: int
    heatmaps: float  # share of the heatmaps' spread, and so for scores
    joints: float  # of those that are steady, pixels of the crop
    steady: int
    all_joints: int
    choices: int  # what the pruning kept, in all stages
    otherwise: int  # how many of these eager alone would not have kept
    shortfall: float  # by which share of its score the worst of them is weaker than eager's weakest

    @property
    def fault(self) -> str:
        """Why the file must not be used; empty where it is right."""
        if not self.heatmaps <= HEATMAP_TOLERANCE:
            return f"heatmaps differ from eager's by {self.heatmaps:.1e} of their spread"
        if not self.shortfall <= TIE:
            return f"its pruning keeps weaker scores than eager, by a share of {self.shortfall:.1e}"
        if not self.joints <= JOINT_TOLERANCE:
            return f"joints differ from eager's by {self.joints:.2g} pixels"
        if not self.steady:
            return "rounding moves every joint, so that none can be compared"
        return ""

    def __str__(self) -> str:
        text = f"heatmaps within {self.heatmaps:.1e} of their spread, joints within "
        text += f"{self.joints:.5f} pixels"
        if self.steady < self.all_joints:
            loose = self.all_joints - self.steady
            text += f" ({loose} of {self.all_joints} left out, whose highest cells tie)"
        if self.choices:
            text += f"; of {self.choices} that pruning kept, {self.otherwise} otherwise than eager"
        if self.otherwise:
            text += f", on ties (scores within {self.shortfall:.1e})"
        return text


class Replay:
    """Choose what an exported network chose, and note how that differs from the best.

    Pruning decides: where two scores are equal but for rounding, two runtimes may keep different
    ones, and both are right. Given the same decisions they differ by rounding alone, so the
    decisions and all that follows from them are checked apart.
    """

    def __init__(self, choices: Iterable[Tensor]) -> None:
        """`choices` are the network's, stage by stage, each as `machine.largest` returns them."""
        self._choices = iter(choices)
        self.count = self.otherwise = 0
        self.shortfall = 0.0

    def __call__(self, scores: Tensor, keep: int) -> Tensor:
        """Return what was kept of `scores` [.., n]; UserError where that is not exactly `keep`."""
        own = machine.largest(scores, keep)
        chosen = next(self._choices, None)
        if chosen is None:  # no heatmap depends on it, so the exported network does not choose
            return own
        chosen, kept = chosen.long(), torch.zeros_like(scores)
        fits = chosen.shape == own.shape and chosen.min() >= 0 and chosen.max() < scores.shape[-1]
        if not fits or (kept.scatter_(-1, chosen, 1).sum(-1) != keep).any():
            raise UserError(f"the exported network does not keep exactly {keep} where it prunes")
        limit = scores.gather(-1, own).amin(-1)
        short = (limit - scores.gather(-1, chosen).amin(-1)) / limit.clamp(min=1e-30)
        self.count += own.numel()
        self.otherwise += own.numel() - int(kept.gather(-1, own).sum())
        self.shortfall = max(self.shortfall, short.max().item())
        return chosen


@dataclass(frozen=True)
class Probe:
    """An exported file as it is, and laid open: with heatmaps and choices as further outputs."""

    plain: Onnx | OpenVino
    open: Onnx | OpenVino
    outputs: Sequence[str]  # of the file, and heatmaps if not among them; then come the choices


def probe_onnx(path: str | Path) -> Probe:
    """Lay an `.onnx` file open."""
    import onnx  # here, as few commands need it

    model = read_onnx(path)
    plain = Onnx(model.SerializeToString())
    chosen = [
        node.output[1] for node in model.graph.node
        if node.op_type == "TopK" and any(a.name == "largest" and a.i for a in node.attribute)
    ]  # fmt: skip
    outputs = [value.name for value in model.graph.output]
    more = [] if HEATMAPS in outputs else [HEATMAPS]
    for name in (*more, *chosen):
        kind = onnx.TensorProto.INT64 if name in chosen else onnx.TensorProto.FLOAT
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return Probe(plain, Onnx(model.SerializeToString()), outputs + more)


def probe_openvino(path: str | Path) -> Probe:
    """Lay an `.xml` file open."""
    model = read_openvino(path)
    plain = OpenVino(model.clone(), "fp32")
    layers = model.get_ordered_ops()
    chosen = [
        layer.output(1) for layer in layers
        if layer.get_type_name() == "TopK" and layer.get_attributes()["mode"] == "max"
    ]  # fmt: skip
    outputs = [min(port.names) for port in model.outputs]
    more = []
    if HEATMAPS not in outputs:
        more = [HEATMAPS]
        model.add_outputs([la.output(0) for la in layers if la.get_friendly_name() == HEATMAPS])
        del chosen[-1]  # the highest cell of each heatmap, which is found last
    model.add_outputs(chosen)
    return Probe(plain, OpenVino(model, "fp32"), outputs + more)


@torch.no_grad()
def compare(network: ToJoints, probe: Probe, crops: Tensor) -> Check:
    """Run an exported network and eager on the same crops, one alone and the others together.

    UserError where the exported network does not keep as many as it should.
    """
    parts = [_compare(network, probe, part) for part in (crops[:1], crops[1:]) if len(part)]
    differences, spreads, joints, replays = zip(*parts, strict=True)
    moved, apart = (torch.cat(part) for part in zip(*joints, strict=True))
    steady = moved <= _STEADY
    return Check(
        people=len(crops),
        heatmaps=max(differences) / max(spreads),
        joints=apart[steady].max().item() if steady.any() else 0.0,
        steady=int(steady.sum()),
        all_joints=steady.numel(),
        choices=sum(replay.count for replay in replays),
        otherwise=sum(replay.otherwise for replay in replays),
        shortfall=max(replay.shortfall for replay in replays),
    )


def _compare(
    network: ToJoints, probe: Probe, crops: Tensor
) -> tuple[float, float, tuple[Tensor, Tensor], Replay]:
    """Difference and spread of heatmaps; how far rounding moves joints, and how far they are apart.

    Joints are compared on the exported network's own heatmaps, whose error is told already.
    """
    inside = probe.open.all(crops)
    found = dict(zip(probe.outputs, inside, strict=False))
    # `machine.largest` hands rows over as columns.
    choices = [choice.transpose(-2, -1) for choice in inside[len(probe.outputs) :]]
    replay, eager = Replay(choices), copy.deepcopy(network)
    eager.pixels.model.transformer.choose = replay
    wanted, joints, _ = eager(crops)
    # What the file itself says goes before what it says laid open.
    own = probe.plain.all(crops)
    found |= dict(zip(probe.outputs, own, strict=False))
    heatmaps = found[HEATMAPS]
    again, scores = network.decode(heatmaps)
    differences = [(heatmaps - wanted).abs().max()]
    if SCORES in found:
        differences.append((found[SCORES] - scores).abs().max())
    moved = (again - joints).abs().amax(-1)
    apart = (found.get(JOINTS, again) - joints).abs().amax(-1)
    spread = wanted.max() - wanted.min()
    return torch.stack(differences).max().item(), spread.item(), (moved, apart), replay
