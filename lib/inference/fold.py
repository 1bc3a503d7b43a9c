"""Fold batch norms into convolutions, in any network."""

import copy
from collections import Counter
from typing import Any

import torch
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from lib.models import PoseNetwork

# Of exactly these types, as another one may do more; timm's have `drop` and `act` to do after it.
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, BatchNormAct2d, SyncBatchNormAct)


@torch.inference_mode(False)
@torch.enable_grad()
def fold_batch_norms(network: PoseNetwork, size: tuple[int, int]) -> PoseNetwork:
    """Return a copy in evaluation mode, channels last, with its batch norms folded.

    A norm is folded if it is the only reader of a convolution's output. It computes what `network`
    computes, up to rounding, for images of any size; those of `size` (w, h) must be among them.
    """
    network = copy.deepcopy(network).eval().to(memory_format=torch.channels_last)
    network.requires_grad_(True)
    for conv, name in _foldable(network, size):
        norm: Any = network.get_submodule(name)
        weight, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight,
            norm.bias, transpose=isinstance(conv, nn.ConvTranspose2d),
        )  # fmt: skip
        conv.weight, conv.bias = weight, bias
        after = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]
        network.set_submodule(name, nn.Sequential(*after))
    return network.requires_grad_(False)


def _foldable(network: PoseNetwork, size: tuple[int, int]) -> list[tuple[Any, str]]:
    """Return convolutions, each with the name of the norm that alone reads its output.

    Autograd's graph of one image says what reads what, however the network is written.
    """
    owners = {
        weight: (name, module)
        for name, module in network.named_modules()
        for weight in module.parameters(recurse=False)
    }
    device = next(network.parameters()).device
    todo = [network(torch.zeros(1, 3, size[1], size[0], device=device)).grad_fn]
    readers: Counter[Any] = Counter()
    norms = []
    while todo:
        node = todo.pop()
        if "BatchNorm" in node.name():
            norms.append(node)
        for child, _ in node.next_functions:
            readers[child] += 1
            if child is not None and readers[child] == 1:
                todo.append(child)
    pairs = []
    for node in norms:
        source, weight, *_ = (child for child, _ in node.next_functions)
        if source is None or not source.name().startswith("ConvolutionBackward"):
            continue
        kernel = source.next_functions[1][0]
        # Weights that are not a module's own, or that two modules share, are left alone.
        if any(readers[child] != 1 for child in (source, weight, kernel)):
            continue
        if not (hasattr(weight, "variable") and hasattr(kernel, "variable")):
            continue
        (name, norm), (_, conv) = owners[weight.variable], owners[kernel.variable]
        is_known = isinstance(conv, nn.Conv2d) or getattr(conv, "groups", 0) == 1
        if type(norm) in _NORMS and norm.running_mean is not None and is_known:
            pairs.append((conv, name))
    return pairs
