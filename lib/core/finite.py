"""Where a loss or a gradient ceases to be finite."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def first_bad_gradient(model: nn.Module) -> str:
    """Name the last layer, where backward begins, whose gradient is not finite; "" if none is."""
    broken = [
        name
        for name, weight in model.named_parameters()
        if weight.grad is not None and not weight.grad.isfinite().all()
    ]
    return broken[-1] if broken else ""


@torch.no_grad()
def first_bad_layer(model: nn.Module, run: Callable[[], object]) -> str:
    """Name the first layer whose output is not finite while `run` runs the model; "" if none is.

    Synchronised batch norm computes as in evaluation meanwhile: other processes do not take part.
    """
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def look(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return look

    waiting = [norm for norm in model.modules() if isinstance(norm, nn.SyncBatchNorm)]
    states = [norm.training for norm in waiting]
    leaves = [(name, layer) for name, layer in model.named_modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(watch(name)) for name, layer in leaves]
    try:
        for norm in waiting:
            norm.eval()
        run()
    finally:
        for norm, training in zip(waiting, states, strict=True):
            norm.train(training)
        for hook in hooks:
            hook.remove()
    return found[0] if found else ""
