"""Calls of methods that a user's class defines, and checks of what they return."""

from inspect import signature
from typing import Any

from pyro_vae.support.checks import described, one_line


def called(owner: object, method: str, *args: Any, **kwargs: Any) -> Any:
    """Return the result of a method that a user's class defines.

    Arguments:
        owner: the object of the user's class.
        method: the name of the method.
        args: the arguments that the method is called with.
        kwargs: those with names.

    Raises:
        ValueError: if the method does not take these arguments.
    """
    function = getattr(owner, method)
    try:
        signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise ValueError(
            f"'{method}' of {type(owner).__name__} must be a method that takes "
            f"{_declared(owner, method)}, but the call does not fit: {one_line(error)}."
        ) from None
    return function(*args, **kwargs)


def returned(value: Any, kind: type, owner: object, method: str, accepted: str) -> Any:
    """Return the result of a method that a user's class defines.

    Arguments:
        value: the result.
        kind: the class that it must have.
        owner: the object of the user's class.
        method: the name of the method.
        accepted: what it must return, in words.

    Raises:
        ValueError: if the result is of another class.
    """
    if not isinstance(value, kind):
        raise wrong_result(owner, method, accepted, described(value))
    return value


def wrong_result(owner: object, method: str, accepted: str, received: str) -> ValueError:
    """Return the error about a result of a method that a user's class defines."""
    name = type(owner).__name__
    return ValueError(f"'{method}' of {name} must return {accepted}, got {received}.")


def check_initialized(owner: object, attribute: str) -> None:
    """Refuse an object of a user's class whose base class was not initialised.

    Arguments:
        owner: the object.
        attribute: the name of an attribute that the base class sets, and of its argument.

    Raises:
        ValueError: if it has no such attribute.
    """
    if not hasattr(owner, attribute):
        raise ValueError(
            f"'__init__' of {type(owner).__name__} must call super().__init__({attribute}=...), "
            f"got an object without '{attribute}'."
        )


def _declared(owner: object, method: str) -> str:
    """Return the arguments of a method as the first base class declares it."""
    base = next(kind for kind in reversed(type(owner).__mro__) if method in vars(kind))
    _, *parameters = signature(vars(base)[method]).parameters.values()
    names = [str(each).partition(":")[0] for each in parameters]
    return f"({', '.join(names)})" if names else "no arguments"
