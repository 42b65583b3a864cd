"""Missing entries of x, which are NaN, and the values in their place."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

# How missing entries are marked; None: there may be none.
Missing: TypeAlias = Literal["nan"] | None


def filled(x: Tensor, value: float | Tensor) -> Tensor:
    """x with this value, a number or a tensor that broadcasts with x, where it is missing."""
    return torch.where(x.isnan(), value.to(x) if isinstance(value, Tensor) else value, x)
