"""Checks of arguments, with one sentence for each error."""

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import TypeAlias

import torch


def one_line(message: object) -> str:
    """Return a message of another library on one line, or its class name if it is empty."""
    return " ".join(str(message).split()) or type(message).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `"; the nearest is …"` with the most similar known name, or an empty string.

    Upper and lower case count as equal.
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f"; the nearest is '{by_lower[close[0]]}'" if close else ""


Shape: TypeAlias = int | Sequence[int]


def as_shape(shape: Shape, name: str) -> torch.Size:
    """Return the shape as a `torch.Size`; one number n stands for `(n,)`.

    Raises:
        ValueError: if a size is no positive whole number.
    """
    sizes = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    if not all(isinstance(size, Integral) and size > 0 for size in sizes):
        raise ValueError(f"'{name}' must hold positive whole numbers, got {shape!r}.")
    return torch.Size(map(int, sizes))


def whole(value: int, name: str, least: int = 1) -> int:
    """Return a count as an `int`.

    Raises:
        ValueError: if it is no whole number of at least `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"'{name}' must be a whole number of at least {least}, got {value!r}.")
    return int(value)


def positive(value: float, name: str, of: object | None = None) -> float:
    """Return a number above 0.

    Raises:
        ValueError: if it is 0, negative, NaN or no number.
    """
    if not _holds(lambda: value > 0):
        raise ValueError(f"'{name}'{_owner(of)} must be greater than 0, got {value}.")
    return value


def not_negative(value: float, name: str, of: object | None = None) -> float:
    """Return a number that is 0 or more.

    Raises:
        ValueError: if it is negative, NaN or no number.
    """
    if not _holds(lambda: value >= 0):
        raise ValueError(f"'{name}'{_owner(of)} must be 0 or more, got {value}.")
    return value


def share(value: float, name: str, of: object | None = None) -> float:
    """Return a number above 0 and at most 1.

    Raises:
        ValueError: if it lies outside or is no number.
    """
    if not _holds(lambda: 0 < value <= 1):
        raise ValueError(f"'{name}'{_owner(of)} must be greater than 0 and at most 1, got {value}.")
    return value


def _holds(comparison: Callable[[], bool]) -> bool:
    """Return a comparison with a number; False if the value is no number."""
    try:
        return bool(comparison())
    except TypeError:
        return False


def _owner(of: object | None) -> str:
    return "" if of is None else f" of {type(of).__name__}"


def check_max_level(max_level: float) -> None:
    """Refuse a number that cannot be the highest level.

    Raises:
        ValueError: if it is not above 0, or not finite.
    """
    if not 0 < max_level < math.inf:
        raise ValueError(f"'max_level' must be a finite number above 0, got {max_level:g}.")


def check_sizes(value: torch.Tensor, name: str, *sizes: int | str) -> None:
    """Refuse a tensor of another shape; a letter stands for any size from 1.

    Raises:
        ValueError: if an axis is missing, too many, or has another size.
    """
    pairs = zip(value.shape, sizes, strict=False)
    fits = all(size == wanted or (isinstance(wanted, str) and size > 0) for size, wanted in pairs)
    if value.dim() != len(sizes) or not fits:
        wanted = ", ".join(map(str, sizes)) + ("," if len(sizes) == 1 else "")
        raise ValueError(f"'{name}' must have the shape ({wanted}), got {tuple(value.shape)}.")


def check_finite(value: torch.Tensor | float, name: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        ValueError: if the number is one of these, or the tensor holds one.
    """
    if not torch.as_tensor(value).isfinite().all():
        raise ValueError(f"'{name}' must be finite, got NaN or infinity.")
