"""What the checks and the links of likelihoods share."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# A mean at the edge of the support has an infinite logit: clip it this far inside before taking the link.
MEAN_MARGIN = 1e-3
_NUM_HALVINGS = 40


def span(x: Tensor) -> str:
    """What values x has, for an error."""
    return f"values from {x.min().item():g} to {x.max().item():g}"


def bounded_logit(mean: Tensor) -> Tensor:
    """The logit of a mean in [0, 1], finite at the ends."""
    return torch.logit(mean, eps=MEAN_MARGIN)


def bounded_log(mean: Tensor) -> Tensor:
    """The log of a mean that is 0 or more, finite at 0."""
    return mean.clamp(min=MEAN_MARGIN).log()


def fill_in_buffers(module: nn.Module, state_dict: dict[str, Any], prefix: str) -> None:
    """Let weights from before a module had its buffers load: these then stay as they are."""
    for name, buffer in module.named_buffers(recurse=False):
        state_dict.setdefault(prefix + name, buffer)


def solve_increasing(function: Callable[[Tensor], Tensor], value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The argument between low and high at which an increasing function has this value, element by element."""
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        is_below = function(middle) < value
        low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
    return (low + high) / 2
