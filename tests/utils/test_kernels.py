"""The routed kernels give the same numbers as the plain ones."""

import pytest
import torch
import torch.nn.functional as F

from lib.utils import kernels


@pytest.fixture
def routed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an AMD processor."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch has no oneDNN here")
    monkeypatch.setattr(kernels, "ONEDNN_LINEAR", torch.ops.mkldnn._linear_pointwise)


@pytest.mark.usefixtures("routed")
@pytest.mark.parametrize("shape", [(7,), (2, 5, 7), (1, 1, 7), (8, 7), (4, 8, 7), (0, 5, 7)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_routed_linear_layer_equals_the_plain_one(
    shape: tuple[int, ...], with_bias: bool
) -> None:
    torch.manual_seed(0)
    results = []
    x, weight, bias = torch.randn(shape), torch.randn(4, 7), torch.randn(4)
    for function in (F.linear, kernels.linear):
        leaves = [leaf.clone().requires_grad_() for leaf in (x, weight, bias)]
        y = function(leaves[0], leaves[1], leaves[2] if with_bias else None)
        y.square().sum().backward()
        results.append([y, *(leaf.grad for leaf in leaves[: 3 if with_bias else 2])])
    with torch.no_grad():
        inference = kernels.linear(x, weight, bias if with_bias else None)
    for plain, other in (*zip(*results, strict=True), (results[0][0], inference)):
        assert plain.shape == other.shape
        torch.testing.assert_close(plain, other, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("routed")
def test_a_slice_of_tokens_is_routed_too() -> None:
    x, weight = torch.randn(3, 9, 6)[:, :4], torch.randn(5, 6)
    for with_gradients in (True, False):
        with torch.set_grad_enabled(with_gradients):
            torch.testing.assert_close(kernels.linear(x, weight), F.linear(x, weight))


@pytest.mark.usefixtures("routed")
def test_other_precisions_use_the_plain_kernel() -> None:
    x, weight = torch.randn(3, 6, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    assert torch.equal(kernels.linear(x, weight), F.linear(x, weight))
    with torch.autocast("cpu", torch.bfloat16):
        assert kernels.linear(x.float(), weight.float()).dtype == torch.bfloat16


def test_topk_along_rows_and_columns_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(2, 5, 9)
    plain = kernels.topk_indices(x, 4).sort(dim=2).values
    monkeypatch.setattr(kernels, "is_exporting", lambda: True)
    exported = kernels.topk_indices(x, 4).sort(dim=2).values
    assert torch.equal(plain, exported)
    assert torch.equal(plain, x.argsort(dim=2)[:, :, -4:].sort(dim=2).values)
