"""The work by formula is the work that is counted from outside."""

from collections.abc import Callable

import pytest
from yacs.config import CfgNode

from lib.core.benchmark.measure import count_macs
from lib.core.inspection.macs import saved_by_stage, work_of
from lib.models import build_model

MakeCfg = Callable[..., CfgNode]
SIZES = {
    "wide": {},
    "tall": {"IMAGE_SIZE": [48, 96], "PATCH_SIZE": [3, 4]},
    "every layer": {"PRUNE_LAYERS": [0, 1, 2, 3, 4], "KEEP_RATIO": 0.55},
    "one layer": {"TRANSFORMER_DEPTH": 1, "PRUNE_LAYERS": [0]},
    "nothing left out": {"KEEP_RATIO": 1.0},
    "no joint layers": {"JOINT_DEPTH": 0, "NUM_JOINTS": 17},
    "two linear layers": {"HEATMAP_SIZE": [32, 24], "DIM": 24},
}


@pytest.mark.parametrize("prune", ["none", "connection", "token"])
@pytest.mark.parametrize("size", SIZES)
def test_the_formula_is_the_count(prune: str, size: str, small_cfg: MakeCfg) -> None:
    cfg = small_cfg(PRUNE=prune, **SIZES[size])
    model, image = build_model(cfg).eval(), tuple(cfg.MODEL.IMAGE_SIZE)
    own, dense = work_of(model, image), work_of(model, image, dense=True)
    assert own.total == round(1e9 * count_macs(model, image))
    stages = [layer for layer in model.transformer.prune_layers if layer < len(own.layers) - 1]
    assert sum(saved_by_stage(own, dense, stages)) == dense.total - own.total
    if prune != "token":
        assert own.total == dense.total  # a mask spares nothing
        assert all(layer.choose == 0 for layer in own.layers)


def test_each_stage_has_its_share(small_cfg: MakeCfg) -> None:
    model = build_model(small_cfg(PRUNE="token")).eval()
    own, dense = work_of(model, (64, 48)), work_of(model, (64, 48), dense=True)
    assert [layer.tokens - 16 for layer in own.layers] == [24, 24, 17, 17, 12]
    first, second = saved_by_stage(own, dense, [1, 3])
    refine, full = 2 * 32 * 96, 40
    attend = [2 * n * 32 * 32 * 2 + 2 * n * n * 32 for n in (full, 33)]
    choose = 16 * full * 32
    assert first == 2 * refine * (full - 33) + 2 * (attend[0] - attend[1]) - choose
    last = 2 * (full - 28) * 32 * 32 + 2 * 16 * (full - 28) * 32
    assert second == refine * (full - 28) + last - 16 * 33 * 32


def test_masked_connections_are_computed_all_the_same(small_cfg: MakeCfg) -> None:
    layers = work_of(build_model(small_cfg(PRUNE="connection")).eval(), (64, 48)).layers
    pruned = [0, 0, 24 * (24 - 17), 24 * (24 - 17), 0]  # the last layer asks for keypoints only
    assert [layer.masked for layer in layers] == [2 * 32 * count for count in pruned]
    layers = work_of(build_model(small_cfg(PRUNE="token")).eval(), (64, 48)).layers
    assert all(layer.masked == 0 for layer in layers)
