"""Dependencies of a function besides its arguments, found by watching it run."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import getattr_static
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.engine.calls import is_compiled, noticing
from pyro_vae.engine.containers import (
    CONSTANTS,
    DYNAMIC,
    Containers,
    is_container,
    is_object,
    is_users,
    methods,
)

# Hooks that a module calls in Python. Hooks on tensors are operations of the trace, if they were
# there when it was made.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Dependencies:
    """The values that functions depend on besides their arguments.

    They are modules with their modes, parameters and buffers, and the values and tensors that the
    functions refer to. The functions refer to global and closed-over names, and to attributes of
    modules and of the objects that methods are bound to. Numbers, strings and tensors are read
    directly, and those in dicts, lists, objects and classes through `Containers`. Values that lie
    deeper, or in a function of a library, are not seen.

    Arguments:
        functions: functions or modules that are called.
        parameters: returns the tensors that the functions differentiate by; called each time.
        others: returns other tensors that the functions read; called each time.
    """

    def __init__(
        self,
        functions: Iterable[Any],
        parameters: Callable[[], Iterable[Tensor]],
        others: Callable[[], Iterable[Tensor]] = tuple,
    ) -> None:
        self.parameters = parameters
        self.others = others
        self.modules: dict[nn.Module, None] = {}
        self.containers = Containers()
        self._reads: list[Callable[[], Any]] = []
        self._functions: set[FunctionType] = set()
        self._hooks: list[Any] = []
        for function in functions:
            self._add_function(function)
        self._add_methods()

    def state(self) -> list[Tensor]:
        """Return parameters, other tensors and buffers, each once."""
        state: dict[Tensor | None, None] = dict.fromkeys([*self.parameters(), *self.others()])
        for module in self.modules:
            state |= dict.fromkeys([*module._parameters.values(), *module._buffers.values()])
        return [tensor for tensor in state if tensor is not None]

    def buffers(self) -> list[Tensor]:
        """Return the buffers of all modules."""
        return [
            buffer
            for module in self.modules
            for buffer in module._buffers.values()
            if buffer is not None
        ]

    def module_with_hooks(self) -> nn.Module | None:
        """Return a module with hooks, which call the user's Python before or after its own."""
        if not any(self._hooks):
            return None
        return next(
            module for module in self.modules if any(getattr(module, hooks) for hooks in _HOOKS)
        )

    def compiled_module(self) -> nn.Module | None:
        """Return a module that `torch.compile` has made or changed; a trace cannot enter it."""
        return next(filter(is_compiled, self.modules), None)

    def values(self) -> list[Hashable]:
        """Return the values of the watched attributes and names; later ones are appended."""
        return [_identity(read()) for read in self._reads]

    def held(self) -> list[Any]:
        """Return the objects that the signature identifies by their address.

        The signature is valid only as long as they exist.
        """
        return [*self.state(), *(read() for read in self._reads), *self.containers.held()]

    def signature(self, state: Iterable[Tensor] | None = None) -> Hashable:
        """Return a key that stays equal while only the values of parameters and buffers change.

        Arguments:
            state: the current result of `state`, if known.
        """
        parts = [
            (len(module.__dict__), *map(id, module._modules.values())) for module in self.modules
        ]
        context = (
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.is_autocast_enabled("cuda"),
            torch.get_autocast_dtype("cpu"),
            torch.get_autocast_dtype("cuda"),
        )
        tensors = [
            (
                id(tensor),
                tensor.requires_grad,
                tensor.dtype,
                tensor.device,
                len(tensor._backward_hooks or ()),
            )
            for tensor in (self.state() if state is None else state)
        ]
        # A tensor may leave the parameters and stay among the others, or the other way round.
        roles = len(list(self.parameters())), tuple(map(id, self.others()))
        return (
            tuple(self.values()),
            self.containers.key(),
            tuple(parts),
            roles,
            tuple(tensors),
            context,
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Add the modules that are called, and leave out values that the program itself writes."""
        seen: dict[nn.Module, None] = {}
        before = self.containers.values()
        try:
            with noticing(seen.setdefault):
                yield
        finally:
            self.containers.leave_out(before)
            for module in seen:
                self._add_module(module)
            self._add_methods()

    def _add_module(self, module: nn.Module) -> None:
        if module not in self.modules:
            self.modules[module] = None
            self._hooks += [getattr(module, hooks) for hooks in _HOOKS]
            self._add_names(vars(module), vars(module))
            self._add_function(getattr_static(type(module), "forward"))
            self._add_object(module)

    def _add_function(self, function: Any) -> None:
        while isinstance(function, partial):
            self._add_settings(
                [partial(getattr, function, "args"), partial(getattr, function, "keywords")]
            )
            function = function.func
        if isinstance(function, MethodType):
            self._add_function(function.__self__)
            function = function.__func__
        if isinstance(function, nn.Module):
            for module in function.modules():
                self._add_module(module)
        elif isinstance(function, FunctionType):
            self._add_definition(function)
        elif hasattr(function, "__dict__"):
            self._add_names(vars(function), vars(function))
            self._add_object(function)
            call: Any = type(function).__call__
            if isinstance(call, FunctionType):
                self._add_definition(call)

    def _add_definition(self, function: FunctionType) -> None:
        """Add the values that a function's code refers to.

        Functions of the same module that it refers to are added in the same way.
        """
        if function in self._functions:
            return
        self._functions.add(function)
        cells = [cell for cell in function.__closure__ or () if _contents(cell) is not None]
        strings = {text for text in map(_contents, cells) if isinstance(text, str)}
        words = {*_words(function.__code__), *strings}
        self.containers.read(words if is_users(function.__module__ or "") else words - DYNAMIC)
        names = [name for name in _names(function.__code__) if name in function.__globals__]
        self._add_names(function.__globals__, names)
        self._reads += [partial(_contents, cell) for cell in cells if _is_plain(_contents(cell))]
        reads = [partial(_contents, cell) for cell in cells]
        if is_users(function.__module__ or ""):
            reads += [partial(function.__globals__.get, name) for name in names]
            self._add_settings(
                partial(getattr, function, name) for name in ("__defaults__", "__kwdefaults__")
            )
        for read in reads:
            self._add_value(read)
        for value in map(function.__globals__.get, names):
            if isinstance(value, FunctionType) and value.__globals__ is function.__globals__:
                self._add_definition(value)

    def _add_value(self, read: Callable[[], Any]) -> None:
        value = read()
        if is_container(value):
            self.containers.add(read)
        elif isinstance(value, FunctionType) and is_users(value.__module__ or ""):
            self._add_definition(value)

    def _add_settings(self, reads: Iterable[Callable[[], Any]]) -> None:
        """Add bound arguments and defaults, but only those with a container among them.

        Most of them hold numbers that never change.
        """
        for read in reads:
            settings = read()
            values = settings.values() if isinstance(settings, dict) else settings or ()
            if any(map(is_container, values)):
                self.containers.add(read)

    def _add_object(self, owner: Any) -> None:
        if is_object(owner):
            self.containers.add(lambda: owner)

    def _add_methods(self) -> None:
        """Add the methods of objects and the functions of Python modules that the code names."""
        num_known = -1
        while len(self._functions) > num_known:
            num_known = len(self._functions)
            for owner in self.containers.objects():
                for function in methods(owner, self.containers.words):
                    self._add_definition(function)

    def _add_names(self, namespace: dict[str, Any], names: Iterable[str]) -> None:
        self._reads += [
            partial(namespace.get, name) for name in names if _is_plain(namespace.get(name, ...))
        ]


def _names(code: CodeType) -> Iterator[str]:
    """Yield the global names in a function's code and in the functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _words(code: CodeType) -> Iterator[str]:
    """Yield the names in a function's code that an attribute may have.

    They stand after dots, in strings, and as arguments.
    """
    yield from code.co_names
    yield from code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, CodeType):
            yield from _words(constant)


def _contents(cell: CellType) -> Any:
    """Return the value of a closed-over name, or None if it has none yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) or type(value) in CONSTANTS


def _identity(value: Any) -> Hashable:
    """Return a key that differs between values; for tensors it is the identity, not the content."""
    return (type(value), value) if type(value) in CONSTANTS else id(value)
