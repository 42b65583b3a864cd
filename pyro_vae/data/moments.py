"""Mean and standard deviation of rows, and the units in which numbers of any scale are of the order of 1."""

from collections.abc import Iterable

import torch
from torch import Tensor

from pyro_vae.data.missing import filled

# A spread below this share of the mean's size is rounding of single precision: such a column is constant.
_ROUNDING = 1e-6


def moments(blocks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each element over rows in blocks, `(B, *x_shape)`, in double precision.

    Each is over the rows in which the element is observed; one that never is has 0 and 0.
    """
    count = mean = square_sum = torch.zeros((), dtype=torch.float64)
    for block in blocks:
        x = block.double()
        new_count = (~x.isnan()).sum(0)
        new_mean = filled(x, 0.0).sum(0) / new_count.clamp(min=1)
        new_square_sum = filled((x - new_mean) ** 2, 0.0).sum(0)
        total = count + new_count
        # Chan's update: no difference of large squares.
        step = (new_mean - mean) * new_count / total.clamp(min=1)
        square_sum = square_sum + new_square_sum + (new_mean - mean) * step * count
        mean = mean + step
        count = total
    return mean, (square_sum / count.clamp(min=1)).sqrt()


def center_and_unit(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """A location and a scale for each element, from its mean and standard deviation over rows, both `x_shape`.

    Those of an element in vectors and matrices are its own; those of the pixels of an image, `(C, H, W)`, are the channel's.
    What is constant has its size for a unit, or 1 where that is 0.
    """
    if mean.dim() > 2:
        dims = tuple(range(1, mean.dim()))
        center = mean.mean(dims, keepdim=True)
        variance = (std**2 + (mean - center) ** 2).mean(dims, keepdim=True)
        mean, std = center.expand_as(mean), variance.sqrt().expand_as(std)
    size = torch.where(mean == 0, 1.0, mean.abs())
    return mean, torch.where(std > _ROUNDING * mean.abs(), std, size)
