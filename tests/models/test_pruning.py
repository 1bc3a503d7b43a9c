"""The pruning rules keep exactly as many connections or tokens as configured, the best ones."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib.models import transformer
from lib.models.pruning import PRUNERS, Stage, gather_tokens, keep_count
from lib.models.transformer import Attention, Block

JOINTS = 3


def connection_mask(weights: Tensor, bias: Tensor | None, keep: int) -> Tensor:
    return PRUNERS["connection"].prune(weights, JOINTS, keep, bias).attention_bias


def weights(batch: int, heads: int, rows: int, columns: int, seed: int, ties: bool) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(batch, heads, rows, columns, generator=generator)
    if ties:
        scores = scores.round()
    return scores.softmax(dim=3)


@pytest.mark.parametrize(
    ("alive", "ratio", "kept"),
    [
        (256, 0.7, 180),
        (180, 0.7, 126),
        (126, 0.7, 89),
        (100, 0.55, 55),
        (7, 1.0, 7),
        (5, 0.001, 1),
        (3, 2 / 3, 2),
        (9, 1e-9, 1),
    ],
)
def test_keep_count_is_exact(alive: int, ratio: float, kept: int) -> None:
    assert keep_count(alive, ratio) == kept


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), ties=st.booleans(), keep=st.integers(1, 9))
def test_each_row_keeps_exactly_its_strongest_connections_and_none_returns(
    seed: int, ties: bool, keep: int
) -> None:
    count = JOINTS + 9
    first = weights(2, 4, count, count, seed, ties)
    bias = connection_mask(first, None, keep)
    alive = bias[:, 0, JOINTS:, JOINTS:] == 0
    assert (alive.sum(dim=2) == keep).all()
    scores = first.sum(dim=1)[:, JOINTS:, JOINTS:]
    weakest_kept = scores.masked_fill(~alive, math.inf).amin(dim=2)
    strongest_pruned = scores.masked_fill(alive, -math.inf).amax(dim=2)
    assert (weakest_kept >= strongest_pruned).all()
    # With all weights equal, even 0, only connections that were alive may be chosen.
    again = connection_mask(torch.zeros_like(first), bias, max(1, keep - 1))
    still = again[:, 0, JOINTS:, JOINTS:] == 0
    assert (still.sum(dim=2) == max(1, keep - 1)).all()
    assert not (still & ~alive).any()
    assert (bias[:, 0, :JOINTS] == 0).all()
    assert (bias[:, 0, :, :JOINTS] == 0).all()


def test_a_pruned_connection_has_no_effect_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    attention = Attention(16, heads=4, scale=0.25)
    tokens = torch.randn(2, JOINTS + 9, 16)
    _, all_weights, _ = attention(tokens, num_weight_rows=JOINTS + 9)
    bias = connection_mask(all_weights, None, keep=5)
    for pruned in range(JOINTS, JOINTS + 9):
        changed = tokens.clone()
        changed[:, pruned] += 10 * torch.randn(16)
        cut = bias[:, 0, :, pruned] < 0
        cut[:, pruned] = False  # its own query changed
        for fused_from, rows in ((0, 0), (99, 0), (0, JOINTS + 9)):  # both formulas
            monkeypatch.setattr(transformer, "FUSED_FROM", fused_from)
            before, *_ = attention(tokens, bias, num_weight_rows=rows)
            after, weight, _ = attention(changed, bias, num_weight_rows=rows)
            assert torch.equal(before[cut], after[cut])
            assert not torch.equal(before[~cut], after[~cut])
            if weight is not None:
                assert (weight.transpose(1, 2)[cut][:, :, pruned] == 0).all()
    assert (bias < 0).sum() == 2 * 9 * (9 - 5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), ties=st.booleans(), keep=st.integers(1, 9))
def test_tokens_with_the_most_keypoint_attention_stay_in_order(
    seed: int, ties: bool, keep: int
) -> None:
    attention = weights(2, 4, JOINTS, JOINTS + 9, seed, ties)
    kept = PRUNERS["token"].prune(attention, JOINTS, keep, None).token_indices
    assert kept.shape == (2, JOINTS + keep)
    assert (kept[:, 1:] > kept[:, :-1]).all()
    assert (kept[:, :JOINTS] == torch.arange(JOINTS)).all()
    score = attention.sum(dim=(1, 2))
    pruned = torch.ones_like(score, dtype=torch.bool).scatter(1, kept, False)
    if keep < 9:
        weakest_kept = score.gather(1, kept[:, JOINTS:]).amin(dim=1)
        assert (weakest_kept >= score.masked_fill(~pruned, -1).amax(dim=1)).all()


def test_tokens_that_leave_are_attended_to_once_more_but_computed_no_further() -> None:
    torch.manual_seed(0)
    block, tokens = Block(32, 4, 2, scale=0.2), torch.randn(2, JOINTS + 9, 32)
    choose = partial(PRUNERS["token"].prune, num_joints=JOINTS, keep=5, attention_bias=None)
    left, pruned = block.prune(tokens, None, JOINTS, choose)
    assert left.shape == (2, JOINTS + 5, 32)
    torch.testing.assert_close(left, gather_tokens(block(tokens), pruned.token_indices))


def test_gather_tokens_selects_rows_of_each_image() -> None:
    x = torch.arange(10.0).view(1, 5, 2)
    gathered = gather_tokens(x, torch.tensor([[0, 4], [1, 2]]))
    assert gathered.tolist() == [[[0, 1], [8, 9]], [[2, 3], [4, 5]]]


def test_a_stage_reports_what_is_alive() -> None:
    stage = Stage(1, 3, token_indices=torch.tensor([[0, 1, 2, 4, 6]]), attention_bias=None)
    assert stage.alive_tokens(5).tolist() == [[False, True, False, True, False]]
    assert stage.connections is None
    bias = torch.zeros(1, 1, 4, 4)
    bias[0, 0, 2:, 3] = -math.inf
    stage = Stage(1, 2, token_indices=torch.arange(4)[None], attention_bias=bias)
    assert stage.connections.tolist() == [[[True, False], [True, False]]]
    assert stage.alive_tokens(2).tolist() == [[True, False]]
