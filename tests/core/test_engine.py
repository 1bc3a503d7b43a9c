"""The training step: in parts, clipped, averaged, scaled, and when it must not be taken."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from lib.core.engine import NotFiniteError, Progress, Training, train_epoch
from lib.core.trainer import build_training
from lib.dataset.skeleton import MPII
from lib.models import build_model
from lib.utils.distributed import World
from lib.utils.random import random_states, restore_random_states, seed_all

Make = Callable[..., Training]


@pytest.fixture
def make(small_cfg: Callable[..., CfgNode]) -> Make:
    """Make a training of a small network; overrides by TRAIN key."""

    def build(**train: object) -> Training:
        cfg = small_cfg()
        cfg.TRAIN.OPTIMIZER, cfg.TRAIN.LR, cfg.TRAIN.WD = "sgd", 1.0, 0.0
        for key, value in train.items():
            cfg.TRAIN[key] = value
        torch.manual_seed(0)
        training = build_training(cfg, build_model(cfg), World(torch.device("cpu")), MPII, 10)
        training.start()
        return training

    return build


def batch(people: int = 6) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(people)
    return {
        "image": torch.randint(0, 256, (people, 48, 64, 3), dtype=torch.uint8, generator=draw),
        "joints": torch.rand(people, 16, 2, generator=draw) * torch.tensor([60.0, 40.0]),
        "visible": torch.ones(people, 16),
        "index": torch.arange(people),
    }


def weights(training: Training) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in training.model.state_dict().items()}


def change(training: Training, people: int = 6) -> float:
    """How far the weights go in a step."""
    before = [weight.detach().clone() for weight in training.model.parameters()]
    training.step(batch(people))
    after = training.model.parameters()
    return sum((a - b).square().sum() for a, b in zip(after, before, strict=True)).sqrt().item()


@pytest.mark.parametrize("part", [1, 2, 4])
def test_parts_of_a_batch_learn_as_the_whole(make: Make, part: int) -> None:
    whole = make(BATCH_NORM="frozen", BATCH_SIZE_PER_GPU=6)
    parts = make(BATCH_NORM="frozen", BATCH_SIZE_PER_GPU=part)
    for _ in range(3):
        a, b = whole.step(batch()), parts.step(batch())
        assert a.loss == pytest.approx(b.loss, rel=1e-5)
        torch.testing.assert_close(a.output, b.output, atol=1e-5, rtol=1e-4)
    assert change(whole) > 1e-3
    parts.step(batch())
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(value, parts.model.state_dict()[name], atol=1e-6, rtol=1e-4)


def test_frozen_norms_keep_their_statistics_and_learn(make: Make) -> None:
    for kind in ("frozen", "own"):
        training = make(BATCH_NORM=kind)
        norm = training.model.stem.bn1
        mean, gain = norm.running_mean.clone(), norm.weight.detach().clone()
        training.step(batch())
        assert torch.equal(mean, norm.running_mean) == (kind == "frozen")
        assert not torch.equal(gain, norm.weight)


def test_a_long_gradient_is_shortened_and_a_short_one_is_not(make: Make) -> None:
    free = change(make())
    assert change(make(CLIP_GRAD=free / 4)) == pytest.approx(free / 4, rel=1e-3)
    assert change(make(CLIP_GRAD=free * 4)) == pytest.approx(free, rel=1e-5)


def test_the_average_follows_the_weights_slowly(make: Make) -> None:
    training = make(EMA_DECAY=0.75)
    training.step(batch(), number=0)  # the average begins with the first weights
    for number in range(1000, 1003):  # past its warm-up
        before = training.ema.module.head[1].weight.clone()
        training.step(batch(), number)
        wanted = 0.75 * before + 0.25 * training.model.head[1].weight
        torch.testing.assert_close(training.ema.module.head[1].weight, wanted)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_nearly_the_same(make: Make, precision: str) -> None:
    free, half = make(), make(PRECISION=precision)
    assert free.step(batch()).loss == pytest.approx(half.step(batch()).loss, rel=0.02)
    assert half.scaler.is_enabled() == (precision == "fp16")
    moved = change(free), change(half)
    assert moved[0] == pytest.approx(moved[1], rel=0.1)
    assert half.model.head[1].weight.dtype == torch.float32


def test_fp16_scales_less_after_an_overflow_and_goes_on(make: Make) -> None:
    training = make(PRECISION="fp16")
    training.step(batch())
    scale, before = training.scaler.get_scale(), weights(training)
    handle = training.model.head[1].weight.register_hook(lambda grad: grad * float("inf"))
    training.step(batch())
    handle.remove()
    assert training.scaler.get_scale() < scale
    kept = {name for name, _ in training.model.named_parameters()}
    assert all(torch.equal(before[name], weights(training)[name]) for name in kept)
    assert change(training) > 0


def test_a_loss_that_is_not_finite_names_its_layer_and_changes_nothing(make: Make) -> None:
    training = make(SKIP_NOT_FINITE=1)
    training.step(batch())
    layer = training.model.transformer.blocks[2].mlp[0]
    sound = layer.weight.detach().clone()
    layer.weight.data[0, 0] = float("nan")
    before = weights(training)
    with pytest.raises(NotFiniteError, match=r"transformer\.blocks\.2\.mlp\.0") as error:
        training.step(batch())
    assert error.value.samples == list(range(6))
    for name, value in weights(training).items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, before[name], equal_nan=True, rtol=0, atol=0)
    layer.weight.data.copy_(sound)
    assert change(training) > 0


def test_a_gradient_that_is_not_finite_is_noticed(make: Make) -> None:
    training = make()
    training.model.joint_layers[1].norm2.weight.register_hook(lambda grad: grad / 0)
    before = weights(training)
    with pytest.raises(NotFiniteError, match=r"gradient of joint_layers\.1\.norm2\.weight"):
        training.step(batch())
    kept = {name for name, _ in training.model.named_parameters()}
    assert all(torch.equal(before[name], weights(training)[name]) for name in kept)


def test_a_skipped_step_counts_and_the_epoch_goes_on(make: Make) -> None:
    training, progress, failures = make(SKIP_NOT_FINITE=1), Progress(), []
    model: nn.Module = training.model
    passes = 0

    def spoil(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += 1
        return output * float("nan") if passes in (2, 3) else output  # 3: looked at again

    model.head.register_forward_hook(spoil)
    steps = []
    train_epoch(
        training, [batch()] * 3, progress, steps=3, print_every=1,
        on_failure=failures.append, after_step=steps.append,
    )  # fmt: skip
    assert progress.step == 3
    assert len(failures) == 1
    assert [step is None for step in steps] == [False, True, False]
    assert progress.loss == pytest.approx((steps[0].loss + steps[2].loss) / 2)


def test_random_states_come_back(tmp_path: Path) -> None:
    import random

    import numpy as np

    def draw() -> list[float]:
        return [torch.rand(1).item(), float(np.random.rand()), random.random()]  # noqa: NPY002

    seed_all(3)
    draw()
    torch.save(random_states(torch.device("cpu")), tmp_path / "states.pth")
    wanted = draw()
    draw()
    states = torch.load(tmp_path / "states.pth", weights_only=True)
    restore_random_states(states, torch.device("cpu"))
    assert draw() == wanted


def test_fp16_forgives_an_overflow_but_no_endless_one(make: Make) -> None:
    training = make(PRECISION="fp16")
    training.model.head[1].weight.register_hook(lambda grad: grad * float("nan"))
    overflows = 0
    with pytest.raises(NotFiniteError, match=r"head\.1\.weight"):  # noqa: PT012 - until it does
        for _ in range(40):
            training.step(batch(2))
            overflows += 1
    assert overflows == 16  # from 65536 down to 1


def test_fp16_goes_on_after_a_step_that_was_left_out(make: Make) -> None:
    training = make(PRECISION="fp16", SKIP_NOT_FINITE=1)
    handle = training.model.head.register_forward_hook(lambda *_: _[2] * float("nan"))
    with pytest.raises(NotFiniteError):
        training.step(batch(2))
    handle.remove()
    assert change(training) > 0
