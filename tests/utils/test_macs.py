"""Counted multiply-adds equal the formulas."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from lib.models import build_model
from lib.utils import kernels
from lib.utils.macs import count_macs

MakeCfg = Callable[..., CfgNode]
SIZE = (64, 48)
DIM, JOINTS = 32, 16


def test_a_network_without_attention_is_counted() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Sequential(nn.Conv2d(8, 2, 1))
    )
    first, second = 32 * 24 * 3 * 8 * 9, 32 * 24 * 8 * 2
    assert count_macs(model, SIZE) == (first + second) / 1e9
    assert model.training  # as before


@pytest.mark.parametrize("prune", ["none", "connection", "token"])
@pytest.mark.parametrize("linear", ["plain", "oneDNN"])
def test_the_count_equals_the_formula(
    linear: str, prune: str, small_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch
) -> None:
    if linear == "oneDNN" and not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch has no oneDNN here")
    operation = torch.ops.mkldnn._linear_pointwise if linear == "oneDNN" else None
    monkeypatch.setattr(kernels, "ONEDNN_LINEAR", operation)
    model = build_model(small_cfg(PRUNE=prune))
    macs = 1e9 * count_macs(model, SIZE)
    alive = [24, 24, 17, 17, 12] if prune == "token" else [24] * 5  # before each layer
    for layer, visual in enumerate(alive):
        n = JOINTS + visual
        num_queries = JOINTS if layer == 4 else n
        projections = 2 * n * DIM**2 + num_queries * DIM**2  # keys, values and queries
        choice = 0
        if prune == "token" and layer in (1, 3):
            choice = JOINTS * n * DIM  # the weights that choose the tokens
            num_queries = JOINTS + alive[layer + 1]  # tokens that leave do not attend
        attention = projections + choice + 2 * num_queries * n * DIM + num_queries * DIM**2
        mlp = num_queries * 2 * DIM * 3 * DIM
        macs -= attention + mlp
    model.transformer.forward = lambda tokens, num_joints, *_: tokens[:, :num_joints]
    assert macs == pytest.approx(1e9 * count_macs(model, SIZE))  # of everything else


def test_counting_changes_neither_weights_nor_mode(small_cfg: MakeCfg) -> None:
    model = build_model(small_cfg())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_macs(model, SIZE)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
