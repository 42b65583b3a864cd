"""Helpers for the checks and the links of likelihoods."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.support.checks import exactly

# A mean at the edge of the support has an infinite logit: clip it this far inside before taking the
# link.
MEAN_MARGIN = 1e-3
_NUM_HALVINGS = 40
# Fractions outside of [0, 1] by at most this were moved out by rounding or by interpolation.
_OVERSHOOT = 0.1


def span(x: Tensor) -> str:
    """Return the range of x in words, for an error."""
    return f"values from {exactly(x.min().item())} to {exactly(x.max().item())}"


def found(x: Tensor, lowest: float, highest: float = torch.inf) -> str:
    """Return in words what keeps x from being whole numbers in a range: a fraction, or the range.

    Arguments:
        x: the values, not all of which are whole numbers in the range.
        lowest: the lowest whole number.
        highest: the highest.
    """
    fractions = x[(x != x.round()) & (x >= lowest) & (x <= highest)]
    return f"the fraction {exactly(fractions[0].item())}" if len(fractions) else span(x)


def way_into_unit_interval(x: Tensor) -> str:
    """Return advice on values outside of [0, 1] that fits them."""
    lowest = x.min().item()
    highest = x.max().item()
    if lowest >= -_OVERSHOOT and highest <= 1 + _OVERSHOOT:
        return "clip them, by x.clamp(0, 1)"
    if lowest < 0:
        return "rescale them to [0, 1], or take NormalLikelihood, which scores real numbers"
    if (x == x.round()).all():
        return (
            "divide levels by the highest possible one, or take BinomialLikelihood, which scores "
            "levels"
        )
    return "divide them by the highest possible number, or take NormalLikelihood"


def bounded_logit(mean: Tensor) -> Tensor:
    """Return the logit of a mean in [0, 1], finite at the ends."""
    return torch.logit(mean, eps=MEAN_MARGIN)


def bounded_log(mean: Tensor) -> Tensor:
    """Return the log of a mean that is 0 or more, finite at 0."""
    return mean.clamp(min=MEAN_MARGIN).log()


def fill_in_buffers(module: nn.Module, state_dict: dict[str, Any], prefix: str) -> None:
    """Add the module's own buffers to a state dict that lacks them, so that old files load."""
    for name, buffer in module.named_buffers(recurse=False):
        state_dict.setdefault(prefix + name, buffer)


def solve_increasing(
    function: Callable[[Tensor], Tensor], value: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    """Return the argument between low and high at which an increasing function has this value.

    It works element by element, by bisection.
    """
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        is_below = function(middle) < value
        low = torch.where(is_below, middle, low)
        high = torch.where(is_below, high, middle)
    return (low + high) / 2
