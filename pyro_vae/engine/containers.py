"""Containers: dicts, lists, objects, classes and Python modules with a program's settings."""

import sys
from argparse import Namespace
from collections import UserDict, UserList, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from operator import is_
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

# Objects of these types are fully described by their value; of other objects nobody can say if they
# have changed.
CONSTANTS = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    torch.dtype,
    torch.device,
    torch.Size,
)
# The depth to which containers inside containers are watched, and the number of values that are
# watched in all. Each value takes less than 0.1 µs in each step.
_DEPTH = 4
_NUM_VALUES = 1000
# These packages do not change their settings. Python's own hold none.
_LIBRARIES = ("torch", "pyro", "numpy", "pyro_vae")
_RECORDS = (SimpleNamespace, Namespace, UserDict, UserList)
# Code that uses these may read attributes whose names it does not contain, or that do not exist at
# first.
DYNAMIC = {"getattr", "hasattr", "AttributeError", "vars", "__dict__", "asdict", "attrgetter"}
_MODULES_OWN = frozenset(vars(nn.Module()))


class _Node(NamedTuple):
    """A container as it was when it was visited."""

    read: Callable[[], Sequence[Any]]
    held: Sequence[Any]

    def is_same(self) -> bool:
        """Return True if the container holds the very same objects as before."""
        now = self.read()
        return len(now) == len(self.held) and all(map(is_, now, self.held))


class Containers:
    """Values that containers hold, to a depth of 4 and 1,000 values.

    Dicts, lists, tuples, sets and small arrays are watched as a whole. Of objects, classes and
    Python modules, the attributes whose names occur in the watched code are watched. An object with
    settings may also hold a log. If that code uses `getattr` or `vars`, all attributes are watched.
    Values that the program itself has written are left out.
    """

    def __init__(self) -> None:
        self.words: set[str] = set()
        self._roots: list[Callable[[], Any]] = []
        self._written: set[Hashable] = set()
        self._nodes: list[_Node] = []
        self._objects: list[Any] = []
        self._values: dict[tuple[Hashable, ...], Hashable] = {}
        self._key = ""
        self._is_stale = False

    def add(self, root: Callable[[], Any]) -> None:
        """Watch the container that `root` returns."""
        self._roots.append(root)
        self._is_stale = True

    def read(self, words: set[str]) -> None:
        """Watch also the attributes with these names."""
        self._is_stale |= not words <= self.words
        self.words |= words

    def key(self) -> str:
        """Return a string that is equal if all values are equal."""
        self._update()
        return self._key

    def held(self) -> list[Any]:
        """Return the objects that the key identifies by their address, to keep the key valid."""
        return [node.held for node in self._nodes]

    def objects(self) -> list[Any]:
        """Return the objects among the containers."""
        self._update()
        return self._objects

    def values(self) -> dict[tuple[Hashable, ...], Hashable]:
        """Return the values by their path."""
        self._update()
        return self._values

    def leave_out(self, before: dict[tuple[Hashable, ...], Hashable]) -> None:
        """Stop watching the values that differ from `before`, which the program has written."""
        after = self.values()
        written = {path for path in before | after if before.get(path) != after.get(path)}
        self._is_stale |= bool(written)
        self._written |= written

    def _update(self) -> None:
        if self._is_stale or not all(map(_Node.is_same, self._nodes)):
            self._is_stale = False
            self._nodes = []
            self._objects = []
            self._values = {}
            for number, root in enumerate(self._roots):
                self._visit((number,), lambda root=root: (root(),), ("",), 0)  # type: ignore[misc]
            self._key = repr(list(self._values.items()))

    def _visit(
        self,
        path: tuple[Hashable, ...],
        read: Callable[[], Sequence[Any]],
        names: Sequence[Hashable],
        depth: int,
    ) -> None:
        """Store the values of a container, and visit the containers among them.

        The names are those of the values, in the same order.
        """
        held = read()
        self._nodes.append(_Node(read, held))
        for name, value in zip(names, held, strict=False):
            place = (*path, name)
            if place in self._written:
                continue
            if len(self._values) >= _NUM_VALUES:
                return
            contents = _contents(value, self.words) if depth <= _DEPTH else None
            if contents is None:
                self._values[place] = _identity(value)
                continue
            self._values[place] = type(value).__qualname__, contents.size
            if is_object(value):
                self._objects.append(value)
            self._visit(place, contents.read, contents.names, depth + 1)


class _Contents(NamedTuple):
    """Contents of a container.

    Arguments:
        names: the names of its values.
        read: returns the values.
        size: its size, if it can grow.
    """

    names: Sequence[Hashable]
    read: Callable[[], Sequence[Any]]
    size: int = 0


def _contents(value: Any, words: set[str]) -> _Contents | None:
    """Return the contents of a container, or None for any other value."""
    if isinstance(value, UserDict | UserList):
        value = value.data
    if isinstance(value, dict):
        keys = list(islice(value, _NUM_VALUES))
        names = [key if type(key) in CONSTANTS else id(key) for key in keys]
        return _Contents(
            names,
            lambda: [*islice(value.values(), _NUM_VALUES), *islice(value, _NUM_VALUES)],
            len(value),
        )
    if isinstance(value, list | tuple) and type(value) not in CONSTANTS:
        return _Contents(range(len(value)), lambda: value[:_NUM_VALUES], len(value))
    if isinstance(value, set | frozenset | deque):
        return _Contents(range(len(value)), lambda: [*islice(value, _NUM_VALUES)], len(value))
    if _is_small_array(value):
        return _Contents(("bytes",), lambda: (sys.intern(value.tobytes().hex()),), len(value.shape))
    return _attributes(value, words) if is_object(value) else None


def _attributes(owner: Any, words: set[str]) -> _Contents:
    """Return the attributes with these names, of the object itself and of its classes."""
    classes = [kind for kind in _classes(owner) if is_users(kind.__module__)]
    namespaces: list[Mapping[str, Any]] = [vars(kind) for kind in classes]
    if hasattr(owner, "__dict__") and not isinstance(owner, type):
        namespaces.insert(0, vars(owner))
    slots = {name for kind in classes for name in _slots(kind)}
    places: list[tuple[Hashable, Callable[[], Any]]] = []
    if words & DYNAMIC or any("__getattr__" in namespace for namespace in namespaces):
        words = words.union(slots, *namespaces)
        # Equal strings are one object once they are interned.
        places = [("names", lambda: sys.intern(" ".join(namespaces[0])))]
    # An attribute of the object may later hide one of its class.
    words = words.intersection(slots.union(*namespaces))
    for number, namespace in enumerate(namespaces):
        names = [name for name in sorted(words) if _is_data(name, namespace.get(name))]
        places += [((number, name), partial(namespace.get, name)) for name in names]
    places += [(name, partial(getattr, owner, name, None)) for name in sorted(slots & words)]
    return _Contents([place for place, _ in places], lambda: [read() for _, read in places])


def is_container(value: Any) -> bool:
    """Return True for a value that may hold settings that change."""
    is_collection = (
        isinstance(value, dict | list | tuple | set | frozenset | deque)
        and type(value) not in CONSTANTS
    )
    return is_collection or is_object(value) or _is_small_array(value)


def is_object(value: Any) -> bool:
    """Return True for an object, class or Python module of the user's.

    It belongs neither to Python itself nor to a library.
    """
    if isinstance(value, ModuleType):
        return is_users(value.__name__)
    if isinstance(value, type):
        return is_users(value.__module__)
    if isinstance(value, FunctionType | MethodType | torch.Tensor):
        return False
    return isinstance(value, _RECORDS) or is_users(type(value).__module__)


def is_users(module_name: str) -> bool:
    """Return True for a module that belongs neither to Python itself nor to a library."""
    package = module_name.partition(".")[0]
    return package not in _LIBRARIES and package not in sys.stdlib_module_names


def methods(owner: Any, words: set[str]) -> Iterator[FunctionType]:
    """Yield the functions with these names.

    They are methods and properties of an object's classes, or functions of a Python module.
    """
    kinds = (
        [owner]
        if isinstance(owner, ModuleType)
        else [kind for kind in _classes(owner) if is_users(kind.__module__)]
    )
    for kind in kinds:
        for name in words & vars(kind).keys():
            attribute = vars(kind)[name]
            function = getattr(attribute, "fget", None) or getattr(attribute, "__func__", attribute)
            if isinstance(function, FunctionType):
                yield function


def _classes(owner: Any) -> tuple[type, ...]:
    if isinstance(owner, ModuleType):
        return ()
    return owner.__mro__ if isinstance(owner, type) else type(owner).__mro__


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _is_data(name: str, value: Any) -> bool:
    """Return True for an attribute that is neither code nor a descriptor.

    Attributes that each module has are left out too.
    """
    is_code = isinstance(value, FunctionType | staticmethod | classmethod) or hasattr(
        type(value), "__set__"
    )
    return not is_code and name not in _MODULES_OWN and not name.startswith("__")


def _is_small_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.size <= _NUM_VALUES and value.dtype != object


def _identity(value: Any) -> Hashable:
    if type(value) in CONSTANTS:
        return type(value).__name__, repr(value)
    if isinstance(value, np.generic):
        return str(value.dtype), value.tobytes()
    return id(value)
