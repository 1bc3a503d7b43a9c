"""Every runtime and precision gives the heatmaps of eager fp32."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from yacs.config import CfgNode

from lib.inference.pipeline import PixelsToHeatmaps
from lib.inference.runtimes import build_runner
from lib.models import PoseNetwork, build_model

MakeCfg = Callable[..., CfgNode]
SIZE = (64, 48)


@pytest.fixture
def make_model(small_cfg: MakeCfg) -> Callable[[str], PoseNetwork]:
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
        ("openvino", "none"),
        ("openvino", "connection"),
        ("openvino", "token"),
        ("onnx", "token"),
    ],
)
def test_other_runtimes_give_the_same_heatmaps_at_any_batch_size(
    runtime: str, prune: str, make_model: Callable[[str], PoseNetwork]
) -> None:
    pytest.importorskip("openvino" if runtime == "openvino" else "onnxruntime")
    model = make_model(prune)
    run = build_runner(model, runtime, "fp32", SIZE)
    for count in (2, 3, 1, 16):
        images = crops(count)
        with torch.no_grad():
            expected = PixelsToHeatmaps(model)(images)
        assert (run(images) - expected).abs().max() <= 1e-4 * (expected.max() - expected.min())


def test_bf16_is_near_fp32(make_model: Callable[[str], PoseNetwork]) -> None:
    model, images = make_model("none"), crops(2)
    with torch.no_grad():
        expected, heatmaps = (
            build_runner(model, "eager", precision, SIZE)(images) for precision in ("fp32", "bf16")
        )
    assert heatmaps.dtype == torch.float32
    difference = (heatmaps - expected).abs().max()
    assert 0 < difference <= 0.1 * (expected.max() - expected.min())
