"""The network's work by formula: multiply-adds of one image, part by part and layer by layer.

Counted are the products of convolutions, linear layers and attention, as `benchmark.count_macs`
counts them from outside; the two agree exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from lib.models.sparsity import keep_count
from lib.models.tokenpose import JointLayers, TokenPose
from lib.models.transformer import Block


@dataclass(frozen=True)
class LayerWork:
    """Multiply-adds of one layer, whose `tokens` are in the sequence when it begins.

    `attend` and `refine` are its halves; `choose` is what token pruning adds to see the weights it
    decides by. `masked` is the part of `attend` that goes into connections of weight 0: a mask does
    not spare it.
    """

    tokens: int
    attend: int
    refine: int
    choose: int = 0
    masked: int = 0

    @property
    def total(self) -> int:
        """All of the layer."""
        return self.attend + self.refine + self.choose


@dataclass(frozen=True)
class Work:
    """Multiply-adds of the whole network."""

    stem: int
    patches: int
    layers: tuple[LayerWork, ...]  # of the main transformer
    joint_layers: tuple[LayerWork, ...]
    head: int

    @property
    def total(self) -> int:
        """All of one image."""
        layers = sum(layer.total for layer in (*self.layers, *self.joint_layers))
        return self.stem + self.patches + layers + self.head


def work_of(model: TokenPose, size: tuple[int, int], dense: bool = False) -> Work:
    """Count the work on an image of `size` (w, h); with `dense` that of the network unpruned."""
    cells = size[0] * size[1] // 16
    width, height = model.patches.patch_size
    visual = cells // (width * height)
    joints = model.keypoint_tokens.shape[1]
    within = model.joint_layers if isinstance(model.joint_layers, JointLayers) else ()
    return Work(
        # The first convolution halves the picture, the second too, and all others keep its size.
        stem=sum(
            conv.weight.numel() * cells * (4 if conv is model.stem.conv1 else 1)
            for conv in model.stem.modules()
            if isinstance(conv, nn.Conv2d)
        ),
        patches=visual * model.patches.weight.numel(),
        layers=_main_layers(model, joints, visual, dense),
        joint_layers=tuple(
            LayerWork(joints, _attend(block, joints, joints), _refine(block, joints))
            for block in within
        ),
        head=joints * sum(m.weight.numel() for m in model.head if isinstance(m, nn.Linear)),
    )


def saved_by_stage(own: Work, dense: Work, stages: Sequence[int]) -> list[int]:
    """What each pruning, after the attention of those layers, spares until the next one decides.

    Their sum is all that the network saves. Negative where choosing costs more than it spares.
    """
    pairs = list(zip(own.layers, dense.layers, strict=True))
    attend = [whole.attend - left.attend for left, whole in pairs]
    refine = [whole.refine - left.refine for left, whole in pairs]
    ends = [*stages, len(pairs) - 1][1:]
    return [
        sum(refine[begin:end]) + sum(attend[begin + 1 : end + 1]) - own.layers[begin].choose
        for begin, end in zip(stages, ends, strict=True)
    ]


def _main_layers(model: TokenPose, joints: int, visual: int, dense: bool) -> tuple[LayerWork, ...]:
    transformer, last = model.transformer, len(model.transformer.blocks) - 1
    stages = () if dense else transformer.prune_layers
    leaves = transformer.prune == "token"
    alive, kept, layers = visual, visual, []  # tokens in the sequence, connections of each row
    for layer, block in enumerate(transformer.blocks):
        tokens = joints + alive
        asked = joints if layer == last else tokens  # the last layer asks for keypoint tokens only
        attend = _attend(block, tokens, asked)
        pruned = 0 if layer == last else alive * (alive - (alive if leaves else kept))
        choose = 0
        if layer in stages and layer != last:
            kept = keep_count(kept, transformer.keep_ratio)
            if leaves:
                choose = joints * tokens * _width(block)
                alive = kept
                asked = joints + alive
        masked = 2 * pruned * _width(block)
        layers.append(LayerWork(tokens, attend, _refine(block, asked), choose, masked))
    return tuple(layers)


def _width(block: Block) -> int:
    return block.attention.out.in_features


def _attend(block: Block, tokens: int, asked: int) -> int:
    """Keys and values of all, queries and output of those that ask, scores and their mixture."""
    square = _width(block) ** 2
    return 2 * tokens * square + 2 * asked * square + 2 * asked * tokens * _width(block)


def _refine(block: Block, tokens: int) -> int:
    return tokens * sum(m.weight.numel() for m in block.mlp if isinstance(m, nn.Linear))
