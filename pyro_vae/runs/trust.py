"""Trust: the classes that the settings of a run folder may name.

A run folder may come from anybody. Its settings may make objects of classes; they call no other
function. `check_trusted` checks three things before the parser of the settings sees them:

- Packages: `TRUSTED`, and those that the user allows by name. Only modules of these packages are
  imported. Other modules that they show as attributes, such as `torch.os`, are refused.
- Kinds: from a trusted package only subclasses of `KINDS`, and from a package that the user allows
  every class.
- Arguments: names, numbers, and what names the data: their file, and columns or arrays in it. Any
  other string is refused.

Settings that the user types, or keeps in a file outside any run folder, may name classes of every
package.
"""

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import distributions
from types import ModuleType
from typing import Any, NamedTuple

from jsonargparse import Namespace
from pyro.infer import ELBO
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_vae.data.batches import Batches
from pyro_vae.data.sources import Source
from pyro_vae.data.transforms import Transform
from pyro_vae.objectives import Schedule
from pyro_vae.parts.flows import Flow, validation_restored
from pyro_vae.support.checks import described, one_line
from pyro_vae.training.loggers import Logger

# The packages whose classes a run folder may name although the user has not allowed them.
TRUSTED = ("pyro_vae", "pyro", "torch", "zuko")
# The bases of their classes that may be made; parts, networks and scales are modules.
KINDS = (
    nn.Module,
    Optimizer,
    LRScheduler,
    ELBO,
    Schedule,
    Batches,
    Source,
    Transform,
    Flow,
    Logger,
)
# Settings that name columns or arrays in the data file: one, and several.
_DATA_NAMES = {"label", "dataset", "layer"}
_DATA_LISTS = {"context", "ignored"}
_NAME = r"[^\W\d]\w*(\.[^\W\d]\w*)+"
# Levels of a tree that do not belong to the name of a setting.
_UNNAMED = ("class_path", "init_args", "dict_kwargs")


class _Text(NamedTuple):
    """A string in a tree of settings.

    Arguments:
        place: the setting, with dots.
        value: the string.
    """

    place: str
    value: str

    @property
    def name(self) -> str:
        """The string without spaces, as the parser reads an import path."""
        return "".join(self.value.split())


def trusted_packages(allow: str | Sequence[str] = ()) -> tuple[str, ...]:
    """Return the trusted packages, and those that the user allows; a string names one.

    A trusted name that is not installed is left out, since a file of the current folder could
    have that name.

    Raises:
        ValueError: if the user allows what cannot be the name of a package.
    """
    known = [name for name in TRUSTED if name in sys.modules or any(distributions(name=name))]
    allowed = (allow,) if isinstance(allow, str) else tuple(allow)
    for name in allowed:
        if not name.isidentifier():
            raise ValueError(f"'allow' must hold names of packages, got {described(name)}.")
    return (*known, *allowed)


def check_trusted(tree: Any, packages: Sequence[str]) -> None:
    """Refuse settings that name anything except classes of these packages.

    Every string is checked before the first import. The parser also reads YAML inside a string, so
    any string except a plain name or number is refused.

    Raises:
        ValueError: if a string is refused, or an import path leads to no class of these packages.
    """
    paths = [text for text in _texts(tree) if _is_import_path(text, packages)]
    for text in paths:
        check_class(text.place, text.name, packages)


def check_class(place: str, name: str, packages: Sequence[str] | None = None) -> None:
    """Refuse an import path that names no class.

    Arguments:
        place: the setting that names it.
        name: the import path; the modules in it are imported.
        packages: the packages that every step of it must come from; any by default.

    Raises:
        ValueError: if it leads out of the packages, to no class, or in a trusted package to a class
            that is no subclass of `KINDS`.
    """
    _check_found(place, _reached(place, name, packages), name, packages)


def check_parsed(value: Any, packages: Sequence[str] | None = None, place: str = "") -> None:
    """Refuse parsed settings that would call anything except a class, before they call it.

    The parser finds short names among all classes of the process, and accepts functions as classes.

    Arguments:
        value: the result of the parser.
        packages: the packages that the classes must come from; any by default.
        place: the setting that the value belongs to.

    Raises:
        ValueError: if anything except a class would be called, or `check_class` refuses a class.
    """
    if isinstance(value, type | partial) or inspect.isroutine(value):
        _check_found(place, value, getattr(value, "__qualname__", "a partial"), packages)
    elif isinstance(value, (list, tuple)):
        for item in value:
            check_parsed(item, packages, place)
    elif isinstance(value, (dict, Namespace)):
        branches = value if isinstance(value, dict) else vars(value)
        if isinstance(name := branches.get("class_path"), str):
            check_class(place, name, packages)
        for key, branch in branches.items():
            check_parsed(branch, packages, _place(place, key))


def _check_found(place: str, found: Any, name: str, packages: Sequence[str] | None) -> None:
    if not isinstance(found, type):
        raise ValueError(f"'{place}' must be a class, got {name}, which is none.")
    if packages is None:
        return
    if _package(found) not in packages:
        known = ", ".join(packages)
        raise ValueError(f"'{place}' must be a class of {known}, got {name} of {_package(found)}.")
    if _package(found) in TRUSTED and not issubclass(found, KINDS):
        kinds = ", ".join(kind.__name__ for kind in KINDS)
        raise ValueError(f"'{place}' must be a subclass of one of {kinds}, got {name}.")


def _texts(tree: Any, place: str = "") -> Iterator[_Text]:
    """Yield every string in a tree of settings, except the names of the data."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            inner = _place(place, key)
            if not _names_data(inner, key, value):
                yield from _texts(value, inner)
    elif isinstance(tree, list):
        for value in tree:
            yield from _texts(value, place)
    elif isinstance(tree, str):
        yield _Text(place, tree)


def _names_data(place: str, key: Any, value: Any) -> bool:
    """Return True for the data file, and for columns or arrays in it, which may have any name."""
    if key == "path":
        return place.startswith("data.source.") and isinstance(value, str)
    if place != f"data.source.{key}":  # a class under such a name has its place too
        return False
    if isinstance(value, list):
        return key in _DATA_LISTS and all(isinstance(name, str) for name in value)
    return key in _DATA_NAMES and isinstance(value, str)


def _place(place: str, key: Any) -> str:
    """Return the name of the setting at a key of the tree at this place."""
    return place if key in _UNNAMED else f"{place}.{key}".lstrip(".")


def _is_import_path(text: _Text, packages: Sequence[str]) -> bool:
    """Return True if a string is an import path, without importing anything.

    Raises:
        ValueError: if it is no plain name or number, or a path that may not be imported.
    """
    if not re.fullmatch(_NAME, text.name):
        if not re.fullmatch(r"[\w.:+-]*", text.value):
            received = one_line(text.value)
            raise ValueError(f"settings may hold names and numbers, got the text {received!r}.")
        return False
    package, *attributes = text.name.split(".")
    if package not in packages:
        raise ValueError(
            f"settings may name classes of {', '.join(packages)}, got {text.name}: allow {package} "
            "by name if you trust it."
        )
    if package in TRUSTED and any(attribute.startswith("_") for attribute in attributes):
        raise ValueError(f"'{text.place}' must be a public class, got {text.name}.")
    return True


def _reached(place: str, name: str, packages: Sequence[str] | None) -> Any:
    """Return the object at an import path whose modules and classes are all of these packages."""
    owner, *attributes = name.split(".")
    try:
        with validation_restored():
            found: Any = import_module(owner)
            for attribute in attributes:
                found = _attribute(found, attribute)
                if packages is not None and not _is_of(found, packages):
                    known = ", ".join(packages)
                    raise ValueError(f"'{place}' must be a class of {known}, got {name}.")
    except (AttributeError, ImportError) as error:
        raise ValueError(f"'{place}' must be a class, got {name}: {one_line(error)}.") from error
    return found


def _is_of(found: Any, packages: Sequence[str]) -> bool:
    """Return True unless the object is a module or class of another package."""
    return not isinstance(found, ModuleType | type) or _package(found) in packages


def _package(found: Any) -> str:
    """Return the package of a module or a class."""
    module = found.__name__ if isinstance(found, ModuleType) else found.__module__
    return module.split(".")[0]


def _attribute(owner: Any, name: str) -> Any:
    """Return an attribute, or the module of that name inside a package."""
    if isinstance(owner, ModuleType) and hasattr(owner, "__path__") and not hasattr(owner, name):
        return import_module(f"{owner.__name__}.{name}")
    return getattr(owner, name)
