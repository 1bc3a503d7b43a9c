"""Runtimes give the heatmaps of eager; eager needs none of the others."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from lib.config import get_cfg
from lib.inference.pipeline import PixelsToHeatmaps
from lib.inference.runtimes import build_runner
from lib.inference.tracing import trace
from lib.models import PoseNetwork, build_model
from lib.utils.errors import UserError
from lib.utils.kernels import is_exporting

SIZE = (32, 32)


def small() -> PoseNetwork:
    cfg = get_cfg()
    model = cfg.MODEL
    model.IMAGE_SIZE, model.HEATMAP_SIZE, model.PATCH_SIZE = [32, 32], [8, 8], [2, 2]
    model.DIM, model.TRANSFORMER_DEPTH, model.TRANSFORMER_HEADS = 16, 3, 2
    model.SPARSITY.PRUNE_LAYERS = [0]
    torch.manual_seed(0)
    return build_model(cfg).eval()


def test_eager_imports_nothing_of_the_other_runtimes() -> None:
    root = Path(__file__).parents[2]
    code = (
        "import sys, lib.core.tester, lib.core.trainer\n"
        "heavy = ('onnx', 'onnxruntime', 'openvino', 'lib.inference.tracing')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_checkpoint_runs_on_other_runtimes(runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    model, crops = small(), torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = build_runner(model, "eager", "fp32", SIZE)(crops)
        actual = build_runner(model, runtime, "fp32", SIZE)(crops)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_compiled_network_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced by Dynamo, but without generated code, which would need a compiler."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    model, crops = small(), torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = build_runner(model, "eager", "fp32", SIZE)(crops)
        actual = build_runner(model, "compiled", "fp32", SIZE)(crops)
    torch.testing.assert_close(actual, expected)


def test_a_precision_that_a_runtime_does_not_have_is_rejected() -> None:
    with pytest.raises(UserError, match="onnx computes in fp32"):
        build_runner(small(), "onnx", "bf16", SIZE)


def test_only_a_trace_selects_along_columns() -> None:
    """OpenVINO selects the largest faster along columns; eager is not affected by a trace."""
    network = PixelsToHeatmaps(small()).eval()
    crops = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        before = network(crops)
        program = trace(network, SIZE)
        after = network(crops)
    assert torch.equal(before, after)
    assert not is_exporting()
    topk = [node for node in program.graph.nodes if node.target == torch.ops.aten.topk.default]
    assert [node.args[2] for node in topk] == [-2]
