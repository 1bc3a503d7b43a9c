"""A `checkpoint.pth` with other types, shapes or values than ours is one line; nothing is used."""

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib.config import load_cfg
from lib.core import training_checkpoint
from lib.core.trainer import Trainer
from lib.utils.checkpoint import read_checkpoint
from lib.utils.distributed import Distributed
from lib.utils.errors import UserError

FIXTURE = Path(__file__).parents[1] / "fixtures/format_1"
CPU = Distributed(torch.device("cpu"))
Content = dict[str, Any]


def make_trainer(folder: Path, people: Path, *opts: object) -> Trainer:
    words = ["DATASET.ROOT", str(people), "TRAIN.OPTIMIZER", "adam", "TRAIN.EMA_DECAY", 0.9]
    cfg = load_cfg(FIXTURE / "small.yaml", [*words, "TRAIN.LR", 1e-3, *opts])
    return Trainer(cfg, CPU, folder, folder / "log")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, people: Path) -> tuple[Trainer, Content]:
    """A run after its first epoch, and the content of its checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    trainer = make_trainer(folder, people, "TRAIN.END_EPOCH", 1)
    trainer.run()
    return trainer, read_checkpoint(folder / "checkpoint.pth")


def resume(trainer: Trainer, content: Any) -> None:
    """Resume from a file with that content, which is not written, to save time."""
    path = Path("folder/checkpoint.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_checkpoint, "read_checkpoint", lambda path: content)
        _, read = training_checkpoint.read([path])
    training_checkpoint.restore(read, path, trainer.state, trainer.identity, trainer.provenance)


def state_of(trainer: Trainer) -> list[Tensor]:
    """Copies of all that a resume replaces."""
    state = trainer.state
    moments = [v for values in state.optimizer.state.values() for v in values.values()]
    tensors = (*state.network.state_dict().values(), *state.ema.module.state_dict().values())
    return [value.clone() for value in (*tensors, *moments)]


def copied(value: Any) -> Any:
    """A copy of all dictionaries and lists, with the same tensors."""
    if isinstance(value, dict):
        return {key: copied(entry) for key, entry in value.items()}
    return list(map(copied, value)) if isinstance(value, list) else value


def put(path: str, value: Any) -> Callable[[Content], object]:
    """Replace the entry at a dotted path; a number is the index of a list or of the optimizer."""

    def change(content: Content) -> None:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in parents:
            content = content[part]
        content[last] = value(content[last]) if callable(value) else value

    return change


def remove(path: str) -> Callable[[Content], object]:
    def change(content: Content) -> None:
        *parents, last = path.split(".")
        for part in parents:
            content = content[int(part) if part.isdigit() else part]
        del content[last]

    return change


def bomb(leaf: Any) -> Any:
    """A list of 2^60 leaves."""
    for _ in range(60):
        leaf = [leaf, leaf]
    return leaf


def aliases() -> str:
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60))]
    return "\n".join(lines)


class WithoutMethods:
    """Is read from a pickle as an OrderedDict whose methods are texts."""

    def __init__(self, old: dict) -> None:
        self.old = old

    def __reduce__(self) -> tuple:
        state = dict.fromkeys(("items", "keys", "values", "get", "copy"), "x")
        return OrderedDict, (), state, None, iter(self.old.items())


def without_methods(old: dict) -> OrderedDict:
    return pickle.loads(pickle.dumps(WithoutMethods(old)))  # noqa: S301


NAN, INF = math.nan, math.inf
COUNTS = (1.0, NAN, "1", True, None, -1, 2**70, torch.tensor(1), [1])
TEXTS = (1, None, b"x", torch.tensor(1), ["x"])
ODD = (1, "x", [], torch.zeros(2), {"x": 1}, bomb(1))
VALUES = {
    "format": (2.0, True, "2", torch.tensor(2), torch.tensor([2, 2]), [2], 3, None),
    "model": (*ODD, None, {}),
    "ema": ODD,
    "model.keypoint_tokens": (1, None, torch.zeros(3), lambda old: old.half(),
                              lambda old: old * NAN, lambda old: old.to_sparse(),
                              lambda old: old.to("meta"), lambda old: old.expand(2, *old.shape)),
    "ema.keypoint_tokens": (lambda old: old * NAN, lambda old: old + INF, torch.zeros(3)),
    "optimizer": (*ODD, None, {}),
    "optimizer.state": (*ODD, None, {}, {"0": {}}, {0: {}}, {10**6: {}}),
    "optimizer.state.0": (*ODD, None, {}),
    "optimizer.state.0.step": (1, None, "x", torch.tensor(NAN), torch.tensor(-1.0), torch.ones(2),
                               torch.tensor(1), torch.tensor([1.0])),
    "optimizer.state.0.exp_avg": (
        1, None, torch.zeros(3), lambda old: old.double(), lambda old: old * NAN,
        lambda old: torch.zeros(()).expand(old.shape), lambda old: old.to_sparse(),
    ),
    "optimizer.state.0.exp_avg_sq": (
        lambda old: old - 1, lambda old: torch.ones(1).expand(old.shape), lambda old: old[..., :1],
    ),
    "optimizer.param_groups": (*ODD, None, [{}], lambda old: old * 2),
    "optimizer.param_groups.0.params": (1, None, [], ["0"], [0], lambda old: old[::-1]),
    "optimizer.param_groups.0.betas": (1, None, "x", (0.9,), ("a", "b"), torch.ones(2),
                                       (NAN, 1.0), [0.9, 0.999]),
    "optimizer.param_groups.0.lr": ("x", None, torch.tensor(1.0), NAN),
    "scheduler": (*ODD, None, {}),
    "scheduler.last_epoch": (*COUNTS, 10**9),
    "scheduler.base_lrs": ("x", None, ["x"], [None]),
    "scheduler._last_lr": ("x", None, [torch.ones(1)]),
    "progress": (*ODD, None, {}),
    "progress.epoch": (*COUNTS, 10**9),
    "progress.step": (*COUNTS, 10**9, 4),
    "progress.best": ("x", NAN, INF, True, torch.tensor(1.0), [1.0]),
    "progress.loss_sum": ("x", NAN, None, True, torch.tensor(1.0)),
    "progress.loss_count": COUNTS,
    "progress.skipped": COUNTS,
    "progress.bad_images": ("x", None, 1, ["x"], [1.0], [-1], bomb(1)),
    "progress.history": ("x", None, 1, [], [1], ["x"], [{}], [{"epoch": 5}], bomb({"epoch": 0}),
                         lambda old: old * 2, lambda old: old * 10**4),
    "progress.history.0.epoch": ("x", NAN, None, 7, 0.5),
    "progress.history.0.loss": ("x", None, torch.tensor(1.0)),
    "random": (*ODD, None, {}, [[]], [{}], [None], lambda old: [1, *old]),
    "random.0.torch": (1, None, "x", torch.zeros(3), torch.zeros(5056), lambda old: old[:-1],
                       torch.zeros(1, dtype=torch.uint8).expand(5056)),
    "random.0.numpy": (1, None, "x", (), ("PCG64",), lambda old: ("PCG64", *old[1:]),
                       lambda old: (*old[:2], 10**6, *old[3:]),
                       lambda old: (*old[:2], -1, *old[3:]),
                       lambda old: (old[0], old[1][:-1], *old[2:]),
                       lambda old: (old[0], [2**40] * 624, *old[2:])),
    "random.0.python": (1, None, "x", (3,), (3, (1, 2), None), lambda old: (4, *old[1:]),
                        lambda old: (3, (*old[1][:-1], 10**6), None)),
    "identity": (*ODD, None, {}),
    "identity.seed": (torch.tensor(0), torch.tensor([0, 0]), 0.0, False, "0", None),
    "identity.steps_per_epoch": (torch.tensor(3), 3.0, "3", None, 0),
    "identity.optimizer": TEXTS,
    "identity.metric": TEXTS,
    "identity.skeleton": TEXTS,
    "provenance": (*ODD, None, {}),
    "provenance.config": (*TEXTS, "", "x", "[" * 10**4, "a: *b", aliases(), "!!python/name:os.x ''",
                          "a: 1\na: 2", "\n".join(f"a{i}: 1" for i in range(10**5))),
    "provenance.versions": (*ODD[:4], None),
    "provenance.data": (*ODD[:4], None),
}  # fmt: skip
CRAFTED = {
    **{
        f"{path}[{n}]": put(path, value)
        for path, all_ in VALUES.items()
        for n, value in enumerate(all_)
    },
    **{f"no {path}": remove(path) for path in VALUES if path != "optimizer.state.0"},
    "methods of the file": lambda content: content.update(
        progress=without_methods(content["progress"])
    ),
    "methods of the weights": lambda content: content.update(
        model=without_methods(content["model"])
    ),
    "other weights": lambda content: content["model"].update(x=torch.zeros(1)),
    "other progress": lambda content: content["progress"].update(x=1),
}


@pytest.mark.parametrize("fault", CRAFTED)
def test_a_crafted_checkpoint_is_one_line_and_nothing_of_it_is_used(
    fault: str, trained: tuple[Trainer, Content]
) -> None:
    trainer, content = trained
    before, content = state_of(trainer), copied(content)
    CRAFTED[fault](content)
    with pytest.raises(UserError, match=r"checkpoint\.pth") as error:
        resume(trainer, content)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 700
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(trainer), strict=True))


SCALERS = (
    1, "x", None, [], {"scale": 2.0}, {"scale": "x"}, {"scale": NAN}, {"scale": 0.0},
    {"scale": -1.0}, {"scale": torch.tensor(2.0)}, {"_growth_tracker": 1.0}, {"growth_factor": "x"},
)  # fmt: skip


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_scale_is_checked_and_restored(tmp_path: Path, people: Path, optimizer: str) -> None:
    opts = ("TRAIN.PRECISION", "fp16", "TRAIN.OPTIMIZER", optimizer, "TRAIN.MOMENTUM", 0.9)
    trainer = make_trainer(tmp_path, people, *opts, "TRAIN.END_EPOCH", 1)
    trainer.run()
    content = read_checkpoint(tmp_path / "checkpoint.pth")
    whole = content["scaler"]
    for number, scaler in enumerate(SCALERS):
        given = whole | scaler if isinstance(scaler, dict) and number > 4 else scaler
        with pytest.raises(UserError, match=r"checkpoint\.pth"):
            resume(trainer, content | {"scaler": given})
    resume(trainer, content | {"scaler": whole | {"scale": 8.0, "_growth_tracker": 3}})
    assert trainer.state.scaler.get_scale() == 8.0
    resume(trainer, content | {"scaler": {}})  # of a run in another precision
    assert trainer.state.scaler.get_scale() == 8.0
    resume(make_trainer(tmp_path / "fp32", people, *opts, "TRAIN.PRECISION", "fp32"), content)
