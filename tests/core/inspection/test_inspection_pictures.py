"""Pictures of an inspection: each patch at its place."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from lib.core.inspection.gather import Inspection, inspect
from lib.core.inspection.pictures import (
    alive_picture,
    attention_picture,
    in_sequence,
    kind_of,
    pictures,
    standing,
)
from lib.dataset.skeleton import KNOWN
from lib.models import build_model

MakeCfg = Callable[..., CfgNode]


def seen_with(small_cfg: MakeCfg, **sparsity: object) -> Inspection:
    torch.manual_seed(0)
    cfg = small_cfg(**sparsity)
    seen = inspect(cfg, build_model(cfg), np.full((60, 80, 3), 90, np.uint8), None)
    return replace(seen, picture=np.full_like(seen.picture, 50))  # no dark edge


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Which of the 4×6 patches are not as they were anywhere, and which everywhere."""
    differs = (before != after).any(axis=2)
    blocks = differs.reshape(6, differs.shape[0] // 6, 4, differs.shape[1] // 4)
    some, every = blocks.any(axis=(1, 3)).ravel(), blocks.all(axis=(1, 3)).ravel()
    assert np.array_equal(some, every)
    return some


def test_a_token_stage_covers_exactly_what_left(small_cfg: MakeCfg) -> None:
    seen = seen_with(small_cfg, PRUNE="token")
    for stage in seen.stages:
        assert np.array_equal(changed(seen.picture, alive_picture(seen, stage)), ~stage.alive)
    assert in_sequence(seen, 1).all()
    assert np.array_equal(in_sequence(seen, 2), seen.stages[0].alive)
    assert np.array_equal(in_sequence(seen, 4), seen.stages[1].alive)
    assert in_sequence(seen_with(small_cfg, PRUNE="connection"), 4).all()


def test_a_connection_stage_is_the_paler_the_fewer_look(small_cfg: MakeCfg) -> None:
    seen = seen_with(small_cfg, PRUNE="connection", KEEP_RATIO=0.4)
    stage = seen.stages[0]
    looks = stage.connections.sum(axis=0)
    drawn = alive_picture(seen, stage).reshape(6, 80, 4, 160, 3).mean(axis=(1, 3, 4)).ravel()
    order = np.argsort(looks, kind="stable")
    alive = [i for i in order if stage.alive[i]]
    assert (np.diff(drawn[alive]) <= 0).all()
    assert drawn[alive[0]] > drawn[alive[-1]]


def test_the_brightest_patch_gets_most(small_cfg: MakeCfg) -> None:
    seen = seen_with(small_cfg, PRUNE="token")
    for layer in (0, 2, 4):
        drawn = attention_picture(seen, layer, 3).reshape(6, 80, 4, 160, 3)
        bright = drawn.mean(axis=(1, 3, 4)).ravel()
        computed = in_sequence(seen, layer)
        order = np.argsort(seen.to_visual[layer, 3][computed])
        assert (np.diff(bright[computed][order]) >= -1).all()
        assert (bright[~computed] > 190).all()


@pytest.mark.parametrize("joints", [16, 17])
def test_every_joint_has_its_picture(joints: int, small_cfg: MakeCfg) -> None:
    cfg = {"NUM_JOINTS": joints, "JOINT_HOPS": 2, "PRUNE": "connection"}
    names = set(pictures(seen_with(small_cfg, **cfg)))
    stages = {f"{kind}_{n}.png" for kind in ("stage", "connections") for n in (1, 2)}
    skeleton = next(known for known in KNOWN if known.num_joints == joints)
    rows = {f"attention_{j:02d}_{name}.png" for j, name in enumerate(skeleton.names)}
    assert names == {"person.png", "joint_mask.png"} | stages | rows
    bare = pictures(seen_with(small_cfg, NUM_JOINTS=joints, JOINT_DEPTH=0, PRUNE="none"))
    assert set(bare) == {"person.png"} | rows
    for picture in bare.values():
        assert picture.dtype == np.uint8
        assert picture.ndim == 3


@pytest.mark.parametrize("skeleton", KNOWN)
def test_a_standing_person_is_symmetric(skeleton: object) -> None:
    places = [standing(name) for name in skeleton.names]
    assert len(set(places)) == len(places)
    for a, b in skeleton.mirrors:
        assert places[a][0] == -places[b][0] != 0
        assert places[a][1] == places[b][1]


def test_why_a_joint_may_look(small_cfg: MakeCfg) -> None:
    seen = seen_with(small_cfg)
    assert [kind_of(seen, 0, b) for b in (0, 1, 5, 2)] == ["self", "limb", "mirror", "far"]
