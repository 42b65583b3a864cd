"""Arrays of numbers as tensors: dtype, highest level, and numbers that a coarser dtype merges."""

from collections.abc import Mapping
from os import PathLike
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyro_vae.data.missing import filled
from pyro_vae.support.checks import described

Array: TypeAlias = Tensor | np.ndarray

# Unsigned integers that torch can store, but supports few operations on, and what replaces them.
_SIGNED = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}
_HIGHEST_BY_DTYPE = {"uint8": 255.0, "uint16": 65_535.0}
# float32 holds each whole number up to this one.
_LARGEST = 2**24
# Rows that are converted at once, to bound the memory.
_BLOCK_ROWS = 4096
# Rows and entries that are sorted at once, to bound memory and time.
_MAX_SORTED_ROWS = 1024
_MAX_SORTED = 2**21
# The share of distinct real numbers in one element that rounding may merge without a warning:
# among many rows a few are always that close.
_MERGED_SHARE = 0.1
# Columns that an error names.
_MOST_NAMES = 5


def as_tensor(array: Any, name: str = "data") -> Tensor:
    """Return the array as a tensor that torch can compute with, for any byte order.

    A numpy array is copied. uint16 becomes int32, and wider unsigned integers become int64.

    Arguments:
        array: a tensor, an array, or anything that numpy turns into one.
        name: the argument that an error names.

    Raises:
        ValueError: if it is no array of real numbers, has a mask, or has whole numbers from 2^63.
    """
    array = as_array(array, name)
    tensor = array if isinstance(array, Tensor) else _from_numpy(array, name)
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        tensor = tensor.clone()  # autograd saves no tensor of inference mode
    if tensor.dtype not in _SIGNED:
        return tensor
    signed = tensor.to(_SIGNED[tensor.dtype])
    if signed.numel() and signed.min() < 0:
        raise ValueError(
            f"'{name}' must hold whole numbers below 2^63, got "
            f"{signed[signed < 0][0].item() + 2**64}: divide them, or convert them to float64."
        )
    return signed


def without_mask(array: Any) -> Any:
    """Return a masked array as real numbers, with NaN for masked entries.

    The dtype is wide enough for each of its numbers. An array without a mask or without real
    numbers is returned as it is.
    """
    if not isinstance(array, np.ma.MaskedArray) or not is_real(array):
        return array
    dtype = array.dtype
    if dtype.kind != "f":
        known = np.ma.filled(array, 0)
        is_small = known.size == 0 or (known.max() <= _LARGEST and known.min() >= -_LARGEST)
        dtype = np.dtype(np.float32 if is_small else np.float64)
    return np.ma.filled(array.astype(dtype), np.nan)


def as_array(numbers: Any, name: str = "data") -> Array:
    """Return tensors and numpy arrays as they are, and lists and tables as arrays.

    Arguments:
        numbers: a tensor, an array, or anything that numpy turns into one.
        name: the argument that an error names.

    Raises:
        ValueError: if it holds other than real numbers.
    """
    is_tensor = isinstance(numbers, Tensor)
    problem = _problem_of_tensor(numbers) if is_tensor else _problem_of_object(numbers)
    if problem is not None:
        raise _no_numbers(name, problem)
    array = numbers if is_tensor else _converted(numbers, name)
    if isinstance(array, np.ndarray) and not is_real(array):
        raise _no_numbers(name, contents(array))
    return array


def contents(array: np.ndarray) -> str:
    """Return in words what an array holds that are no real numbers, and what to do."""
    kind = array.dtype.kind
    if kind == "O" and array.ndim == 0:
        return described(array.item())
    if kind == "O":
        others = [entry for entry in array.flat if not isinstance(entry, int | float)]
        what = f"such as {described(others[0])}" if others else "of Python"
        return f"objects {what}: convert them to floating numbers, with NaN for missing ones"
    if kind in "US":
        first = array.flat[0].item() if array.size else ""
        return f"strings such as {described(first)}: number them first"
    if kind in "Mm":
        return f"{array.dtype}: convert dates to numbers, such as days since the first one"
    if kind == "V":
        return f"a structured array of {array.dtype.names}: stack these as columns"
    if kind == "c":
        return f"complex numbers, {array.dtype}"
    return f"{array.dtype}: convert it to float64"


def is_real(array: np.ndarray) -> bool:
    """Return True if the array holds real numbers that torch has a dtype for."""
    return array.dtype.kind in "buif" and array.dtype.itemsize <= 8


def highest_level(array: Array, levels: Tensor) -> float:
    """Return the highest possible level, inferred from the dtype.

    It is 255 for uint8 and 65,535 for uint16. It is the highest number in the array for other
    whole numbers, and 1 for real numbers and booleans.

    Arguments:
        array: the numbers as the user gave them.
        levels: the same numbers as `as_tensor` returns them, at least one.
    """
    kind = _dtype_name(array)
    if kind in _HIGHEST_BY_DTYPE:
        return _HIGHEST_BY_DTYPE[kind]
    is_whole = kind.startswith(("int", "uint"))
    return float(max(1, _observed(levels).max().item())) if is_whole else 1.0


class Merged(NamedTuple):
    """Two numbers that a dtype cannot distinguish, and their element in a row."""

    first: float
    second: float
    place: tuple[int, ...]


def merged(levels: Tensor, dtype: torch.dtype) -> Merged | None:
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
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError(
            f"'{name}' must be an array of real numbers without a mask, got MaskedArray of "
            f"{array.dtype}."
        )
    # A copy, since torch cannot share memory with read-only or reversed arrays.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))


def _no_numbers(name: str, received: str) -> ValueError:
    return ValueError(f"'{name}' must be an array of real numbers, got {received}.")


def _problem_of_object(value: Any) -> str | None:
    """Return in words what came, if no array of numbers can be made of it, and what to do."""
    kind = type(value).__name__
    if isinstance(value, DataLoader | Dataset):
        return f"a {kind}: pass its rows as one tensor"
    if hasattr(value, "toarray"):
        return f"the sparse {kind}: pass its toarray()"
    if isinstance(value, str | bytes | PathLike):
        return f"{described(value)}: read a file first, for instance by numpy.load"
    if isinstance(value, Mapping):
        return f"a {kind} with the keys {', '.join(map(str, value))}: pass one of its arrays"
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # several results in one object
        return f"{described(value)}: pass one of these"
    without_numbers = [name for name, dtype in _columns(value).items() if dtype not in "buif"]
    if without_numbers:
        names = ", ".join(without_numbers[:_MOST_NAMES])
        return f"a {kind} with text, dates or other objects in {names}: turn them into numbers"
    return None


def _problem_of_tensor(tensor: Tensor) -> str | None:
    """Return in words what came, if a tensor cannot be read as real numbers, and what to do."""
    if tensor.layout != torch.strided or tensor.is_nested:
        return "a sparse or nested tensor: make a dense one"
    if tensor.is_quantized:
        return "a quantized tensor: pass its dequantize()"
    if tensor.device.type == "meta":
        return "a tensor on the device meta, which holds none"
    if tensor.is_complex():
        return f"complex numbers, {tensor.dtype}"
    return None


def _columns(table: Any) -> dict[str, str]:
    """Return numpy's kind of each column of a table or series of pandas; nothing for others."""
    dtypes: Any = getattr(table, "dtypes", None)
    if hasattr(dtypes, "items"):
        return {f"column {name!r}": getattr(dtype, "kind", "O") for name, dtype in dtypes.items()}
    if hasattr(table, "to_numpy") and hasattr(dtypes, "kind"):
        return {"its entries": dtypes.kind}
    return {}


def _converted(numbers: Any, name: str) -> Array:
    """Return the array that numpy makes of numbers, or torch of a list of tensors."""
    is_list = isinstance(numbers, list | tuple)
    try:
        if is_list and numbers and all(isinstance(row, Tensor) for row in numbers):
            return torch.stack(numbers)
        array = np.asanyarray(numbers)
    except (RuntimeError, TypeError, ValueError) as error:
        received = f"a {type(numbers).__name__} whose rows differ in shape, or hold no numbers"
        raise _no_numbers(name, received) from error
    if array.dtype == object and _columns(numbers):  # whole numbers of pandas with missing ones
        return numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    return array


def _observed(values: Tensor) -> Tensor:
    """Return the values with 0 for missing ones; whole numbers keep their dtype."""
    return filled(values, 0.0) if values.is_floating_point() else values


def _dtype_name(array: Array) -> str:
    """Return the name of the dtype, without its byte order."""
    if isinstance(array, Tensor):
        return str(array.dtype).removeprefix("torch.")
    return array.dtype.name


def _holds_all(dtype: torch.dtype, stored: torch.dtype) -> bool:
    """Return True if the floating dtype holds each number of the stored dtype."""
    if stored == torch.bool:
        return True
    if stored.is_floating_point:
        return torch.finfo(stored).eps >= torch.finfo(dtype).eps
    return torch.iinfo(stored).max <= 2 / torch.finfo(dtype).eps


def _merged_whole(rows: Tensor, dtype: torch.dtype) -> tuple[float, float, int] | None:
    """Return a whole number that changes, its new value and its column, or None.

    Only columns that hold nothing but whole numbers count.
    """
    largest = int(2 / torch.finfo(dtype).eps)  # dtype holds each whole number up to this one
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
    """Return a mask: True for missing values and for whole numbers that the dtype holds."""
    if not values.is_floating_point():
        return torch.ones_like(values, dtype=torch.bool)
    known = _observed(values)
    return (known == known.round()) & (known.abs() <= 2 / torch.finfo(values.dtype).eps)


def _merged_real(rows: Tensor, dtype: torch.dtype) -> tuple[float, float, int] | None:
    """Return two neighbours that become equal and their column, or None if they are few."""
    num_rows = min(_MAX_SORTED_ROWS, max(2, _MAX_SORTED // rows.shape[1]))
    step = -(-len(rows) // num_rows)
    values = rows[::step].T.contiguous().sort().values
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
