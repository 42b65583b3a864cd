"""Modes of modules, which come back, and the dtype and device of a module."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def modes_restored(module: nn.Module) -> Iterator[None]:
    """Training and evaluation modes may change for a while; each submodule's own mode comes back."""
    modes = {submodule: submodule.training for submodule in module.modules()}
    try:
        yield
    finally:
        for submodule, mode in modes.items():
            submodule.training = mode


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout, frozen running statistics) for a while."""
    with modes_restored(module):
        module.eval()
        yield


def tensor_like(module: nn.Module) -> Tensor:
    """A tensor with the dtype of a module's parameters, on their device."""
    return next(module.parameters(), torch.zeros(()))
