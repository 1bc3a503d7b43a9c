"""The filter head: tokens times cells, in every pruning mode, at every upsampling."""

from collections.abc import Callable

import pytest
import torch
from yacs.config import CfgNode

from lib.config import load_cfg
from lib.models import build_model
from lib.models.heads import FeaturePyramid, FilterHead
from lib.models.pruning import prune_modes
from lib.utils.errors import UserError
from lib.utils.macs import count_macs

MakeCfg = Callable[..., CfgNode]


def filter_head(upsample: int = 1) -> FilterHead:
    torch.manual_seed(0)
    return FilterHead(8, 3, {4: 5, 8: 7}, embed_dim=6, upsample=upsample).eval()


def features() -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    sizes = {4: (2, 5, 8, 4), 8: (2, 7, 4, 2)}
    return {stride: torch.randn(size, generator=generator) for stride, size in sizes.items()}


@pytest.mark.parametrize("upsample", [1, 2, 4])
def test_heatmaps_have_the_size_of_the_finest_features_times_upsample(upsample: int) -> None:
    heatmaps = filter_head(upsample)(torch.randn(2, 3, 8), features())
    assert heatmaps.shape == (2, 3, 8 * upsample, 4 * upsample)


@torch.no_grad()
def test_each_part_of_a_cell_has_a_filter_of_its_own() -> None:
    """A change of one joint's filter for one part changes just that joint there."""
    head, tokens = filter_head(upsample=2), torch.randn(2, 3, 8)
    before = head(tokens, features())
    head.filters[1, 2] += 1  # part 2 of 4 is the lower left
    changed = (head(tokens, features()) - before).abs() > 1e-6
    assert changed[:, 1, 1::2, 0::2].float().mean() > 0.9
    changed[:, 1, 1::2, 0::2] = False
    assert not changed.any()


def test_a_token_changes_its_own_heatmap_only() -> None:
    head, tokens = filter_head(), torch.randn(2, 3, 8, requires_grad=True)
    head(tokens, features())[:, 1].square().sum().backward()
    assert tokens.grad is not None
    assert tokens.grad[:, 1].abs().sum() > 0
    assert tokens.grad[:, [0, 2]].abs().sum() == 0


@torch.no_grad()
def test_a_token_changes_where_its_heatmap_is_high() -> None:
    """Not only how high it is everywhere, as a bias would."""
    head, tokens = filter_head(), torch.randn(2, 3, 8)
    for weight in head.mlp.parameters():
        weight.normal_()
    change = head(tokens, features()) - head(-tokens, features())
    assert change.flatten(2).std(dim=2).min() > 0.1


@torch.no_grad()
def test_every_feature_map_counts() -> None:
    head, tokens = filter_head(), torch.randn(2, 3, 8)
    before = head(tokens, features())
    for stride in features():
        changed = features()
        changed[stride] += 1
        assert (head(tokens, changed) - before).abs().max() > 1e-4


def test_heatmaps_begin_near_zero() -> None:
    assert filter_head()(torch.randn(2, 3, 8), features()).abs().max() < 0.5


@torch.no_grad()
def test_the_pyramid_moves_with_its_features() -> None:
    """Away from the border, features moved by a coarse cell move the output by its fine cells."""
    torch.manual_seed(0)
    pyramid = FeaturePyramid({4: 5, 8: 7}, 6).eval()
    maps = {4: torch.randn(1, 5, 32, 32), 8: torch.randn(1, 7, 16, 16)}
    moved = {4: maps[4].roll(2, dims=3), 8: maps[8].roll(1, dims=3)}
    expected = pyramid(maps).roll(2, dims=3)[..., 8:-8]
    torch.testing.assert_close(pyramid(moved)[..., 8:-8], expected, atol=1e-5, rtol=1e-5)


def with_filter(cfg: CfgNode) -> CfgNode:
    cfg.MODEL.HEAD, cfg.MODEL.ATTENTION_SCALE = "filter", "head"
    return cfg


@pytest.mark.parametrize("mode", prune_modes())
def test_the_network_trains_with_it_in_every_mode(mode: str, small_cfg: MakeCfg) -> None:
    torch.manual_seed(0)
    model = build_model(with_filter(small_cfg(PRUNE=mode)))
    heatmaps = model(torch.randn(3, 3, 48, 64))
    assert heatmaps.shape == (3, 16, 12, 16)
    heatmaps.square().mean().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_it_is_a_small_part_of_people_128(pytestconfig: pytest.Config) -> None:
    """At most a tenth of the multiply-adds, as the difference to a head that is almost free."""
    path = pytestconfig.rootpath / "experiments/lspet/people/people_128.yaml"
    cfg = load_cfg(path)
    model = build_model(cfg)
    whole = count_macs(model, tuple(cfg.MODEL.IMAGE_SIZE))
    model.head = torch.nn.Identity()
    model.head.forward = lambda keypoints, features: keypoints  # type: ignore[method-assign]
    assert 0 < whole - count_macs(model, tuple(cfg.MODEL.IMAGE_SIZE)) <= 0.1 * whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"HEATMAP_SIZE": [128, 96]}, "times 1, 2 or 4"),  # finer than stride 4 can give
        ({"HEATMAP_SIZE": [16, 24]}, "times 1, 2 or 4"),
        ({"FILTER.STRIDES": [4, 8]}, "stem has features of stride 4"),
        (
            {
                "FILTER.STRIDES": [4, 8],
                "BACKBONE": "resnet18",
                "PATCH_SIZE": [1, 1],
                "IMAGE_SIZE": [60, 44],
                "HEATMAP_SIZE": [15, 11],
            },
            "divisible by all of",
        ),
        ({"FILTER.STRIDES": []}, "be one or more strides"),
        ({"FILTER.DIM": 0}, "be 1 or more"),
        ({"HEAD": "conv"}, "be one of mlp, filter"),
        ({"ATTENTION_SCALE": "none"}, "be one of dim, head"),
    ],
)
def test_a_head_that_does_not_fit_is_one_line(
    changes: dict, message: str, small_cfg: MakeCfg
) -> None:
    cfg = with_filter(small_cfg())
    cfg.merge_from_list([word for k, v in changes.items() for word in (f"MODEL.{k}", v)])
    with pytest.raises(UserError, match=message):
        build_model(cfg)
