"""The states of all random generators, so that a run can go on where it stopped.

NumPy's is its global one, which nothing here draws from, but what a user adds may.
"""

import random
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed PyTorch on all devices, NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of all generators of this process, in types that a checkpoint may hold."""
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    states = {
        "torch": torch.get_rng_state(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "python": random.getstate(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Undo what happened to the generators since `random_states`.

    KeyError, TypeError, ValueError or RuntimeError where they are no such states.
    """
    name, keys, *rest = states["numpy"]
    torch.set_rng_state(states["torch"])
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(states["python"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
