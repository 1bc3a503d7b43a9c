"""The network with what belongs before and behind it, handed to ONNX or to OpenVINO."""

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lib.core.inference import normalise
from lib.dataset.heatmap import decode
from lib.dataset.transforms import heatmap_to_crop
from lib.utils.errors import UserError
from lib.utils.machine import exporting

# Names of what goes in and comes out.
IMAGES, HEATMAPS, JOINTS, SCORES = "images", "heatmaps", "joints", "scores"
OPSET = 18  # of ONNX: the oldest that PyTorch writes, which the most runtimes read
_LARGEST_BATCH = 4096


class FromPixels(nn.Module):
    """A network that takes pixels: crops uint8 [B, h, w, 3] -> heatmaps [B, J, h', w'], fp32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Normalise and look."""
        return self.model(normalise(images)).float()


class ToJoints(nn.Module):
    """Pixels to heatmaps, joints [B, J, 2] in pixels of the crop, and scores [B, J]."""

    def __init__(
        self, model: nn.Module, size: tuple[int, int], *, refine: bool, blur_kernel: int
    ) -> None:
        """`size` (w, h) of the crops; `refine` and `blur_kernel` as of `decode`."""
        super().__init__()
        self.pixels = FromPixels(model)
        self.size = size
        self.refine = refine
        self.blur_kernel = blur_kernel

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Look, and find each joint."""
        heatmaps = self.pixels(images)
        return heatmaps, *self.decode(heatmaps)

    def decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Heatmaps -> joints and scores."""
        cells, scores = decode(heatmaps, blur_kernel=self.blur_kernel, refine=self.refine)
        return heatmap_to_crop(cells, self.size, heatmaps.shape[:1:-1]), scores


def trace(module: nn.Module, size: tuple[int, int]) -> torch.export.ExportedProgram:
    """Record what a module does to crops of `size` (w, h), any number of them at a time."""
    # A batch of two is an example of any batch; one would be taken for a constant.
    example = torch.zeros(2, size[1], size[0], 3, dtype=torch.uint8)
    shapes = ({0: torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)},)
    plain = copy.deepcopy(module).cpu().eval()
    with torch.no_grad(), exporting(), _quiet():
        return torch.export.export(plain, (example,), dynamic_shapes=shapes)


def to_onnx(program: torch.export.ExportedProgram, outputs: Sequence[str]) -> Any:
    """Write down a trace as an `onnx.ModelProto`, which holds its weights itself."""
    with _quiet():
        found = torch.onnx.export(
            program, (), input_names=[IMAGES], output_names=list(outputs),
            dynamo=True, opset_version=OPSET, verbose=False,
        )  # fmt: skip
    model = found.model_proto
    graph = model.graph
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.value_info[:]  # which names the batch otherwise
    # Each node says which lines of which file on this machine it comes from.
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
    return model


def to_openvino(program: torch.export.ExportedProgram, outputs: Sequence[str]) -> Any:
    """Write down a trace as an `openvino.Model`; UserError where OpenVINO is not installed."""
    model = import_openvino().convert_model(program)
    for port, name in zip((*model.inputs, *model.outputs), (IMAGES, *outputs), strict=True):
        port.get_tensor().set_names({name})
    height, width = program.example_inputs[0][0].shape[1:3]
    model.reshape([-1, height, width, 3])
    return model


def import_openvino() -> Any:
    """Return the module `openvino`; UserError where it is not installed."""
    try:
        import openvino
    except ImportError:
        raise UserError("OpenVINO is not installed: .venv/bin/pip install openvino") from None
    return openvino


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' progress and advice to themselves."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
