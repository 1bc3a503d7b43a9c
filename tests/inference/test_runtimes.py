"""Every runtime and precision gives the heatmaps of eager fp32."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.inference import runtimes
from lib.inference.fold import fold_batch_norms
from lib.inference.pipeline import PixelsToHeatmaps
from lib.inference.runtimes import autocast, build_runner
from lib.inference.tracing import trace
from lib.models import PoseNetwork, build_model
from lib.models.tokenpose import PatchEmbedding
from lib.models.transformer import Linear
from lib.utils.errors import UserError
from lib.utils.kernels import is_exporting

MakeCfg = Callable[..., CfgNode]
MakeModel = Callable[[str], PoseNetwork]
SIZE = (64, 48)


@pytest.fixture
def make_model(small_cfg: MakeCfg) -> MakeModel:
    def make(prune: str) -> PoseNetwork:
        torch.manual_seed(0)
        return build_model(small_cfg(PRUNE=prune)).eval()

    return make


def crops(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 48, 64, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("runtime", "prune"),
    [
        ("openvino", "connection"),
        ("openvino", "token"),
        ("onnx", "token"),
    ],
)
def test_other_runtimes_give_the_same_heatmaps_at_any_batch_size(
    runtime: str, prune: str, make_model: MakeModel
) -> None:
    pytest.importorskip("openvino" if runtime == "openvino" else "onnxruntime")
    model = make_model(prune)
    run = build_runner(model, runtime, "fp32", SIZE)
    for count in (2, 3, 1, 16):
        images = crops(count)
        with torch.no_grad():
            expected = PixelsToHeatmaps(model)(images)
        assert (run(images) - expected).abs().max() <= 1e-4 * (expected.max() - expected.min())


def test_bf16_is_near_fp32(make_model: MakeModel) -> None:
    model, images = make_model("none"), crops(2)
    with torch.no_grad():
        expected, heatmaps = (
            build_runner(model, "eager", precision, SIZE)(images) for precision in ("fp32", "bf16")
        )
    assert heatmaps.dtype == torch.float32
    difference = (heatmaps - expected).abs().max()
    assert 0 < difference <= 0.1 * (expected.max() - expected.min())


def test_weights_cast_once_give_what_autocast_gives(make_model: MakeModel) -> None:
    model, images = make_model("token"), crops(2)
    network = PixelsToHeatmaps(fold_batch_norms(model, SIZE)).eval()
    with torch.no_grad():
        with autocast(images.device, "bf16"):
            expected = network(images)
        assert torch.equal(build_runner(model, "eager", "bf16", SIZE)(images), expected)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}  # a copy's
    runtimes._cast_weights(network, torch.bfloat16)
    plain = (nn.Conv2d, Linear, PatchEmbedding)
    layers = [module for module in network.modules() if isinstance(module, plain)]
    assert {layer.weight.dtype for layer in layers} == {torch.bfloat16}


def test_eager_imports_nothing_of_the_other_runtimes() -> None:
    root = Path(__file__).parents[2]
    code = (
        "import sys, lib.core.tester, lib.core.trainer\n"
        "heavy = ('onnx', 'onnxruntime', 'openvino', 'lib.inference.tracing')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_a_compiled_network_agrees(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced by Dynamo, but without generated code, which would need a compiler."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    model, images = make_model("none"), crops(3)
    with torch.no_grad():
        expected = build_runner(model, "eager", "fp32", SIZE)(images)
        actual = build_runner(model, "compiled", "fp32", SIZE)(images)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("prune", ["none", "connection", "token"])
def test_the_compiler_sees_one_graph(prune: str, make_model: MakeModel) -> None:
    """A break would split the network into parts, each with its own overhead."""
    network = PixelsToHeatmaps(fold_batch_norms(make_model(prune), SIZE)).eval()
    with torch.inference_mode():
        found = torch._dynamo.explain(network)(crops(2))
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons


@pytest.mark.parametrize("freeze", [True, False])
def test_many_networks_are_compiled(freeze: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        assert torch._inductor.config.freezing == freeze
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    runs = [runtimes._compiled(nn.Conv2d(3, channels, 1), freeze) for channels in range(1, 13)]
    with torch.inference_mode():
        for _ in range(2):
            assert [run(torch.zeros(1, 3, 4, 4)).shape[1] for run in runs] == [*range(1, 13)]
    assert len(compiled) == 12


def test_validations_of_a_training_share_what_was_compiled(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    model = make_model("token")
    torch._dynamo.reset()
    for _ in range(3):
        with torch.inference_mode():
            build_runner(model, "compiled", "fp32", SIZE)(crops(1))
    assert len(compiled) == 1


def test_a_missing_compiler_is_one_line(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(images: Tensor) -> Tensor:
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(torch, "compile", lambda network: broken)
    with pytest.raises(UserError, match=r"TEST.RUNTIME compiled.*no C\+\+ compiler"):
        build_runner(make_model("none"), "compiled", "fp32", SIZE)(crops(1))


def test_a_precision_that_a_runtime_lacks_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(UserError, match="onnx computes in fp32"):
        build_runner(make_model("none"), "onnx", "bf16", SIZE)


def test_only_a_trace_selects_along_columns(make_model: MakeModel) -> None:
    """OpenVINO selects the largest faster along columns; eager is not affected by a trace."""
    network = PixelsToHeatmaps(make_model("connection")).eval()
    images = crops(2)
    with torch.no_grad():
        before = network(images)
        program = trace(network, SIZE)
        after = network(images)
    assert torch.equal(before, after)
    assert not is_exporting()
    topk = [node for node in program.graph.nodes if node.target == torch.ops.aten.topk.default]
    assert [node.args[2] for node in topk] == [-2, -2]
