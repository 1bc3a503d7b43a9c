"""Find the layer in which a loss stops being finite."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook


@torch.no_grad()
def first_bad_layer(model: nn.Module, run: Callable[[], object]) -> str:
    """Name the first layer whose output is not finite while `run` runs the model; "" if none.

    Synchronised batch norm is in evaluation mode meanwhile, since other processes do not take part.
    """
    layers = {layer: name for name, layer in model.named_modules() if not list(layer.children())}
    bad: list[str] = []

    def hook(module: nn.Module, inputs: object, output: object) -> None:
        if module in layers and isinstance(output, Tensor) and not output.isfinite().all():
            bad.append(layers[module])

    norms = [layer for layer in layers if isinstance(layer, nn.SyncBatchNorm) and layer.training]
    handle = register_module_forward_hook(hook)
    try:
        for norm in norms:
            norm.eval()
        run()
    finally:
        handle.remove()
        for norm in norms:
            norm.train()
    return bad[0] if bad else ""
