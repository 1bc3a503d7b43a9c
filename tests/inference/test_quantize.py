"""Files in int8: what is quantised, what is not, and what is refused."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor
from toy_network import TOY_NETWORK
from yacs.config import CfgNode

from lib.inference.export import export
from lib.inference.exported import open_exported
from lib.inference.pipeline import Runner
from lib.inference.quantize import float_operations, quantize_file
from lib.inference.runtimes import load_runner
from lib.models import MODELS, build_model
from lib.utils.checkpoint import save_weights
from lib.utils.errors import UserError

MakeCfg = Callable[..., CfgNode]
CPU = torch.device("cpu")
TEXT = 'a "description"'
pytestmark = pytest.mark.xdist_group("quantize")


def crops(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 48, 64, 3), dtype=torch.uint8, generator=generator)


def measure(before: Runner, after: Runner) -> str:
    return TEXT


def export_int8(cfg: CfgNode, path: Path, measure: Any = measure, decode: bool = False) -> None:
    torch.manual_seed(0)
    weights = path.with_name("weights.pth")
    save_weights(build_model(cfg).state_dict(), weights)
    export(
        cfg, weights, path, crops(3), file_format="onnx" if path.suffix == ".onnx" else "openvino",
        decode=decode, finish=partial(quantize_file, crops=crops(8), measure=measure),
    )  # fmt: skip


def onnx_graph(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    nodes = onnx.load(path).graph.node
    makers = {output: node.name for node in nodes for output in node.output}
    for node in nodes:
        yield node.name, node.op_type, [makers[name] for name in node.input if name in makers]


def openvino_graph(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    import openvino

    for node in openvino.Core().read_model(str(path)).get_ops():
        sources = [port.get_source_output().get_node() for port in node.inputs()]
        yield node.get_name(), node.get_type_name(), [source.get_name() for source in sources]


def check_decisions(graph: Iterator[tuple[str, str, list[str]]], marker: str, stages: int) -> None:
    """From the projection to queries and keys to each top-k nothing is quantised."""
    kinds, inputs = {}, {}
    for name, kind, sources in graph:
        kinds[name], inputs[name] = kind, sources
    todo = [(name, 0) for name, kind in kinds.items() if kind == "TopK"]
    seen, products = set(), set()
    while todo:
        name, depth = todo.pop()
        if (name, depth) in seen:
            continue
        seen.add((name, depth))
        assert kinds[name] != marker, name
        if kinds[name] in ("MatMul", "Gemm"):
            if depth == 1:
                continue  # the projection
            products.add(name)
            depth = 1
        todo += [(source, depth) for source in inputs[name]]
    assert len(products) == stages
    assert list(kinds.values()).count(marker) > 20


def check_decoding(path: Path) -> None:
    """Nothing that reads the heatmaps is quantised."""
    reached = {"heatmaps"}
    for node in onnx.load(path).graph.node:  # in the order of execution
        if not reached.isdisjoint(node.input):
            reached |= set(node.output)
            assert "quantize" not in node.op_type.lower(), node.name
    assert len(reached) > 20


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_pruning_and_decoding_stay_in_floating_point(
    suffix: str, small_cfg: MakeCfg, tmp_path: Path
) -> None:
    """The file is near fp32, describes itself and runs as every exported file."""
    prune, path = "token" if suffix == ".onnx" else "connection", tmp_path / f"network{suffix}"
    if suffix == ".xml":
        pytest.importorskip("nncf")
        pytest.importorskip("openvino")
    cfg = small_cfg(PRUNE=prune)
    export_int8(cfg, path, decode=suffix == ".onnx")
    if suffix == ".onnx":
        check_decisions(onnx_graph(path), "DequantizeLinear", stages=2)
        check_decoding(path)
    else:  # what the last layer would mask is not in the graph: it computes keypoints alone
        check_decisions(openvino_graph(path), "FakeQuantize", stages=1)
    metadata, _ = open_exported(path)
    assert metadata["int8"] == TEXT
    assert json.loads(metadata["MODEL.SPARSITY.PRUNE"]) == prune
    run, eager = (load_runner(cfg, file, CPU) for file in (path, tmp_path / "weights.pth"))
    for count in (1, 3):
        with torch.no_grad():
            actual, expected = run(crops(count)), eager(crops(count))
        difference = (actual - expected).abs().max() / (expected.max() - expected.min())
        assert 1e-4 < difference < 0.3
    files = {file.name for file in tmp_path.iterdir() if "weights" not in file.name}
    assert files == ({"network.onnx"} if suffix == ".onnx" else {"network.xml", "network.bin"})


def test_a_refused_file_is_not_written(
    small_cfg: MakeCfg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(before: Runner, after: Runner) -> str:
        assert not after(crops(2)).equal(before(crops(2)))
        raise UserError("too much")

    monkeypatch.setitem(MODELS, "toy", TOY_NETWORK)
    path = tmp_path / "network.onnx"
    with pytest.raises(UserError, match="too much"):
        export_int8(small_cfg(NAME="toy", HEATMAP_SIZE=[32, 24]), path, refuse)
    assert {file.stem for file in tmp_path.iterdir()} == {"weights"}


def test_operations_that_decide_and_decode_are_kept() -> None:
    graph = {
        "image": ("Parameter", []), "qkv": ("MatMul", ["image"]), "split": ("Split", ["qkv"]),
        "qk": ("MatMul", ["split"]), "softmax": ("Softmax", ["qk"]), "topk": ("TopK", ["softmax"]),
        "gather": ("Gather", ["image", "topk"]), "conv": ("Conv", ["gather"]),
        "maps": ("Reshape", ["conv"]), "argmax": ("TopK", ["maps"]), "blur": ("Conv", ["maps"]),
        "joints": ("Add", ["blur", "argmax"]),
    }  # fmt: skip
    expected = {"qk", "softmax", "topk", "argmax", "blur", "joints"}
    assert float_operations(graph, "maps") == expected
