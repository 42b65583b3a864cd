"""Bounds on the outputs of networks, so that distributions have finite parameters."""

from typing import Any

import torch
from torch import Tensor

# Bound on the outputs of a posterior's network: as a loc it is far out, and its square is finite.
HIGHEST_OUTPUT = 1e6
# Bound on the log of a scale in standard units: exp(10) = 22,026 is far beyond any optimum.
HIGHEST_LOG = 10.0
# Bound on the log of a rate or a scale in the units of x: exp(30) is far beyond all counts that
# single precision can tell apart.
HIGHEST_LOG_OF_DATA = 30.0


def held(x: Tensor, highest: float, lowest: float = -torch.inf) -> Tensor:
    """Return x, held between two bounds.

    Beyond a bound the gradient is that of x itself, so that training can return to the range. The
    gradient of a plain clamp is 0 there.
    """
    return _Held.apply(x, lowest, highest)


class _Held(torch.autograd.Function):
    """Clamp whose gradient is that of the identity."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, lowest: float, highest: float) -> Tensor:
        return x.clamp(lowest, highest)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Save nothing: the gradient does not need the inputs."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0], None, None
