"""The whole network: equal to published outputs, independent of batching, exact pruning."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.config import get_cfg
from lib.dataset.skeleton import MPII
from lib.inference.fold import fold_batch_norms
from lib.models import build_model, transformer
from lib.models.position import sine_position
from lib.models.pruning import Stage, prune_modes
from lib.models.tokenpose import JointLayers, PatchEmbedding
from lib.models.transformer import Attention, Block
from lib.utils.checkpoint import load_weights

MakeCfg = Callable[..., CfgNode]
MODES = prune_modes()


def network(cfg: CfgNode, seed: int = 0) -> nn.Module:
    """A network in evaluation mode with statistics in its batch norms."""
    torch.manual_seed(seed)
    model = build_model(cfg)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


def random_images(cfg: CfgNode, batch: int = 3) -> Tensor:
    width, height = cfg.MODEL.IMAGE_SIZE
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def relative_difference(difference: Tensor, whole: Tensor) -> float:
    """Return the largest difference, relative to the range of `whole`."""
    return float(difference.abs().max() / (whole.max() - whole.min()))


GOLDEN = {
    "tokenpose_s_learnable": ("none", 0),
    "tokenpose_s_sine-full": ("none", 0),
    "tokenpose_s_two-linear-head": ("none", 0),
    "ppt_s_keep0.7": ("token", 0),
    "sparse_connection": ("connection", 3),
}


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("load_first", [True, False])
def test_agrees_with_the_published_networks(
    name: str, load_first: bool, shared: Path, tmp_path: Path
) -> None:
    golden = np.load(shared / "golden" / f"{name}.npz")
    cfg = get_cfg()
    for key in golden.files:
        if key in cfg.MODEL:
            cfg.MODEL[key] = golden[key].tolist()
    cfg.MODEL.SPARSITY.PRUNE, cfg.MODEL.SPARSITY.JOINT_DEPTH = GOLDEN[name]
    weights = {
        key.removeprefix("weights/"): torch.from_numpy(golden[key])
        for key in golden.files
        if key.startswith("weights/")
    }
    model = build_model(cfg)
    if load_first:
        torch.save(weights, tmp_path / "published.pth")
        load_weights(model, tmp_path / "published.pth")
        model.eval()
    else:
        wrapped = {f"module._orig_mod.{name}": value for name, value in weights.items()}
        content = {"model": "pose_tokenpose_s", "state_dict": wrapped, "perf": np.float64(90.1)}
        torch.save(content, tmp_path / "published.pth")
        model.eval()
        load_weights(model, tmp_path / "published.pth")
    with torch.no_grad():
        output = model(torch.from_numpy(golden["input"]))
    expected = torch.from_numpy(golden["output"])
    assert relative_difference(output - expected, expected) <= 1e-5


@pytest.mark.parametrize(("channels", "patch", "std"), [(256, 4, 0.02), (112, 1, 112**-0.5)])
def test_small_patches_start_wider(channels: int, patch: int, std: float) -> None:
    """Published patches of 4,096 numbers start as published."""
    torch.manual_seed(0)
    patches = PatchEmbedding(channels, (patch, patch), 192)
    patches.init_weights()
    assert patches.weight.std().item() == pytest.approx(std, rel=0.03)


@pytest.mark.parametrize(("name", "width"), [("dim", 32), ("head", 32 // 4)])
def test_scores_are_scaled_by_the_configured_width(
    name: str, width: int, small_cfg: MakeCfg
) -> None:
    cfg = small_cfg(ATTENTION_SCALE=name)
    attentions = [m for m in build_model(cfg).modules() if isinstance(m, Attention)]
    assert len(attentions) == 5 + cfg.MODEL.SPARSITY.JOINT_DEPTH
    assert {attention.scale for attention in attentions} == {width**-0.5}


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_gives_the_same_as_single_images(mode: str, small_cfg: MakeCfg) -> None:
    cfg = small_cfg(PRUNE=mode)
    model, images = network(cfg), random_images(cfg)
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    assert together.shape == (3, 16, 12, 16)
    assert relative_difference(together - alone, together) <= 1e-5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("position", ["none", "learnable", "sine", "sine-full"])
def test_every_weight_has_a_gradient(mode: str, position: str, small_cfg: MakeCfg) -> None:
    cfg = small_cfg(PRUNE=mode, POS_EMBEDDING_TYPE=position)
    torch.manual_seed(0)
    model = build_model(cfg)
    model(random_images(cfg)).square().mean().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize("mode", ["connection", "token"])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_exactly_the_configured_number_is_kept(
    mode: str, autocast: bool, training: bool, small_cfg: MakeCfg
) -> None:
    cfg = small_cfg(PRUNE=mode)
    model, images = network(cfg).train(training), random_images(cfg)
    stages: list[Stage] = []
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        model(images, stages)
    assert [stage.layer for stage in stages] == [1, 3]
    for stage, kept in zip(stages, (17, 12), strict=True):  # of 24
        if mode == "token":
            assert (stage.alive_tokens(24).sum(dim=1) == kept).all()
        else:
            assert (stage.connections.sum(dim=2) == kept).all()
    assert not (stages[1].alive_tokens(24) & ~stages[0].alive_tokens(24)).any()


def test_removed_tokens_equal_masked_tokens(small_cfg: MakeCfg) -> None:
    """The layers after a token stage give the same as the whole sequence with a mask."""
    cfg = small_cfg(PRUNE="token", PRUNE_LAYERS=[1])
    model, images = network(cfg), random_images(cfg)
    stages: list[Stage] = []
    transformer = model.transformer
    with torch.no_grad():
        visual = model.patches(model.backbone(images))
        tokens = torch.cat((model.keypoint_tokens.expand(3, -1, -1), visual), 1)
        pruned = transformer(tokens, 16, stages)
        alive = torch.cat((torch.ones(3, 16, dtype=torch.bool), stages[0].alive_tokens(24)), 1)
        bias = torch.zeros(3, 1, 1, 40).masked_fill(~alive[:, None, None], -math.inf)
        bias = bias.expand(-1, -1, 40, -1)
        for layer, block in enumerate(transformer.blocks):
            tokens = block(tokens + transformer.position.table, bias if layer > 1 else None)
    assert relative_difference(pruned - tokens[:, :16], pruned) <= 1e-5


def test_keeping_everything_is_the_dense_network(small_cfg: MakeCfg) -> None:
    outputs = []
    for mode in MODES:
        cfg = small_cfg(PRUNE=mode, KEEP_RATIO=1.0)
        with torch.no_grad():
            outputs.append(network(cfg)(random_images(cfg)))
    assert relative_difference(outputs[1] - outputs[0], outputs[0]) <= 1e-5
    assert relative_difference(outputs[2] - outputs[0], outputs[0]) <= 1e-5


def test_pruning_changes_the_output(small_cfg: MakeCfg) -> None:
    outputs = []
    for mode in MODES:
        cfg = small_cfg(PRUNE=mode, KEEP_RATIO=0.1)
        with torch.no_grad():
            outputs.append(network(cfg)(random_images(cfg)))
    assert relative_difference(outputs[1] - outputs[0], outputs[0]) > 1e-4
    assert relative_difference(outputs[2] - outputs[0], outputs[0]) > 1e-4


def test_fewer_queries_give_the_first_rows() -> None:
    torch.manual_seed(0)
    block = Block(32, 4, 3, scale=32**-0.5)
    tokens = torch.randn(2, 20, 32)
    torch.testing.assert_close(block(tokens, num_queries=5), block(tokens)[:, :5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fused_kernel_equals_the_plain_formula(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    attention = Block(32, 4, 3, scale=32**-0.5).attention.to(dtype)
    tokens, bias = torch.randn(2, 20, 32, dtype=dtype), torch.zeros(2, 1, 20, 20)
    bias[:, :, 3:, 7] = -math.inf
    results = []
    for fused_from in (0, 21):
        monkeypatch.setattr(transformer, "FUSED_FROM", fused_from)
        out, *_ = attention(tokens, bias)
        gradients = torch.autograd.grad(out.float().square().sum(), attention.parameters())
        results.append([out, *gradients])
    with_all_weights, *_ = attention(tokens, bias, num_weight_rows=20)
    torch.testing.assert_close(with_all_weights, results[1][0])
    for fused, plain in zip(*results, strict=True):
        close = {"rtol": 0.05, "atol": 0.05} if dtype == torch.bfloat16 else {}
        torch.testing.assert_close(fused, plain, **close)


def test_runners_fold_every_batch_norm_and_heatmaps_stay(small_cfg: MakeCfg) -> None:
    cfg = small_cfg()
    model, images = network(cfg), random_images(cfg)
    folded = fold_batch_norms(model, tuple(cfg.MODEL.IMAGE_SIZE))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        expected, actual = model(images), folded(images)
    assert (actual - expected).abs().max() <= 1e-5 * (expected.max() - expected.min())


def test_patches_are_flattened_row_by_row_with_channels_last(small_cfg: MakeCfg) -> None:
    model = network(small_cfg())
    features = torch.randn(2, 256, 12, 16)
    flat = features.view(2, 256, 6, 2, 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(2, 24, -1)
    plain = nn.functional.linear(flat, model.patches.weight, model.patches.bias)
    torch.testing.assert_close(model.patches(features), plain, rtol=1e-4, atol=1e-4)


def test_sine_position_encodes_y_in_its_first_half_and_x_in_its_second() -> None:
    table = sine_position((4, 6), 8).view(6, 4, 8)
    assert torch.equal(table[:, 0, :4], table[:, 3, :4])
    assert torch.equal(table[0, :, 4:], table[5, :, 4:])
    angle = 3 / (6 + 1e-6) * 2 * math.pi  # row 2 counts as 3 of 6
    slow = angle / 10000 ** (2 / 4)
    expected = [math.sin(angle), math.cos(angle), math.sin(slow), math.cos(slow)]
    assert table[2, 1, :4].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_joint_layer_changes_only_joints_within_the_mask() -> None:
    torch.manual_seed(0)
    mask = torch.from_numpy(MPII.joint_mask(1))
    layer = JointLayers([Block(32, 4, 3, scale=32**-0.5)], mask)
    tokens = torch.randn(1, 16, 32)
    before = layer(tokens)
    for joint in range(16):
        changed = tokens.clone()
        changed[:, joint] += 1
        moved = (layer(changed) != before).any(dim=2)[0]
        assert torch.equal(moved, mask[:, joint])


def test_stochastic_depth_acts_in_training_only(small_cfg: Callable[..., CfgNode]) -> None:
    torch.manual_seed(0)
    plain, dropping = build_model(small_cfg()), build_model(small_cfg(DROP_PATH=0.9))
    dropping.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        assert torch.equal(plain.eval()(images), dropping.eval()(images))
        outputs = [dropping.train()(images) for _ in range(4)]
    assert not all(torch.equal(outputs[0], output) for output in outputs[1:])


def test_the_gradient_of_one_person_has_the_strides_of_its_weight(small_cfg: MakeCfg) -> None:
    """Otherwise DistributedDataParallel warns, and copies."""
    network = build_model(small_cfg())
    network(torch.randn(1, 3, 48, 64)).sum().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is None or weight.grad.stride() == weight.stride(), name
