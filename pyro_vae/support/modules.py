"""Modes of modules inside a block, and the dtype and device of a module."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn


@contextmanager
def modes_restored(module: nn.Module) -> Iterator[None]:
    """Restore the training or evaluation mode of each submodule after the block."""
    modes = {submodule: submodule.training for submodule in module.modules()}
    try:
        yield
    finally:
        for submodule, mode in modes.items():
            submodule.training = mode


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Set evaluation mode (no dropout, frozen running statistics) inside the block."""
    with modes_restored(module):
        module.eval()
        yield


def tensor_like(module: nn.Module) -> Tensor:
    """Return a tensor with the dtype of a module's parameters, on their device.

    A module without parameters has that of its buffers of real numbers.
    """
    for tensor in chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point():
            return tensor
    return torch.zeros(())
