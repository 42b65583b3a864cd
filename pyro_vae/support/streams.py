"""Random streams named by whole numbers, so that no draw depends on earlier draws."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from pyro_vae.support.checks import whole


def stream_seed(*name: int) -> int:
    """Return an evenly spread seed for torch, which differs between names such as (seed, epoch).

    Raises:
        ValueError: if a number is negative.
    """
    for number in name:
        whole(number, "seed", least=0)
    return int(np.random.SeedSequence(name).generate_state(1, np.uint64)[0])


@contextmanager
def stream(*name: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's default generators by name inside the block; restore their state after it."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seed = stream_seed(*name)
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
