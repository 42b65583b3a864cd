"""Numbers that a coarser dtype merges."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.arrays import observed
from pyro_vae.data.storage import Levels, blocks, distinct

# Rows and entries that are sorted at once, to bound memory and time.
_MAX_SORTED_ROWS = 1024
_MAX_SORTED = 2**21
# The share of distinct real numbers in one element that rounding may merge without a warning:
# among many rows a few are always that close.
_MERGED_SHARE = 0.1


class Merged(NamedTuple):
    """Two numbers that a dtype cannot distinguish, and their element in a row."""

    first: float
    second: float
    place: tuple[int, ...]


def merged(levels: Levels, dtype: torch.dtype) -> Merged | None:
    """Return two numbers that become equal in a floating dtype, or None without relevant loss.

    A loss in whole numbers is always relevant, as far as their own dtype holds each whole number.
    A loss in real numbers is relevant if a tenth of the distinct ones in an element, among a
    thousand rows, are merged.

    Arguments:
        levels: the numbers, `(N, *x_shape)`.
        dtype: the dtype that they are converted to.
    """
    if _holds_all(dtype, levels.dtype):
        return None
    found = _merged_whole(levels, dtype)
    if found is None and levels.is_floating_point():
        found = _merged_real(levels, dtype)
    if found is None:
        return None
    first, second, column = found
    place = np.unravel_index(column, tuple(levels.shape[1:]))
    return Merged(first, second, tuple(int(number) for number in place))


def _holds_all(dtype: torch.dtype, stored: torch.dtype) -> bool:
    """Return True if the floating dtype holds each number of the stored dtype."""
    if stored == torch.bool:
        return True
    if stored.is_floating_point:
        return torch.finfo(stored).eps >= torch.finfo(dtype).eps
    return torch.iinfo(stored).max <= 2 / torch.finfo(dtype).eps


def _merged_whole(levels: Levels, dtype: torch.dtype) -> tuple[float, float, int] | None:
    """Return a whole number that changes, its new value and its column, or None.

    Only columns that hold nothing but whole numbers count.
    """
    largest = int(2 / torch.finfo(dtype).eps)  # dtype holds each whole number up to this one
    if all(bool((observed(part).abs() <= largest).all()) for part in distinct(levels)):
        return None
    is_candidate = torch.ones(levels.shape[1:].numel(), dtype=torch.bool, device=levels.device)
    is_changed = torch.zeros_like(is_candidate)
    for rows in _flat_blocks(levels):
        is_candidate &= _is_whole(rows).all(0)
        is_changed |= _is_changed(rows, dtype).any(0)
        if not is_candidate.any():
            return None
    columns = (is_candidate & is_changed).nonzero()
    if not len(columns):
        return None
    column = int(columns[0])
    values = torch.cat([rows[:, column] for rows in _flat_blocks(levels)])
    value = values[_is_changed(values, dtype)][0]
    return int(value), int(value.to(dtype)), column


def _flat_blocks(levels: Levels) -> Iterator[Tensor]:
    """Yield all rows in blocks, `(B, the entries of a row)`."""
    return (levels[block].flatten(1) for block in blocks(levels))


def _is_whole(values: Tensor) -> Tensor:
    """Return a mask: True for missing values and for whole numbers that the dtype holds."""
    if not values.is_floating_point():
        return torch.ones_like(values, dtype=torch.bool)
    known = observed(values)
    return (known == known.round()) & (known.abs() <= 2 / torch.finfo(values.dtype).eps)


def _merged_real(levels: Levels, dtype: torch.dtype) -> tuple[float, float, int] | None:
    """Return two neighbours that become equal and their column, or None if they are few."""
    num_rows = min(_MAX_SORTED_ROWS, max(2, _MAX_SORTED // levels.shape[1:].numel()))
    step = -(-len(levels) // num_rows)
    values = levels[slice(None, None, step)].flatten(1).T.contiguous().sort().values
    rounded = values.to(dtype)
    differ = values[:, 1:] > values[:, :-1]
    is_lost = differ & ~(rounded[:, 1:] > rounded[:, :-1])
    columns = (is_lost.sum(1) > _MERGED_SHARE * (differ.sum(1) + 1)).nonzero()
    if not len(columns):
        return None
    column = int(columns[0])
    at = int(is_lost[column].nonzero()[0])
    first, second = values[column, at : at + 2].tolist()
    return first, second, column


def _is_changed(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask: True for values that the conversion changes; a missing value is unchanged."""
    return (values.to(dtype).to(values.dtype) != values) & ~values.isnan()
