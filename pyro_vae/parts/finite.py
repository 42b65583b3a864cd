"""Numbers of a network that are held in a range, so that what a distribution makes of them is finite."""

from typing import Any

import torch
from torch import Tensor

# Numbers that a network gives for a posterior are held within this: as a loc it is far out, and its square is finite.
HIGHEST_OUTPUT = 1e6
# No optimum lies out here: exp(10) is 22,026 times the unit of what is scaled.
HIGHEST_LOG = 10.0
# Nor here, for logs of rates and of scales in the units of x: exp(30) is far beyond all counts that
# single precision can tell apart.
HIGHEST_LOG_OF_DATA = 30.0


def held(x: Tensor, highest: float, lowest: float = -torch.inf) -> Tensor:
    """Return x, held between two bounds.

    Beyond a bound it has the gradient of x itself, which leads back into the range; that of a clamp is 0.
    """
    return _Held.apply(x, lowest, highest)


class _Held(torch.autograd.Function):
    """A clamp whose gradient passes through, at no cost."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, lowest: float, highest: float) -> Tensor:
        return x.clamp(lowest, highest)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing of the inputs is needed."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0], None, None
