"""Random streams named by whole numbers, so that a draw depends on its name and on nothing drawn before."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def stream_seed(*name: int) -> int:
    """A seed for torch that is spread evenly and differs between names such as (seed, epoch)."""
    return int(np.random.SeedSequence(name).generate_state(1, np.uint64)[0])


@contextmanager
def stream(*name: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Torch's default generators run the stream of this name for a while; the caller's random state comes back."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seed = stream_seed(*name)
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
