"""Checks of arguments, whose errors are one sentence each."""

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import torch


def one_line(message: object) -> str:
    """A message of another library on one line, or the name of its class when it says nothing."""
    return " ".join(str(message).split()) or type(message).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """`"; the nearest is …"` for the known name most like this one in any case of letters, or nothing."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f"; the nearest is '{by_lower[close[0]]}'" if close else ""


Shape: TypeAlias = int | Sequence[int]


def as_shape(shape: Shape, name: str) -> torch.Size:
    """The shape as a `torch.Size`; one number n stands for `(n,)`.

    Raises:
        ValueError: a size is not a positive whole number.
    """
    sizes = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(f"'{name}' must hold positive whole numbers, got {shape!r}.")
    return torch.Size(sizes)


def as_floor(min_scale: float) -> float:
    """The floor of a scale.

    Raises:
        ValueError: it is negative.
    """
    if not min_scale >= 0:
        raise ValueError(f"'min_scale' must be 0 or more, got {min_scale}.")
    return min_scale


def check_max_level(max_level: float) -> None:
    """Refuse what can be no highest level.

    Raises:
        ValueError: if it is not above 0, or not finite.
    """
    if not 0 < max_level < math.inf:
        raise ValueError(f"'max_level' must be a finite number above 0, got {max_level:g}.")
