"""The global random generators, NumPy's and Python's too, which a user's network may use."""

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
    """Return the states of all generators of this process, in types that a checkpoint may hold."""
    state = np.random.get_state()  # noqa: NPY002
    assert isinstance(state, tuple)
    name, keys, *rest = state
    states = {
        "torch": torch.get_rng_state(),
        "numpy": (name, keys.tolist(), *rest),
        "python": random.getstate(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Restore what `random_states` returned; an error of nearly any type if it is damaged."""
    torch.set_rng_state(states["torch"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    random.setstate(states["python"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
