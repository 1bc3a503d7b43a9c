"""ONNX and OpenVINO: trace a network, convert it and run it."""

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lib.inference.pipeline import Runner
from lib.utils.errors import UserError

IMAGES, HEATMAPS, JOINTS, SCORES = "images", "heatmaps", "joints", "scores"  # inputs and outputs
OPSET = 18  # of ONNX: the oldest that PyTorch writes, which most runtimes read

Outputs = Callable[[Tensor], list[Tensor]]  # crops uint8 [B, h, w, 3] -> every output, on the CPU


def build_traced_runner(
    network: nn.Module, runtime: str, precision: str, size: tuple[int, int]
) -> Runner:
    """Return a runner of `network`, crops to heatmaps, on `onnx` or `openvino`."""
    program = trace(network, size)
    if runtime == "onnx":
        return heatmaps_of(run_onnx(to_onnx(program, [HEATMAPS]).SerializeToString()))
    return heatmaps_of(run_openvino(to_openvino(program, [HEATMAPS]), precision))


def trace(module: nn.Module, size: tuple[int, int]) -> torch.export.ExportedProgram:
    """Trace a copy of a module, in evaluation mode, for crops of `size` (w, h) and any batch."""
    # The example has a batch of two, as torch.export takes a batch of one for a constant.
    example = torch.zeros(2, size[1], size[0], 3, dtype=torch.uint8)
    # torch 2.6 rejects a batch without a bound, and by default traces bytecode.
    shapes = ({0: torch.export.Dim("batch", min=1, max=2**31 - 1)},)
    module = copy.deepcopy(module).cpu().eval()
    with torch.no_grad():
        return torch.export.export(module, (example,), dynamic_shapes=shapes, strict=False)


def to_onnx(program: torch.export.ExportedProgram, outputs: Sequence[str]) -> Any:
    """Convert a trace to an `onnx.ModelProto` that contains its weights."""
    for name in ("onnx_ir", "onnxscript"):  # they log each node that they rewrite
        logging.getLogger(name).setLevel(logging.WARNING)
    converted = torch.onnx.export(
        program, (), input_names=[IMAGES], output_names=list(outputs),
        dynamo=True, opset_version=OPSET, verbose=False,
    )  # fmt: skip
    assert converted is not None
    model = converted.model_proto
    graph = model.graph
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.value_info[:]  # it has other names for the batch
    # The exporter stores source paths and lines of this machine with every node.
    for message in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del message.metadata_props[:]
    return model


def to_openvino(program: torch.export.ExportedProgram, outputs: Sequence[str]) -> Any:
    """Convert a trace to an `openvino.Model`; UserError if OpenVINO is not installed."""
    model = import_openvino().convert_model(program)
    for port, name in zip((*model.inputs, *model.outputs), (IMAGES, *outputs), strict=True):
        port.get_tensor().set_names({name})
    height, width = program.example_inputs[0][0].shape[1:3]
    model.reshape([-1, height, width, 3])
    return model


def import_openvino() -> Any:
    """Return the module `openvino`; UserError if it is not installed."""
    try:
        import openvino
    except ImportError:
        raise UserError("OpenVINO is not installed: run .venv/bin/pip install openvino") from None
    return openvino


def run_onnx(model: bytes) -> Outputs:
    """Return a function that runs a serialised ONNX model in ONNX Runtime, on the CPU, in fp32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised too
    # Spinning idle threads nearly double the time of what PyTorch does next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> list[Tensor]:
        outputs = session.run(None, {IMAGES: images.cpu().numpy()})
        return [torch.from_numpy(output) for output in outputs]

    return run


def run_openvino(model: Any, precision: str) -> Outputs:
    """Return a function that runs an `openvino.Model` on the CPU, compiled for each batch size."""
    core, compiled = import_openvino().Core(), {}
    settings = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }

    def run(images: Tensor) -> list[Tensor]:
        if len(images) not in compiled:
            model.reshape(list(images.shape))
            compiled[len(images)] = core.compile_model(model, "CPU", settings)
        outputs = compiled[len(images)](images.contiguous().cpu().numpy(), share_inputs=True)
        return [torch.from_numpy(outputs[index]) for index in range(len(model.outputs))]

    return run


def heatmaps_of(run: Outputs) -> Runner:
    """Return a runner of the heatmaps, which are the first output."""
    return lambda images: run(images)[0].to(images.device)
