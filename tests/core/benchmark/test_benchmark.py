"""What the benchmark counts, and that every runtime gives the network's own answer."""

from collections.abc import Callable

import pytest
import torch
from yacs.config import CfgNode

from lib.core.benchmark import measure, training
from lib.core.benchmark.data import decode_ms, loader_rates
from lib.core.inference import normalise
from lib.core.runtime import build_runner
from lib.dataset.synthetic import make_synthetic
from lib.models import build_model

MakeCfg = Callable[..., CfgNode]
CPU = torch.device("cpu")


def crops(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 48, 64, 3), dtype=torch.uint8)


def test_variants_take_turns() -> None:
    order: list[str] = []
    tasks = {name: lambda name=name: order.append(name) for name in "abc"}
    times = measure.interleave(tasks, rounds=3, device=CPU)
    assert order == list("abc") * 5  # two rounds for warming up
    assert {name: len(runs) for name, runs in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_work_is_counted_with_attention_and_shrinks_with_the_tokens(small_cfg: MakeCfg) -> None:
    macs = {}
    for prune in measure.PRUNE_MODES:
        model = build_model(small_cfg(PRUNE=prune, JOINT_DEPTH=0)).eval()
        macs[prune] = round(1e9 * measure.count_macs(model, (64, 48)))
    assert macs["connection"] == macs["none"] > macs["token"]
    dim, hidden, joints, visual = 32, 96, 16, 24
    tokens = joints + visual
    stem = 24 * 32 * 64 * 27 + 12 * 16 * 64 * 64 * 9
    stem += 12 * 16 * (64 * 64 * 10 + 2 * 64 * 256 + 3 * (2 * 64 * 256 + 64 * 64 * 9))
    layer = tokens * (4 * dim * dim + 2 * dim * hidden) + 2 * tokens * tokens * dim
    last = tokens * 2 * dim * dim + joints * (2 * dim * dim + 2 * dim * hidden)
    last += 2 * joints * tokens * dim
    head = joints * dim * 192
    patches = visual * 256 * 8 * dim
    assert macs["none"] == stem + patches + 4 * layer + last + head


def test_rows_of_one_table_belong_together(small_cfg: MakeCfg) -> None:
    rows = measure.inference_rows(
        small_cfg(), CPU, batches=(2,), precisions=("fp32",), rounds=1
    ) + measure.training_rows(small_cfg(), CPU, batches=(2,), precisions=("fp32",), rounds=1)
    assert [(row.task, row.prune) for row in rows] == [
        (task, prune) for task in ("infer", "train") for prune in measure.PRUNE_MODES
    ]
    for row in rows:
        assert row.to_none == pytest.approx(
            next(r for r in rows if (r.task, r.prune) == (row.task, "none")).ms_per_image
            / row.ms_per_image
        )
        assert row.images_per_s == pytest.approx(1000 / row.ms_per_image)
        assert 0 < row.of_limit < 1
        assert row.peak_mb > 0
    assert len(measure.as_table(rows).splitlines()) == 2 + len(rows)


def test_growth_counts_the_visual_tokens(small_cfg: MakeCfg) -> None:
    cfg = small_cfg(IMAGE_SIZE=[32, 32], TRANSFORMER_DEPTH=4)
    rows = measure.growth_rows(cfg, CPU, rounds=1)
    assert list(rows) == [4, 16, 64]


@pytest.mark.parametrize(
    ("runtime", "prune"),
    [*(("openvino", mode) for mode in measure.PRUNE_MODES), ("onnx", "token")],
)
def test_other_runtimes_give_the_same_heatmaps(
    runtime: str, prune: str, small_cfg: MakeCfg
) -> None:
    pytest.importorskip("openvino" if runtime == "openvino" else "onnxruntime")
    torch.manual_seed(0)
    model = build_model(small_cfg(PRUNE=prune)).eval()
    run = build_runner(model, runtime, "fp32", (64, 48))
    for batch in (2, 3, 1, 16):
        images = crops(batch)
        with torch.no_grad():
            wanted = model(normalise(images))
        spread = wanted.max() - wanted.min()
        assert (run(images) - wanted).abs().max() <= 1e-4 * spread


def test_bf16_is_near_fp32(small_cfg: MakeCfg) -> None:
    torch.manual_seed(0)
    model = build_model(small_cfg(PRUNE="none")).eval()
    images = crops(2)
    with torch.no_grad():
        wanted = model(normalise(images))
        found = build_runner(model, "eager", "bf16", (64, 48))(images)
    assert found.dtype == torch.float32
    assert 0 < (found - wanted).abs().max() <= 0.1 * (wanted.max() - wanted.min())


def test_loader_and_decoding_have_a_rate(tmp_path, small_cfg: MakeCfg) -> None:  # noqa: ANN001
    make_synthetic(tmp_path / "people", {"train": 4}, seed=0, image_size=64)
    cfg = small_cfg()
    cfg.DATASET.DATASET, cfg.DATASET.ROOT = "synthetic", str(tmp_path / "people")
    rates = loader_rates(cfg, samples=8, rounds=1)
    assert rates["ratio"] == pytest.approx(rates["loader"] / rates["bare"])
    assert decode_ms(cfg, CPU, batch=2, rounds=1) > 0


def test_a_bare_step_learns_what_ours_does(small_cfg: Callable[..., CfgNode]) -> None:
    cfg = small_cfg()
    trainings = [training._training(cfg, CPU) for _ in range(2)]
    people = training._people(cfg, 3)
    for _ in range(2):
        trainings[0].step(people)
        training._bare_step(trainings[1], people)
    a, b = (training.model.state_dict() for training in trainings)
    assert all(torch.equal(a[name], b[name]) for name in a)
    found = training.watching_cost(cfg, CPU, batch=2, rounds=1)
    assert found["all / bare"] == found["all"] / found["bare"]
    assert found["checkpoint"] > 0
