"""Errors of settings: the whole name of a setting, and the reason why a part cannot be made."""

import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jsonargparse import Namespace

from pyro_vae.runs.trust import TRUSTED
from pyro_vae.support.checks import one_line

# Levels of a tree of settings that do not belong to the name of a setting.
_UNNAMED = ("class_path", "init_args", "dict_kwargs")
# Packages whose errors about a setting are the user's mistakes, and no faults of the user's code.
_LIBRARIES = {*TRUSTED, "jsonargparse", "numpy", *sys.stdlib_module_names}

# Errors of libraries about arguments that do not suit a class.
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    IndexError,
    RuntimeError,
    TypeError,
    ValueError,
)


@contextmanager
def whole_names(tree: Any) -> Iterator[None]:
    """Name settings by their whole path in errors inside the block, as `'training.seed'`.

    An error names an argument, such as `'seed'`. The setting is the only one of that name and, if
    the error shows a value, with this value.

    Arguments:
        tree: the settings.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        message = str(error)
        match = re.match(r"'(\w+)'", message)
        place = _place(match[1], message, tree) if match else None
        if match is None or place is None or type(error) not in (TypeError, ValueError):
            raise
        raise type(error)(f"'{place}'{message[match.end() :]}") from error


def _place(name: str, message: str, tree: Any) -> str | None:
    """Return the only setting of a name that an error can mean, or None."""
    named = [(place, value) for place, value in _settings(tree) if _last(place) == name]
    found = [place for place, value in named if "got " not in message or _shows(message, value)]
    return found[0] if len(found) == 1 else None


def _shows(message: str, value: Any) -> bool:
    """Return True if the value stands behind "got" as Python or YAML write it."""
    after = message.rpartition("got ")[2]
    if value is None:
        return after.startswith(("None", "null", "none"))
    if isinstance(value, float):
        return after.startswith(f"{value:g}")
    return any(after.startswith(text) for text in (str(value), repr(value)))


def _settings(tree: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the place and the value of every setting, groups and classes included."""
    branches = vars(tree) if isinstance(tree, Namespace) else tree
    if isinstance(branches, list):
        for number, value in enumerate(branches):
            yield from _settings(value, f"{place}[{number}]")
    if not isinstance(branches, Mapping):
        return
    for name, value in branches.items():
        if name == "class_path":
            continue
        inner = place if name in _UNNAMED else f"{place}.{name}".lstrip(".")
        if name not in _UNNAMED:
            yield inner, value
        yield from _settings(value, inner)


def _last(place: str) -> str:
    return place.rpartition(".")[2]


@contextmanager
def made_from(setting: str) -> Iterator[None]:
    """Name the setting in an error of a library, whose class inside the block cannot be made.

    Errors of the user's own code stay as they are, with their traceback.

    Arguments:
        setting: the setting that names the class.

    Raises:
        ValueError: in place of the library's error.
    """
    try:
        yield
    except _FAILURES as error:
        is_sentence = str(error).startswith("'")
        if is_sentence or is_out_of_memory(error) or _is_of_user(error):
            raise
        raise ValueError(f"'{setting}' cannot be made: {one_line(error).rstrip('.')}.") from error


@contextmanager
def class_named(tree: Any) -> Iterator[None]:
    """Name the setting in an error of a library, whose class in a tree of settings cannot be made.

    Arguments:
        tree: the settings, from which the block makes objects.

    Raises:
        ValueError: in place of the library's error.
    """
    try:
        yield
    except _FAILURES as error:
        made = _made(error)
        places = [place for place, value in _settings(tree) if _class_name(value) == made]
        if made is None or len(places) != 1:
            raise
        with made_from(places[0]):
            raise


@contextmanager
def shapes_named(setting: str) -> Iterator[None]:
    """Name the setting in the error of a network that the shapes of the other parts do not suit.

    Arguments:
        setting: the setting that names the network's class.

    Raises:
        ValueError: in place of one about `in_shape` or `out_shape`, which are no settings.
    """
    try:
        yield
    except ValueError as error:
        match = re.match(r"'(in_shape|out_shape)'(.*)", str(error), re.DOTALL)
        if match is None:
            raise
        made = _made(error) or "this network"
        raise ValueError(f"'{setting}' cannot be {made}: its {match[1]}{match[2]}") from error


@contextmanager
def networks_named(**settings: str) -> Iterator[None]:
    """Name the setting in the error of a part whose network fails.

    Arguments:
        settings: the setting of the network, by the name of the part and by that of its class.

    Raises:
        ValueError: in place of the part's error.
    """
    try:
        yield
    except ValueError as error:
        message = one_line(error)
        wrong_size = re.match(r"'network' of (\w+)\b.*? (must give .*)", message)
        failing = re.match(r"'(\w+)', .* but (its 'network[\w.]*', .*)", message)
        match = wrong_size or failing
        if match is None or match[1] not in settings:
            raise
        problem = match[2] if wrong_size else f"makes a network that fails: {match[2]}"
        raise ValueError(f"'{settings[match[1]]}' {problem}") from error


@contextmanager
def used_from(setting: str, module: str) -> Iterator[None]:
    """Name the setting in an error of a library, whose object is used inside the block.

    Arguments:
        setting: the setting that names the object's class.
        module: the module of the library that raises errors about the object.

    Raises:
        ValueError: in place of the library's error.
    """
    try:
        yield
    except (NotImplementedError, ValueError) as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if not f"{frame.f_globals.get('__name__', '')}.".startswith(f"{module}."):
            raise
        raise ValueError(f"'{setting}' cannot be used: {one_line(error).rstrip('.')}.") from error


@contextmanager
def argument_named(before: str, after: str) -> Iterator[None]:
    """Name an argument as the caller knows it, in an error inside the block.

    Arguments:
        before: its name in the error, such as `path`.
        after: its name in what the user has called.
    """
    try:
        yield
    except ValueError as error:
        message = str(error)
        quoted = f"'{before}'"
        if not message.startswith(quoted):
            raise
        raise ValueError(f"'{after}'{message.removeprefix(quoted)}") from error


def _made(error: Exception) -> str | None:
    """Return the name of the class whose object was being made when an error was raised."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "__init__" and "self" in frame.f_locals:
            return type(frame.f_locals["self"]).__name__
    return None


def _class_name(value: Any) -> str | None:
    """Return the name of the class in a branch of settings, or None."""
    branches = vars(value) if isinstance(value, Namespace) else value
    path = branches.get("class_path") if isinstance(branches, Mapping) else None
    return path.rpartition(".")[2] if isinstance(path, str) else None


def _is_of_user(error: Exception) -> bool:
    """Return True if code of the user's own ran when the error was raised."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _LIBRARIES:
            return True
    return False


def is_out_of_memory(error: Exception) -> bool:
    """Return True if memory ran out; on the CPU, torch tells it by the message alone."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
