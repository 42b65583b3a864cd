"""Modes of modules inside a block, and the dtype and device of a module."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.support.checks import described


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


def state_difference(module: nn.Module, state: Any) -> str | None:
    """Return in a sentence the first difference between a state dict and that of a module.

    The result is None if both have tensors of the same names and shapes.

    Arguments:
        module: the module.
        state: the state dict.
    """
    own = module.state_dict()
    if not isinstance(state, Mapping):
        return f"it holds {described(state)} in place of weights."
    missing = [name for name in own if name not in state]
    further = [name for name in state if name not in own]
    if missing or further:
        lacks = f"it lacks '{missing[0]}'" if missing else ""
        has = f"it has '{further[0]}', which this module has not" if further else ""
        return f"{' and '.join(filter(None, (lacks, has)))}."
    for name, tensor in own.items():
        given = state[name]
        if isinstance(tensor, Tensor) and getattr(given, "shape", None) != tensor.shape:
            received = tuple(given.shape) if isinstance(given, Tensor) else described(given)
            return f"'{name}' has the shape {tuple(tensor.shape)} here, and {received} there."
    return None


def not_finite(module: nn.Module, state: Mapping[str, Any]) -> str | None:
    """Return the name of a parameter that is NaN or infinite in a state dict, or None.

    Arguments:
        module: the module, whose buffers may hold any number.
        state: a state dict with its names.
    """
    for name, parameter in module.named_parameters(remove_duplicate=False):
        given = state[name]
        if not given.to(parameter.dtype).isfinite().all():
            return name
    return None
