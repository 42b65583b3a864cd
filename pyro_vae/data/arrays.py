"""Arrays of numbers as tensors: their dtype, their highest level, and what a coarser dtype merges."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.missing import filled

Array: TypeAlias = Tensor | np.ndarray

# Unsigned integers that torch stores and computes little with.
_WIDE_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
_HIGHEST_BY_DTYPE = {"uint8": 255.0, "uint16": 65_535.0}
# Up to here float32 holds each whole number.
_LARGEST = 2**24
# Rows that are converted at a time, and rows and entries that are sorted at once: bound memory and time.
_BLOCK_ROWS = 4096
_MAX_SORTED_ROWS = 1024
_MAX_SORTED = 2**21
# Of the real numbers in one element, the share of distinct ones that rounding may merge unmentioned:
# among many rows a few always lie as close.
_MERGED_SHARE = 0.1


def as_tensor(array: Array, name: str = "data") -> Tensor:
    """The array as a tensor that torch computes with, whatever its byte order.

    A numpy array is copied, and unsigned integers wider than 8 bits become int64.

    Raises:
        ValueError: if it has a mask, or holds other than real numbers or whole numbers from 2^63.
    """
    array = as_array(array)
    tensor = array if isinstance(array, Tensor) else _from_numpy(array, name)
    if tensor.dtype not in _WIDE_UNSIGNED:
        return tensor
    signed = tensor.to(torch.int64)
    if signed.numel() and signed.min() < 0:
        raise ValueError(
            f"'{name}' must hold whole numbers below 2^63, got {signed[signed < 0][0].item() + 2**64}: "
            "divide them, or convert them to float64."
        )
    return signed


def without_mask(array: Any) -> Any:
    """A masked array as real numbers that hold each of its numbers, with NaN where it is masked.

    What has no mask stays as it is, and so does what holds no numbers.
    """
    if not isinstance(array, np.ma.MaskedArray) or not _is_real(array):
        return array
    dtype = array.dtype
    if dtype.kind != "f":
        known = np.ma.filled(array, 0)
        is_small = known.size == 0 or (known.max() <= _LARGEST and known.min() >= -_LARGEST)
        dtype = np.dtype(np.float32 if is_small else np.float64)
    return np.ma.filled(array.astype(dtype), np.nan)


def as_array(numbers: Any) -> Array:
    """Tensors and numpy arrays as they are; lists and tables of others as numpy arrays."""
    return numbers if isinstance(numbers, Tensor) else np.asanyarray(numbers)


def highest_level(array: Array, levels: Tensor) -> float:
    """The highest level there can be, by what the numbers are.

    It is 255 for uint8 and 65,535 for uint16, the highest there is for other whole numbers, and 1 for
    real numbers and booleans.

    Arguments:
        array: the numbers as they came.
        levels: the same as `as_tensor` gives them, at least one.
    """
    kind = _dtype_name(array)
    if kind in _HIGHEST_BY_DTYPE:
        return _HIGHEST_BY_DTYPE[kind]
    is_whole = kind.startswith(("int", "uint"))
    return float(max(1, _observed(levels).max().item())) if is_whole else 1.0


class Merged(NamedTuple):
    """Two numbers that a dtype cannot tell apart, and the element of a row where they are."""

    first: float
    second: float
    place: tuple[int, ...]


def merged(levels: Tensor, dtype: torch.dtype) -> Merged | None:
    """Two numbers that become one in a floating dtype, or None where nothing is lost that counts.

    A whole number counts always, up to where its own dtype ends to hold each of them. Real numbers
    count where a tenth of the distinct ones in an element, among a thousand rows, are merged.

    Arguments:
        levels: `(N, *x_shape)`.
        dtype: what they are converted to.
    """
    if _holds_all(dtype, levels.dtype):
        return None
    rows = levels.flatten(1)
    found = _merged_whole(rows, dtype)
    if found is None and levels.is_floating_point():
        found = _merged_real(rows, dtype)
    if found is None:
        return None
    first, second, column = found
    place = np.unravel_index(column, tuple(levels.shape[1:]))
    return Merged(first, second, tuple(int(number) for number in place))


def _from_numpy(array: np.ndarray, name: str) -> Tensor:
    if not _is_real(array) or isinstance(array, np.ma.MaskedArray):
        kind = f"{type(array).__name__} of {array.dtype}"
        raise ValueError(f"'{name}' must be an array of real numbers without a mask, got {kind}.")
    # A copy: torch shares memory, and can do so neither with read-only arrays nor with reversed ones.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))


def _is_real(array: np.ndarray) -> bool:
    """True if the array holds real numbers that torch has a dtype for."""
    return array.dtype.kind in "buif" and array.dtype.itemsize <= 8


def _observed(values: Tensor) -> Tensor:
    """The values with 0 for what is missing; whole numbers stay whole."""
    return filled(values, 0.0) if values.is_floating_point() else values


def _dtype_name(array: Array) -> str:
    """The name of the dtype, without its byte order."""
    return str(array.dtype).removeprefix("torch.") if isinstance(array, Tensor) else array.dtype.name


def _holds_all(dtype: torch.dtype, stored: torch.dtype) -> bool:
    """True if the floating dtype holds each number of the stored one."""
    if stored == torch.bool:
        return True
    if stored.is_floating_point:
        return torch.finfo(stored).eps >= torch.finfo(dtype).eps
    return torch.iinfo(stored).max <= 2 / torch.finfo(dtype).eps


def _merged_whole(rows: Tensor, dtype: torch.dtype) -> tuple[float, float, int] | None:
    """A whole number that changes, what it changes to, and its column; of columns of whole numbers."""
    largest = int(2 / torch.finfo(dtype).eps)  # of a row of whole numbers without a gap
    blocks = rows.split(_BLOCK_ROWS)
    if all(bool((_observed(block).abs() <= largest).all()) for block in blocks):
        return None
    is_candidate = torch.ones_like(rows[0], dtype=torch.bool)
    is_changed = torch.zeros_like(is_candidate)
    for block in blocks:
        is_candidate &= _is_whole(block).all(0)
        is_changed |= _is_changed(block, dtype).any(0)
        if not is_candidate.any():
            return None
    columns = (is_candidate & is_changed).nonzero()
    if not len(columns):
        return None
    column = int(columns[0])
    values = rows[:, column]
    value = values[_is_changed(values, dtype)][0]
    return int(value), int(value.to(dtype)), column


def _is_whole(values: Tensor) -> Tensor:
    """True where a value is missing, or a whole number that its dtype tells from its neighbours."""
    if not values.is_floating_point():
        return torch.ones_like(values, dtype=torch.bool)
    known = _observed(values)
    return (known == known.round()) & (known.abs() <= 2 / torch.finfo(values.dtype).eps)


def _merged_real(rows: Tensor, dtype: torch.dtype) -> tuple[float, float, int] | None:
    """Two neighbours that become one, and their column; of columns where these are many."""
    num_rows = min(_MAX_SORTED_ROWS, max(2, _MAX_SORTED // rows.shape[1]))
    values = rows[:: -(-len(rows) // num_rows)].T.contiguous().sort().values
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
    """True where a value is another one after conversion; what is missing stays so."""
    return (values.to(dtype).to(values.dtype) != values) & ~values.isnan()
