"""What is seen of the attention is what the network computes, and seeing changes nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.core.inspection.attention import Looks, joint_mask, look
from lib.dataset.skeleton import COCO, MPII
from lib.models import build_model

MakeCfg = Callable[..., CfgNode]
MODES = ("none", "connection", "token")
JOINTS, COUNT = 16, 24


def network(cfg: CfgNode) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for block in model.transformer.blocks:  # fresh weights look everywhere alike
        nn.init.normal_(block.attention.qkv.weight, std=0.3)
    return model


def pictures(cfg: CfgNode, batch: int = 2) -> Tensor:
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
def plain_looks(model: nn.Module, images: Tensor, looks: Looks) -> tuple[Tensor, Tensor]:
    """The attention of keypoint tokens [B, L, J, N] and [B, M, J, J]: all tokens in all layers.

    What the network pruned, as its own report says, is masked here and not left out.
    """
    visual = model.patches(model.stem(images))
    tokens = torch.cat((model.keypoint_tokens.expand(len(images), -1, -1), visual), dim=1)
    count = tokens.shape[1]
    joints = count - visual.shape[1]
    transformer, main, within = model.transformer, [], []
    for layer, block in enumerate(transformer.blocks):
        tokens = tokens + transformer.position.table
        bias = torch.zeros(len(images), count, count)
        for stage in looks.stages:
            if stage.layer >= layer:
                continue
            if stage.bias is not None:
                bias[:, joints:, joints:][~stage.connections] = -torch.inf
            else:
                gone = ~stage.tokens(visual.shape[1])
                bias[:, :, joints:][gone[:, None].expand(-1, count, -1)] = -torch.inf
        main.append(plain_weights(block, tokens, bias)[:, :joints])
        tokens = block(tokens, bias[:, None])
    keypoints = tokens[:, :joints]
    for block in model.joint_layers if joint_mask(model) is not None else ():
        within.append(plain_weights(block, keypoints, model.joint_layers.bias))
        keypoints = block(keypoints, model.joint_layers.bias)
    return torch.stack(main, 1), torch.stack(within, 1) if within else torch.zeros(0)


@pytest.mark.parametrize("mode", MODES)
def test_seen_attention_is_the_plain_formula(mode: str, small_cfg: MakeCfg) -> None:
    cfg = small_cfg(PRUNE=mode)
    model, images = network(cfg), pictures(cfg)
    looks = look(model, images)
    main, within = plain_looks(model, images, looks)
    seen = torch.cat((looks.to_keypoints, looks.to_visual), dim=3)
    assert seen.shape == (2, 5, JOINTS, JOINTS + COUNT)
    torch.testing.assert_close(seen, main, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(looks.joint_layers, within, rtol=1e-4, atol=1e-6)
    assert seen.std() > 0.005  # there is something to see
    ones = torch.ones(2, 5, JOINTS)
    torch.testing.assert_close(seen.sum(dim=3), ones, rtol=0, atol=1e-5)
    torch.testing.assert_close(looks.joint_layers.sum(dim=3), ones[:, :3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("depth", [0, 2])
def test_looking_changes_no_bit(mode: str, depth: int, small_cfg: MakeCfg) -> None:
    cfg = small_cfg(PRUNE=mode, JOINT_DEPTH=depth)
    model, images = network(cfg), pictures(cfg)
    with torch.no_grad():
        before = model(images)
    looks = look(model, images)
    assert torch.equal(looks.heatmaps, before)
    assert looks.joint_layers.shape == (2, depth, JOINTS, JOINTS)
    assert not any(module._forward_hooks for module in model.modules())
    with torch.no_grad():
        assert torch.equal(model(images), before)


def test_nothing_is_left_on_a_network_that_failed(small_cfg: MakeCfg) -> None:
    model = network(small_cfg())
    with pytest.raises(RuntimeError):
        look(model, torch.zeros(1, 5, 48, 64))
    assert not any(module._forward_hooks for module in model.modules())


def test_a_token_that_left_gets_nothing_and_the_others_are_at_their_place(
    small_cfg: MakeCfg,
) -> None:
    cfg = small_cfg(PRUNE="token")
    looks = look(network(cfg), pictures(cfg))
    alive = torch.ones(2, COUNT, dtype=torch.bool)
    for layer, weights in enumerate(looks.to_visual.unbind(1)):
        assert (weights.transpose(1, 2)[~alive] == 0).all()
        assert (weights.transpose(1, 2)[alive] > 0).all()
        for stage in looks.stages:
            if stage.layer == layer:  # the strongest of what is seen are those that stay
                kept = stage.tokens(COUNT)
                score = weights.sum(dim=1)
                weakest = score.masked_fill(~kept, torch.inf).amin(dim=1)
                assert (weakest >= score.masked_fill(kept, -torch.inf).amax(dim=1)).all()
                alive = kept
    assert alive.sum(dim=1).tolist() == [12, 12]


@pytest.mark.parametrize("skeleton", [MPII, COCO])
@pytest.mark.parametrize("hops", [-1, 0, 1])
def test_joint_layers_look_where_the_mask_lets_them(
    skeleton: object, hops: int, small_cfg: MakeCfg
) -> None:
    cfg = small_cfg(NUM_JOINTS=skeleton.num_joints, JOINT_HOPS=hops)
    model = network(cfg)
    mask = joint_mask(model)
    assert torch.equal(mask, torch.from_numpy(skeleton.joint_mask(hops)))
    looks = look(model, pictures(cfg))
    assert torch.equal(looks.joint_layers > 0, mask.expand_as(looks.joint_layers))
    assert joint_mask(network(small_cfg(JOINT_DEPTH=0))) is None


def test_under_bf16_the_weights_are_still_whole(small_cfg: MakeCfg) -> None:
    cfg = small_cfg(PRUNE="token", PRUNE_LAYERS=[3])
    with torch.autocast("cpu", torch.bfloat16):
        looks = look(network(cfg), pictures(cfg))
    assert looks.to_visual.dtype == torch.float32
    whole = looks.to_visual.sum(dim=3) + looks.to_keypoints.sum(dim=3)
    torch.testing.assert_close(whole, torch.ones_like(whole), rtol=0, atol=1e-5)
