"""Training steps: micro-batches, clipping, averaging, scaling, and steps that are skipped."""

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from lib.core.engine import NotFiniteError, Progress, TrainState, build_train_state, train_epoch
from lib.dataset.skeleton import MPII
from lib.models import build_model
from lib.utils.distributed import Distributed
from lib.utils.random_state import random_states, restore_random_states, seed_all

Make = Callable[..., TrainState]


@pytest.fixture
def make(small_cfg: Callable[..., CfgNode]) -> Make:
    """Build the training state of a small network; overrides by TRAIN key."""

    def build(**train: object) -> TrainState:
        cfg = small_cfg()
        cfg.TRAIN.OPTIMIZER, cfg.TRAIN.LR, cfg.TRAIN.WD = "sgd", 1.0, 0.0
        for key, value in train.items():
            cfg.TRAIN[key] = value
        torch.manual_seed(0)
        state = build_train_state(cfg, build_model(cfg), Distributed(torch.device("cpu")), MPII, 10)
        state.train_mode()
        return state

    return build


def batch(people: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(people)
    return {
        "image": torch.randint(0, 256, (people, 48, 64, 3), dtype=torch.uint8, generator=generator),
        "joints": torch.rand(people, 16, 2, generator=generator) * torch.tensor([60.0, 40.0]),
        "visible": torch.ones(people, 16),
        "index": torch.arange(people),
    }


def weights(state: TrainState) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in state.network.state_dict().items()}


def change(state: TrainState, people: int = 6) -> float:
    """Take a step; return by how much it changes the weights (norm)."""
    before = [weight.detach().clone() for weight in state.model.parameters()]
    state.step(batch(people))
    after = state.model.parameters()
    return sum((a - b).square().sum() for a, b in zip(after, before, strict=True)).sqrt().item()


def test_a_joint_outside_the_crop_trains_an_empty_heatmap_only_if_asked(make: Make) -> None:
    """Moving it further out changes nothing; a joint that is not annotated never counts."""
    for counts in (False, True):
        losses = {}
        for x, visible in ((-500.0, 1.0), (-900.0, 1.0), (-500.0, 0.0)):
            state = dataclasses.replace(make(), train_outside=counts)
            one = batch()
            one["joints"][:, 3, 0], one["visible"][:, 3] = x, visible
            result = state.step(one)
            assert (result.target[:, 3] == 0).all()
            losses[x, visible] = result.loss
        assert losses[-500.0, 1.0] == losses[-900.0, 1.0]
        assert (losses[-500.0, 1.0] > losses[-500.0, 0.0]) == counts


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_micro_batches_train_as_the_whole_batch(make: Make, micro_batch: int) -> None:
    whole = make(BATCH_NORM="frozen", BATCH_SIZE_PER_GPU=6)
    split = make(BATCH_NORM="frozen", BATCH_SIZE_PER_GPU=micro_batch)
    for _ in range(3):
        a, b = whole.step(batch()), split.step(batch())
        assert a.loss == pytest.approx(b.loss, rel=1e-5)
        torch.testing.assert_close(a.output, b.output, atol=1e-5, rtol=1e-4)
    assert change(whole) > 1e-3
    split.step(batch())
    for name, value in weights(whole).items():
        torch.testing.assert_close(value, weights(split)[name], atol=1e-6, rtol=1e-4)


def test_frozen_norms_keep_their_statistics_and_train(make: Make) -> None:
    for mode in ("frozen", "own"):
        state = make(BATCH_NORM=mode)
        norm = state.network.backbone.bn1
        mean, gain = norm.running_mean.clone(), norm.weight.detach().clone()
        state.step(batch())
        assert torch.equal(mean, norm.running_mean) == (mode == "frozen")
        assert not torch.equal(gain, norm.weight)


def test_only_large_gradients_are_clipped(make: Make) -> None:
    unclipped = change(make())
    assert change(make(CLIP_GRAD=unclipped / 4)) == pytest.approx(unclipped / 4, rel=1e-3)
    assert change(make(CLIP_GRAD=unclipped * 4)) == pytest.approx(unclipped, rel=1e-5)


def test_the_weight_average_follows_the_weights(make: Make) -> None:
    state = make(EMA_DECAY=0.75)
    state.step(batch(), number=0)  # the average starts at the first weights
    for number in range(1000, 1003):  # after its warm-up
        before = state.ema.module.head[1].weight.clone()
        state.step(batch(), number)
        expected = 0.75 * before + 0.25 * state.network.head[1].weight
        torch.testing.assert_close(state.ema.module.head[1].weight, expected)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_nearly_the_same(make: Make, precision: str) -> None:
    full, half = make(), make(PRECISION=precision)
    assert full.step(batch()).loss == pytest.approx(half.step(batch()).loss, rel=0.02)
    assert half.scaler.is_enabled() == (precision == "fp16")
    moved = change(full), change(half)
    assert moved[0] == pytest.approx(moved[1], rel=0.1)
    assert half.network.head[1].weight.dtype == torch.float32


def test_fp16_lowers_the_scale_after_an_overflow_and_continues(make: Make) -> None:
    state = make(PRECISION="fp16")
    state.step(batch())
    scale, before = state.scaler.get_scale(), weights(state)
    handle = state.network.head[1].weight.register_hook(lambda grad: grad * float("inf"))
    state.step(batch())
    handle.remove()
    assert state.scaler.get_scale() < scale
    kept = {name for name, _ in state.network.named_parameters()}
    assert all(torch.equal(before[name], weights(state)[name]) for name in kept)
    assert change(state) > 0


def test_a_loss_that_is_not_finite_names_its_layer_and_changes_nothing(make: Make) -> None:
    state = make(SKIP_NOT_FINITE=1)
    state.step(batch())
    layer = state.network.transformer.blocks[2].mlp[0]
    before_nan = layer.weight.detach().clone()
    layer.weight.data[0, 0] = float("nan")
    before = weights(state)
    with pytest.raises(NotFiniteError, match=r"transformer\.blocks\.2\.mlp\.0") as error:
        state.step(batch())
    assert error.value.samples == list(range(6))
    for name, value in weights(state).items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, before[name], equal_nan=True, rtol=0, atol=0)
    layer.weight.data.copy_(before_nan)
    assert change(state) > 0


def test_a_gradient_that_is_not_finite_names_its_parameter(make: Make) -> None:
    state = make()
    state.network.joint_layers[1].norm2.weight.register_hook(lambda grad: grad / 0)
    before = weights(state)
    with pytest.raises(NotFiniteError, match=r"gradient of joint_layers\.1\.norm2\.weight"):
        state.step(batch())
    kept = {name for name, _ in state.network.named_parameters()}
    assert all(torch.equal(before[name], weights(state)[name]) for name in kept)


def test_a_skipped_step_counts_but_its_loss_does_not(make: Make) -> None:
    state, progress, passes = make(SKIP_NOT_FINITE=1), Progress(), 0

    def spoil(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += 1
        return output * float("nan") if passes in (2, 3) else output  # 3: to find the layer

    state.network.head.register_forward_hook(spoil)
    first, failed, last = train_epoch(state, [batch()] * 3, progress, steps=3, print_every=1)
    assert isinstance(failed, NotFiniteError)
    assert progress.step == 3
    assert progress.loss == pytest.approx((first.loss + last.loss) / 2)


def test_random_states_are_restored(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [torch.rand(1).item(), float(np.random.rand()), random.random()]  # noqa: NPY002

    seed_all(3)
    draw()
    torch.save(random_states(torch.device("cpu")), tmp_path / "states.pth")
    expected = draw()
    draw()
    states = torch.load(tmp_path / "states.pth", weights_only=True)
    restore_random_states(states, torch.device("cpu"))
    assert draw() == expected


def test_fp16_tolerates_overflows_until_the_scale_is_1(make: Make) -> None:
    state = make(PRECISION="fp16")
    state.network.head[1].weight.register_hook(lambda grad: grad * float("nan"))
    overflows = 0
    with pytest.raises(NotFiniteError, match=r"head\.1\.weight"):  # noqa: PT012 - in one of the steps
        for _ in range(40):
            state.step(batch(2))
            overflows += 1
    assert overflows == 16  # from 65536 down to 1


def test_fp16_continues_after_a_skipped_step(make: Make) -> None:
    state = make(PRECISION="fp16", SKIP_NOT_FINITE=1)
    handle = state.network.head.register_forward_hook(lambda *_: _[2] * float("nan"))
    with pytest.raises(NotFiniteError):
        state.step(batch(2))
    handle.remove()
    assert change(state) > 0


def test_biased_joints_become_cells_by_the_ratio_of_sizes(
    small_cfg: Callable[..., CfgNode],
) -> None:
    cfg = small_cfg()
    cfg.DATASET.UNBIASED = False
    state = build_train_state(cfg, build_model(cfg), Distributed(torch.device("cpu")), MPII, 10)
    crops = batch(1)
    crops["joints"][:] = torch.tensor([32.0, 24.0])
    target = state.step(crops).target
    assert target[0, 0].argmax() == 6 * 16 + 8  # 64×48 pixels, 16×12 cells
    assert target[0, 0].max() == 1
