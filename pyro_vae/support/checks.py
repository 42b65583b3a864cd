"""Checks of arguments, with one sentence for each error."""

import difflib
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from inspect import signature
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

# Characters of a value that an error shows.
_MOST_SHOWN = 60
# Numbers of an array that an error shows.
_MOST_ENTRIES = 4

T = TypeVar("T")


def one_line(message: object) -> str:
    """Return a message of another library on one line, or its class name if it is empty."""
    return " ".join(str(message).split()) or type(message).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `"; the nearest is …"` with the most similar known name, or an empty string.

    Upper and lower case count as equal. An ending that the name shares with all known names, such
    as "Likelihood", counts for nothing.
    """
    wanted = name.lower()
    by_lower = {candidate.lower(): candidate for candidate in known}
    ending = _common_ending([wanted, *by_lower]) if len(by_lower) > 1 else ""
    own = {candidate.removesuffix(ending): by_lower[candidate] for candidate in by_lower}
    close = difflib.get_close_matches(wanted.removesuffix(ending), own, n=1, cutoff=0.6)
    return f"; the nearest is '{own[close[0]]}'" if close else ""


def _common_ending(names: list[str]) -> str:
    ending = names[0]
    while not all(name.endswith(ending) for name in names):
        ending = ending[1:]
    return ending


def described(value: object) -> str:
    """Return a few words that show a value in an error: itself if it is short, or its kind."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, Tensor | np.ndarray) and math.prod(value.shape) > _MOST_ENTRIES:
        kind = "a tensor" if isinstance(value, Tensor) else "an array"
        return f"{kind} of the shape {tuple(value.shape)}"
    shown = repr(value.item() if isinstance(value, np.generic) else value)
    if len(shown) <= _MOST_SHOWN and "\n" not in shown and not shown.startswith("<"):
        return shown
    name = getattr(value, "__name__", None)
    if isinstance(name, str) and callable(value):
        return f"the function {name}"
    if isinstance(value, str | bytes):
        return f"{shown[:_MOST_SHOWN]}…"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return f"{with_article(type(value).__name__)} with {', '.join(value._fields)}"
    size = f" of {len(value)}" if isinstance(value, list | tuple | dict | set) else ""
    return f"{with_article(type(value).__name__)}{size}"


def with_article(name: str) -> str:
    """Return the name of a class after "a" or "an"; two capitals are read as letters."""
    vowels = "AEFHILMNORSX" if name[:2].isupper() else "AEIOUaeiou"
    return f"{'an' if name[0] in vowels else 'a'} {name}"


def exactly(value: float) -> str:
    """Return a number in few digits, but in enough to show that it is no whole number."""
    value += 0.0  # -0 becomes 0
    for digits in (6, 9, 17):
        shown = f"{value:.{digits}g}"
        if float(shown) == value or not float(shown).is_integer():
            return shown
    return shown


Shape: TypeAlias = int | Sequence[int]


def as_shape(shape: Shape, name: str, least_axes: int = 0) -> torch.Size:
    """Return the shape as a `torch.Size`; one number n stands for `(n,)`.

    The numbers may be those of numpy, and zero-dimensional tensors.

    Arguments:
        shape: the shape.
        name: the argument that an error names.
        least_axes: the least number of axes.

    Raises:
        ValueError: if a size is no positive whole number, or there are too few.
    """
    sizes = [as_int(size) for size in _sizes(shape)]
    known = [size for size in sizes if size is not None and size > 0]
    if len(known) < max(len(sizes), least_axes):
        raise ValueError(f"'{name}' must hold positive whole numbers, got {described(shape)}.")
    return torch.Size(known)


def whole(value: int, name: str, least: int = 1) -> int:
    """Return a count as an `int`; it may be a number of numpy or a zero-dimensional tensor.

    Raises:
        ValueError: if it is no whole number of at least `least`.
    """
    number = as_int(value)
    if number is None or number < least:
        raise ValueError(
            f"'{name}' must be a whole number of at least {least}, got {described(value)}."
        )
    return number


def real(
    value: float,
    name: str,
    of: object | None = None,
    *,
    holds: Callable[[float], bool] = math.isfinite,
    accepted: str = "be a finite number",
) -> float:
    """Return a real number as Python's own.

    Arguments:
        value: the number; it may be one of numpy or a zero-dimensional tensor.
        name: the argument that an error names.
        of: the object that the argument belongs to, if the name alone is not clear.
        holds: returns True for an accepted number.
        accepted: the accepted numbers, in words after "must".

    Raises:
        ValueError: if it is another number or none; True is none.
    """
    number = as_real(value)
    if number is None or not holds(number):
        raise ValueError(f"'{name}'{_owner(of)} must {accepted}, got {described(value)}.")
    return number


def positive(value: float, name: str, of: object | None = None) -> float:
    """Return a number above 0.

    Raises:
        ValueError: if it is 0, negative, infinite, NaN or no number.
    """
    number = real(value, name, of, holds=lambda number: number > 0, accepted="be greater than 0")
    return real(number, name, of)


def not_negative(value: float, name: str, of: object | None = None) -> float:
    """Return a number that is 0 or more.

    Raises:
        ValueError: if it is negative, infinite, NaN or no number.
    """
    number = real(value, name, of, holds=lambda number: number >= 0, accepted="be 0 or more")
    return real(number, name, of)


def share(value: float, name: str, of: object | None = None) -> float:
    """Return a number above 0 and at most 1.

    Raises:
        ValueError: if it lies outside or is no number.
    """
    accepted = "be greater than 0 and at most 1"
    return real(value, name, of, holds=lambda number: 0 < number <= 1, accepted=accepted)


def flag(value: bool, name: str) -> bool:
    """Return a setting that is on or off.

    Raises:
        ValueError: if it is neither True nor False; the string "no" would count as True.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"'{name}' must be True or False, got {described(value)}.")
    return bool(value)


def instance(value: T, base: type, name: str, such_as: str = "") -> T:
    """Return an object of a class.

    Arguments:
        value: the object.
        base: the class.
        name: the argument that an error names.
        such_as: an example.

    Raises:
        ValueError: if it is an object of another class, or a class itself.
    """
    if isinstance(value, base):
        return value
    example = f", such as {such_as}" if such_as else ""
    is_class = isinstance(value, type) and issubclass(value, base)
    advice = ": make an object of it" if is_class else ""
    accepted = f"{with_article(base.__name__)}{example}"
    raise ValueError(f"'{name}' must be {accepted}, got {described(value)}{advice}.")


def made_by(factory: Any, base: type, name: str, accepted: str, *args: Any, **kwargs: Any) -> Any:
    """Return the object that a class or a function of the user makes from arguments.

    Arguments:
        factory: the class or function.
        base: the class of the object.
        name: the argument that an error names.
        accepted: what it may be, in words.
        args: the arguments that it is called with.
        kwargs: those with names.

    Raises:
        ValueError: if it cannot be called with these arguments, or makes another kind of object.
    """
    problem = _cannot_make(factory, args, kwargs)
    if problem is None:
        result = factory(*args, **kwargs)
        if isinstance(result, base):
            return result
        problem = f"{described(factory)}, which makes {described(result)}"
    raise ValueError(f"'{name}' must be {accepted}, got {problem}.")


def check_max_level(max_level: float) -> None:
    """Refuse a number that cannot be the highest level.

    Raises:
        ValueError: if it is not above 0, or not finite.
    """
    real(
        max_level,
        "max_level",
        holds=lambda number: 0 < number < math.inf,
        accepted="be a finite number above 0",
    )


def check_sizes(value: Tensor, name: str, *sizes: int | str) -> None:
    """Refuse a tensor of another shape; a letter stands for any size from 1.

    Raises:
        ValueError: if an axis is missing, too many, or has another size.
    """
    pairs = zip(value.shape, sizes, strict=False)
    fits = all(size == wanted or (isinstance(wanted, str) and size > 0) for size, wanted in pairs)
    if value.dim() != len(sizes) or not fits:
        wanted = ", ".join(map(str, sizes)) + ("," if len(sizes) == 1 else "")
        raise ValueError(f"'{name}' must have the shape ({wanted}), got {tuple(value.shape)}.")


def check_finite(value: Tensor | float, name: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        ValueError: if the number is one of these, or the tensor holds one.
    """
    if not torch.as_tensor(value).isfinite().all():
        raise ValueError(f"'{name}' must be finite, got NaN or infinity.")


def _sizes(shape: Any) -> Sequence[Any]:
    """Return the sizes of a shape that is given in any form."""
    if isinstance(shape, Tensor | np.ndarray):
        return list(shape) if shape.ndim == 1 else [shape]
    is_sequence = isinstance(shape, Sequence) and not isinstance(shape, str | bytes)
    return shape if is_sequence else [shape]


def as_int(value: Any) -> int | None:
    """Return a whole number as Python's own, or None if it is none; True is none."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        value = None if value.ndim else value.item()
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def as_real(value: Any) -> float | None:
    """Return a real number as Python's own, or None if it is none; True is none."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        value = None if value.ndim else value.item()
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None


def _cannot_make(factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Return in words what came in place of a factory that takes these arguments, or None."""
    if isinstance(factory, nn.Module):
        return f"an object of the class {type(factory).__name__}"
    if not callable(factory):
        return described(factory)
    try:
        signature(factory).bind(*args, **kwargs)
    except TypeError as error:
        return f"{described(factory)}: {one_line(error)}"
    except ValueError:  # a function of C, whose arguments are unknown
        return described(factory)
    return None


def _owner(of: object | None) -> str:
    return "" if of is None else f" of {type(of).__name__}"
