"""Quantisation to int8 after training: by NNCF for OpenVINO, by ONNX Runtime for ONNX.

What a network prunes is decided in floating point, as is everything after the heatmaps.
"""

import logging
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from lib.inference import tracing
from lib.inference.export import save_onnx, save_openvino
from lib.inference.exported import INT8_KEY, open_exported
from lib.inference.pipeline import Runner
from lib.utils.errors import UserError
from lib.utils.files import BLANK_SHA256, SHA256_KEY

Graph = dict[str, tuple[str, list[str]]]  # name of an operation -> its type, names of its inputs
_PRODUCTS = {"MatMul", "Gemm", "Conv", "Convolution", "GroupConvolution"}


def quantize_file(path: Path, crops: Tensor, measure: Callable[[Runner, Runner], str]) -> str:
    """Quantise an exported file in place, calibrated on `crops`, uint8 [N, h, w, 3].

    `measure` compares runners of the file before and after, and returns a description, which is
    added to the metadata and returned; it raises UserError to refuse the result.
    """
    metadata, outputs = open_exported(path)
    model: Any
    if path.suffix == ".onnx":
        model = _quantize_onnx(path, crops)
        run, save = tracing.run_onnx(model.SerializeToString()), save_onnx
    else:
        model = _quantize_openvino(path, crops)
        run, save = tracing.run_openvino(model.clone(), "fp32"), save_openvino
    text = measure(tracing.heatmaps_of(outputs), tracing.heatmaps_of(run))
    for file in (path, path.with_suffix(".bin")):
        file.unlink(missing_ok=True)  # OpenVINO still reads it
    save(model, metadata | {INT8_KEY: text, SHA256_KEY: BLANK_SHA256}, path)
    return text


def import_nncf() -> Any:
    """Return the module `nncf`; UserError if it is not installed."""
    try:
        import nncf
    except ImportError:
        raise UserError("NNCF is not installed: run .venv/bin/pip install nncf") from None
    nncf.set_log_level(logging.ERROR)
    return nncf


def float_operations(graph: Graph, heatmaps: str) -> set[str]:
    """Return the operations that are not quantised.

    From each product of queries and keys to the top-k that selects from it, and all that use
    `heatmaps`, the operation which gives them. `graph` is in the order of execution.
    """
    decoding, deciding, wanted = {heatmaps}, set(), set()
    for name, (_, inputs) in graph.items():
        if not decoding.isdisjoint(inputs):
            decoding.add(name)
    for name, (kind, inputs) in reversed(graph.items()):
        if name in wanted or (kind == "TopK" and name not in decoding):
            deciding.add(name)
            wanted |= set() if kind in _PRODUCTS else set(inputs)
    return (decoding - {heatmaps}) | deciding


def _quantize_openvino(path: Path, crops: Tensor) -> Any:
    nncf, model = import_nncf(), tracing.import_openvino().Core().read_model(str(path))

    def source(port: Any) -> str:
        return port.get_source_output().get_node().get_friendly_name()

    graph = {
        operation.get_friendly_name(): (
            operation.get_type_name(), [source(port) for port in operation.inputs()]
        )
        for operation in model.get_ordered_ops()
        if operation.get_type_name() not in ("Constant", "Result")
    }  # fmt: skip
    kept = float_operations(graph, source(model.outputs[0].get_node().input(0)))
    with redirect_stdout(sys.stderr):  # it shows its progress
        return nncf.quantize(
            model,
            nncf.Dataset([crop[None].numpy() for crop in crops]),
            subset_size=len(crops),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=sorted(kept), validate=False),
        )


def _quantize_onnx(path: Path, crops: Tensor) -> Any:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        samples = iter([{tracing.IMAGES: crop[None].numpy()} for crop in crops])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.samples, None)

    with TemporaryDirectory() as folder:
        prepared, quantized = f"{folder}/prepared.onnx", f"{folder}/quantized.onnx"
        quant_pre_process(str(path), prepared, skip_symbolic_shape=True)
        nodes = onnx.load(prepared).graph.node
        makers = {output: node.name for node in nodes for output in node.output}
        graph = {
            node.name: (node.op_type, [makers[name] for name in node.input if name in makers])
            for node in nodes
        }
        # These cost accuracy: the image, channels that one scale must fit, attention weights.
        first = next((node.name for node in nodes if node.op_type == "Conv"), "")
        kept = float_operations(graph, makers[tracing.HEATMAPS]) | {
            node.name
            for node in nodes
            if (node.op_type == "Conv" and (node.name == first or _groups(node) > 1))
            or (node.op_type == "MatMul" and all(name in makers for name in node.input))
        }
        products = ["MatMul", "Gemm"]  # with results in floating point: queries and keys are some
        quantize_static(
            prepared,
            quantized,
            Reader(),
            per_channel=True,
            op_types_to_quantize=["Conv", *products],
            extra_options={"OpTypesToExcludeOutputQuantization": products},
            nodes_to_exclude=sorted(kept),
        )
        return onnx.load(quantized)


def _groups(convolution: Any) -> int:
    return next((field.i for field in convolution.attribute if field.name == "group"), 1)
