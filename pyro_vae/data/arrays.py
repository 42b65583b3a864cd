"""Arrays of numbers as tensors: their dtype and their highest level."""

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, TypeAlias

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


def highest_level(kind: str, levels: Iterable[Tensor]) -> float:
    """Return the highest possible level, inferred from the dtype.

    It is 255 for uint8 and 65,535 for uint16. It is the highest number in the array for other
    whole numbers, and 1 for real numbers and booleans.

    Arguments:
        kind: the name of the dtype in which the user gave the numbers, as `dtype_name` returns it.
        levels: tensors that together hold each of the numbers.
    """
    if kind in _HIGHEST_BY_DTYPE:
        return _HIGHEST_BY_DTYPE[kind]
    if not kind.startswith(("int", "uint")):
        return 1.0
    return float(max(1, *(observed(part).max().item() for part in levels)))


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


def observed(values: Tensor) -> Tensor:
    """Return the values with 0 for missing ones; whole numbers keep their dtype."""
    return filled(values, 0.0) if values.is_floating_point() else values


def dtype_name(array: Any) -> str:
    """Return the name of the dtype of a tensor, an array or a storage, without its byte order."""
    if isinstance(array.dtype, torch.dtype):
        return str(array.dtype).removeprefix("torch.")
    return array.dtype.name
