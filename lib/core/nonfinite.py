"""Find the layer in which a loss or a gradient stops being finite."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def first_bad_gradient(model: nn.Module) -> str:
    """Name the last parameter, where backward starts, with a gradient not finite; "" if none."""
    bad = [
        name
        for name, weight in model.named_parameters()
        if weight.grad is not None and not weight.grad.isfinite().all()
    ]
    return bad[-1] if bad else ""


@torch.no_grad()
def first_bad_layer(model: nn.Module, run: Callable[[], object]) -> str:
    """Name the first layer whose output is not finite while `run` runs the model; "" if none.

    Synchronised batch norm is in evaluation mode meanwhile, since other processes do not take part.
    """
    bad: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                bad.append(name)

        return hook

    norms = [norm for norm in model.modules() if isinstance(norm, nn.SyncBatchNorm)]
    modes = [norm.training for norm in norms]
    leaves = [(name, layer) for name, layer in model.named_modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(watch(name)) for name, layer in leaves]
    try:
        for norm in norms:
            norm.eval()
        run()
    finally:
        for norm, mode in zip(norms, modes, strict=True):
            norm.train(mode)
        for handle in hooks:
            handle.remove()
    return bad[0] if bad else ""
