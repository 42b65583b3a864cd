"""Missing entries of x, which are NaN, and the values in their place."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

# The mark of missing entries; None allows no missing entry.
Missing: TypeAlias = Literal["nan"] | None


def filled(x: Tensor, value: float | Tensor) -> Tensor:
    """Return x with this value, a number or a tensor that broadcasts with x, where x is NaN."""
    filler = value.to(x) if isinstance(value, Tensor) else value
    return torch.where(x.isnan(), filler, x)
