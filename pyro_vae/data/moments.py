"""Mean and standard deviation of rows, and units in which their numbers are of order 1."""

from collections.abc import Iterable

import torch
from torch import Tensor

from pyro_vae.data.missing import filled

# A column is constant if its spread is below this share of its mean: single precision rounds so.
_ROUNDING = 1e-6


def moments(blocks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each element over rows, in double precision.

    Both are over the rows in which the element is observed. An element that is never observed has
    mean 0 and standard deviation 0.

    Arguments:
        blocks: the rows in blocks, `(B, *x_shape)`.
    """
    count = mean = square_sum = torch.zeros((), dtype=torch.float64)
    for block in blocks:
        x = block.double()
        new_count = (~x.isnan()).sum(0)
        new_mean = filled(x, 0.0).sum(0) / new_count.clamp(min=1)
        new_square_sum = filled((x - new_mean) ** 2, 0.0).sum(0)
        total = count + new_count
        # Chan's update, which avoids a difference of large squares.
        step = (new_mean - mean) * new_count / total.clamp(min=1)
        square_sum = square_sum + new_square_sum + (new_mean - mean) * step * count
        mean = mean + step
        count = total
    return mean, (square_sum / count.clamp(min=1)).sqrt()


def center_and_unit(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Return a location and a unit for each element, both `x_shape`.

    An element of a vector or a matrix has its own. The pixels of an image, `(C, H, W)`, have those
    of their channel. The unit of a constant is its absolute value, or 1 for the constant 0.

    Arguments:
        mean: the mean of each element over rows, `x_shape`.
        std: its standard deviation over rows, `x_shape`.
    """
    if mean.dim() > 2:
        dims = tuple(range(1, mean.dim()))
        center = mean.mean(dims, keepdim=True)
        variance = (std**2 + (mean - center) ** 2).mean(dims, keepdim=True)
        mean = center.expand_as(mean)
        std = variance.sqrt().expand_as(std)
    size = torch.where(mean == 0, 1.0, mean.abs())
    return mean, torch.where(std > _ROUNDING * mean.abs(), std, size)
