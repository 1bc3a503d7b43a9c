"""The quicker kernel gives the same numbers, and switching it on is safe."""

import pytest
import torch
import torch.nn.functional as F

from lib.utils import machine


@pytest.mark.parametrize("shape", [(7,), (2, 5, 7), (1, 1, 7)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_routed_linear_layer_is_the_plain_one(
    shape: tuple[int, ...], with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_routed", True)
    torch.manual_seed(0)
    results = []
    x, weight, bias = torch.randn(shape), torch.randn(4, 7), torch.randn(4)
    for function in (F.linear, machine.linear):
        leaves = [leaf.clone().requires_grad_() for leaf in (x, weight, bias)]
        y = function(leaves[0], leaves[1], leaves[2] if with_bias else None)
        y.square().sum().backward()
        results.append([y, *(leaf.grad for leaf in leaves[: 3 if with_bias else 2])])
    for plain, routed in zip(*results, strict=True):
        assert plain.shape == routed.shape
        torch.testing.assert_close(plain, routed, rtol=1e-5, atol=1e-5)


def test_a_slice_of_tokens_is_routed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_routed", True)
    x, weight = torch.randn(3, 9, 6)[:, :4], torch.randn(5, 6)
    torch.testing.assert_close(machine.linear(x, weight), F.linear(x, weight))


def test_other_precisions_take_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_routed", True)
    x, weight = torch.randn(3, 6, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    assert torch.equal(machine.linear(x, weight), F.linear(x, weight))
    with torch.autocast("cpu", torch.bfloat16):
        assert machine.linear(x.float(), weight.float()).dtype == torch.bfloat16


def test_tuning_twice_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_routed", False)
    machine.tune()
    machine.tune()
    torch.randn(1 << 22).sum()  # memory is taken and given back as before


def test_rows_and_columns_hold_the_same_largest() -> None:
    x = torch.rand(2, 5, 9)
    plain = machine.largest(x, 4).sort(dim=2).values
    with machine.exporting():
        exported = machine.largest(x, 4).sort(dim=2).values
    assert torch.equal(plain, exported)
    assert torch.equal(plain, x.argsort(dim=2)[:, :, -4:].sort(dim=2).values)
