"""Checks of the arguments of a call against the annotations of the function."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, wraps
from itertools import chain
from os import PathLike
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from torch import Tensor

from pyro_vae.support.checks import as_int, as_real, described, one_line, with_article

F = TypeVar("F", bound=Callable[..., Any])

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a string",
    Tensor: "a tensor",
    NoneType: "None",
    PathLike: "a path",
}


def arguments_checked(function: F) -> F:
    """Check the arguments of each call against the annotations of a function, before it runs.

    A class is checked when an object of it is made. Numpy's numbers are numbers, and True is none.
    Elements of sequences and values of mappings are checked too. Annotations with numpy's array
    allow everything, since the reader of arrays has its own sentences.

    Raises:
        ValueError: if an argument is of another type, in a call of the returned function.
        TypeError: if an argument is missing or unknown.

    Example:
        >>> from pyro_vae.support.arguments import arguments_checked
        >>> @arguments_checked
        ... def double(number: int) -> int:
        ...     return 2 * number
        >>> double("3")
        Traceback (most recent call last):
        ValueError: 'number' must be a whole number, got '3'.
    """
    if isinstance(function, type):
        function.__init__ = arguments_checked(function.__init__)  # type: ignore[misc]
        return function
    signature = inspect.signature(function)
    is_init = function.__name__ == "__init__"

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            title = type(args[0]).__name__ if is_init else function.__name__
            raise TypeError(_unbound(function, title, kwargs, error)) from None
        owner = f" of {type(args[0]).__name__}" if is_init else ""
        for name, hint in _hints(function).items():
            if name in bound.arguments:
                _check_type(bound.arguments[name], hint, f"'{name}'{owner}")
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value]


@cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of the arguments that have one value."""
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    many = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [each.name for each in parameters if each.kind not in many]
    return {name: hints[name] for name in names if name in hints}


def _check_type(value: Any, hint: Any, name: str) -> None:
    if not _allows(hint, value):
        raise ValueError(f"{name} must be {_words(hint)}, got {_received(value, hint)}.")


def _allows(hint: Any, value: Any) -> bool:
    arguments = get_args(hint)
    if _is_union(hint):
        return np.ndarray in arguments or any(_allows(each, value) for each in arguments)
    if get_origin(hint) is Literal:
        return type(value) in map(type, arguments) and value in arguments
    if _is_function(hint):
        return callable(value) and not _unfit(value, hint)
    if get_origin(hint) in (Mapping, dict):
        is_dict = isinstance(value, Mapping)
        return is_dict and all(_allows(arguments[1], each) for each in value.values())
    if _is_collection(hint):
        return _is_collection_of_values(value) and _allows_each(arguments, value)
    if hint is int:
        return as_int(value) is not None
    if hint is float:
        return as_real(value) is not None
    if hint is bool:
        return isinstance(value, bool | np.bool_)
    is_readable = isinstance(hint, type) and get_origin(hint) is None
    is_readable = is_readable and not getattr(hint, "_is_protocol", False)
    return not is_readable or isinstance(value, hint)


def _allows_each(hints: tuple[Any, ...], value: Any) -> bool:
    if len(hints) == 1 or hints[1] is Ellipsis:
        return all(_allows(hints[0], each) for each in value)
    pairs = zip(hints, value, strict=False)
    return len(hints) == len(value) and all(_allows(hint, each) for hint, each in pairs)


def _words(hint: Any) -> str:
    """Return the accepted values in words."""
    arguments = get_args(hint)
    if _is_union(hint):
        words = [["True", "False"] if each is bool else [_words(each)] for each in arguments]
        return _listed(list(chain.from_iterable(words)))
    if get_origin(hint) is Literal:
        return _listed([repr(each) for each in arguments])
    if _is_function(hint):
        return _words_of_function(hint)
    if get_origin(hint) in (Mapping, dict):
        return f"a dict with values, each {_words(arguments[1])}"
    if _is_collection(hint):
        size = len(arguments) if get_origin(hint) is tuple and Ellipsis not in arguments else ""
        return f"a sequence of {size}{' ' if size else ''}values, each {_words(arguments[0])}"
    if hint in _WORDS:
        return _WORDS[hint]
    return with_article(hint.__name__) + _examples(hint)


def _words_of_function(hint: Any) -> str:
    arguments, result = get_args(hint) or (..., None)
    words = "a function"
    if isinstance(arguments, list):
        words += f" of {len(arguments)} argument{'s' * (len(arguments) != 1)}"
    if isinstance(result, type) and result is not NoneType:
        words += f" that returns {_words(result)}"
    return words


def _received(value: Any, hint: Any) -> str:
    """Return the value in words, and the reason where these do not show it."""
    for accepted in get_args(hint) if _is_union(hint) else (hint,):
        if _is_function(accepted) and callable(value):
            return f"{described(value)} ({_unfit(value, accepted)})"
        if isinstance(accepted, type) and isinstance(value, type) and issubclass(value, accepted):
            return f"{described(value)}, which must be called"
        if _is_collection(accepted) and isinstance(value, Sequence) and not isinstance(value, str):
            others = [each for each in value if not _allows(get_args(accepted)[0], each)]
            part = f"with {described(others[0])}" if others else f"of {len(value)}"
            return f"{with_article(type(value).__name__)} {part}"
    return described(value)


def _unfit(function: Callable[..., Any], hint: Any) -> str:
    """Return the reason why a function cannot be called with so many arguments, or nothing."""
    arguments = next(iter(get_args(hint)), ...)
    if not isinstance(arguments, list):  # `Callable[..., T]` or `Callable`
        return ""
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions have none
        return ""
    try:
        signature.bind(*arguments)
    except TypeError as error:
        return one_line(error)
    return ""


def _unbound(
    function: Callable[..., Any], title: str, names: Collection[str], error: TypeError
) -> str:
    """Return the sentence for arguments that a function cannot take."""
    parameters = [
        each for each in inspect.signature(function).parameters.values() if each.name != "self"
    ]
    by_name = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    known = [each.name for each in parameters if each.name not in by_name]
    takes = ", ".join(known) + (f" and by name {', '.join(by_name)}" if by_name else "")
    unknown = [name for name in names if name not in [*known, *by_name]]
    if unknown:
        return f"'{unknown[0]}' is no argument of {title}, which takes {takes}."
    return f"{title} takes {takes}, but the call does not fit: {one_line(error)}."


def _is_function(hint: Any) -> bool:
    return hint is Callable or get_origin(hint) is Callable


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def _is_collection(hint: Any) -> bool:
    return get_origin(hint) in (Collection, Sequence, list, tuple)


def _is_collection_of_values(value: Any) -> bool:
    is_number = isinstance(value, Tensor | np.ndarray) and value.ndim == 0
    return (
        isinstance(value, Collection) and not is_number and not isinstance(value, bytes | Mapping)
    )


def _examples(hint: type) -> str:
    """Return `", such as …"` with two classes of an abstract kind, from the same package."""
    if not inspect.isabstract(hint):
        return ""
    classes: list[type] = hint.__subclasses__()
    final = [each for each in classes if not inspect.isabstract(each)]
    package = hint.__module__.partition(".")[0]
    known = [each for each in final if each.__module__.partition(".")[0] == package]
    names = [each.__name__ for each in known if each.__name__[0] != "_"]
    names.sort(key=lambda name: (hint.__name__ not in name, len(name)))
    return f", such as {' or '.join(names[:2])}" if names else ""


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
