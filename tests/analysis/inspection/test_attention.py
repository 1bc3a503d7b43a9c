"""The recorded attention is the network's own, and recording changes nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.analysis.inspection.gather import AttentionMaps, joint_mask, record_attention
from lib.dataset.skeleton import COCO, MPII, Skeleton
from lib.models import PoseNetwork, build_model

MakeCfg = Callable[..., CfgNode]
MODES = ("none", "connection", "token")
JOINTS, COUNT = 16, 24


def network(cfg: CfgNode) -> PoseNetwork:
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for block in model.transformer.blocks:  # initial weights give almost uniform attention
        nn.init.normal_(block.attention.qkv.weight, std=0.3)
    return model


def random_images(cfg: CfgNode, batch: int = 2) -> Tensor:
    width, height = cfg.MODEL.IMAGE_SIZE
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def plain_weights(block: nn.Module, tokens: Tensor, bias: Tensor | float) -> Tensor:
    """Mean over heads of softmax(q·k / sqrt(dim) + bias), written out: [B, N, N]."""
    q, k, _ = block.attention.qkv(block.norm1(tokens)).chunk(3, dim=2)
    heads = block.attention.heads
    total = torch.zeros(())
    for a, b in zip(q.chunk(heads, dim=2), k.chunk(heads, dim=2), strict=True):
        scores = a @ b.transpose(1, 2) * tokens.shape[2] ** -0.5 + bias
        total = total + scores.softmax(dim=2) / heads
    return total


@torch.no_grad()
def plain_maps(model: nn.Module, images: Tensor, maps: AttentionMaps) -> tuple[Tensor, Tensor]:
    """The attention of keypoint tokens [B, L, J, N] and [B, M, J, J], of all tokens in all layers.

    Tokens that the network removed, according to its stages, are masked here instead.
    """
    visual = model.patches(model.backbone(images))
    tokens = torch.cat((model.keypoint_tokens.expand(len(images), -1, -1), visual), dim=1)
    count = tokens.shape[1]
    joints = count - visual.shape[1]
    transformer, main, joint_maps = model.transformer, [], []
    for layer, block in enumerate(transformer.blocks):
        tokens = tokens + transformer.position.table
        bias = torch.zeros(len(images), count, count)
        for stage in maps.stages:
            if stage.layer >= layer:
                continue
            if stage.attention_bias is not None:
                bias[:, joints:, joints:][~stage.connections] = -torch.inf
            else:
                pruned = ~stage.alive_tokens(visual.shape[1])
                bias[:, :, joints:][pruned[:, None].expand(-1, count, -1)] = -torch.inf
        main.append(plain_weights(block, tokens, bias)[:, :joints])
        tokens = block(tokens, bias[:, None])
    keypoints = tokens[:, :joints]
    for block in model.joint_layers:
        joint_maps.append(plain_weights(block, keypoints, model.joint_layers.bias))
        keypoints = block(keypoints, model.joint_layers.bias)
    return torch.stack(main, 1), torch.stack(joint_maps, 1)


@pytest.mark.parametrize("mode", MODES)
def test_recorded_attention_equals_the_plain_formula(mode: str, small_cfg: MakeCfg) -> None:
    cfg = small_cfg(PRUNE=mode)
    model, images = network(cfg), random_images(cfg)
    maps = record_attention(model, images)
    main, joint_maps = plain_maps(model, images, maps)
    recorded = torch.cat((maps.to_keypoints, maps.to_visual), dim=3)
    assert recorded.shape == (2, 5, JOINTS, JOINTS + COUNT)
    torch.testing.assert_close(recorded, main, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(maps.joint_layers, joint_maps, rtol=1e-4, atol=1e-6)
    assert recorded.std() > 0.005  # the attention is not uniform
    ones = torch.ones(2, 5, JOINTS)
    torch.testing.assert_close(recorded.sum(dim=3), ones, rtol=0, atol=1e-5)
    torch.testing.assert_close(maps.joint_layers.sum(dim=3), ones[:, :3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("depth", [0, 2])
def test_recording_does_not_change_the_heatmaps(mode: str, depth: int, small_cfg: MakeCfg) -> None:
    cfg = small_cfg(PRUNE=mode, JOINT_DEPTH=depth)
    model, images = network(cfg), random_images(cfg)
    with torch.no_grad():
        before = model(images)
    maps = record_attention(model, images)
    assert torch.equal(maps.heatmaps, before)
    assert maps.joint_layers.shape == (2, depth, JOINTS, JOINTS)
    assert not any(module._forward_hooks for module in model.modules())
    with torch.no_grad():
        assert torch.equal(model(images), before)


def test_hooks_are_removed_after_an_error(small_cfg: MakeCfg) -> None:
    model = network(small_cfg())
    with pytest.raises(RuntimeError):
        record_attention(model, torch.zeros(1, 5, 48, 64))
    assert not any(module._forward_hooks for module in model.modules())


def test_pruned_tokens_have_weight_zero_and_the_others_keep_their_index(
    small_cfg: MakeCfg,
) -> None:
    cfg = small_cfg(PRUNE="token")
    maps = record_attention(network(cfg), random_images(cfg))
    alive = torch.ones(2, COUNT, dtype=torch.bool)
    for layer, weights in enumerate(maps.to_visual.unbind(1)):
        assert (weights.transpose(1, 2)[~alive] == 0).all()
        assert (weights.transpose(1, 2)[alive] > 0).all()
        for stage in maps.stages:
            if stage.layer == layer:  # the tokens with the most recorded attention stay
                kept = stage.alive_tokens(COUNT)
                score = weights.sum(dim=1)
                weakest = score.masked_fill(~kept, torch.inf).amin(dim=1)
                assert (weakest >= score.masked_fill(kept, -torch.inf).amax(dim=1)).all()
                alive = kept
    assert alive.sum(dim=1).tolist() == [12, 12]


@pytest.mark.parametrize("skeleton", [MPII, COCO])
@pytest.mark.parametrize("hops", [-1, 0, 1])
def test_joint_layers_attend_only_within_the_mask(
    skeleton: Skeleton, hops: int, small_cfg: MakeCfg
) -> None:
    cfg = small_cfg(NUM_JOINTS=skeleton.num_joints, JOINT_HOPS=hops)
    cfg.DATASET.SKELETON = skeleton.name
    model = network(cfg)
    mask = joint_mask(model)
    assert torch.equal(mask, torch.from_numpy(skeleton.joint_mask(hops)))
    maps = record_attention(model, random_images(cfg))
    assert torch.equal(maps.joint_layers > 0, mask.expand_as(maps.joint_layers))
    assert joint_mask(network(small_cfg(JOINT_DEPTH=0))) is None


def test_weights_sum_to_one_under_bf16(small_cfg: MakeCfg) -> None:
    cfg = small_cfg(PRUNE="token", PRUNE_LAYERS=[3])
    with torch.autocast("cpu", torch.bfloat16):
        maps = record_attention(network(cfg), random_images(cfg))
    assert maps.to_visual.dtype == torch.float32
    total = maps.to_visual.sum(dim=3) + maps.to_keypoints.sum(dim=3)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-5)
