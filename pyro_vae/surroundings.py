"""Surroundings: what a function of tensors reads besides its arguments, found by watching it run."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

# Values of these types are all there is to them; of other objects nobody can say whether they have changed.
CONSTANTS = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
# Hooks that a module calls in Python; those on tensors that were there when it was traced are operations of the trace.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Surroundings:
    """Modules with their modes, parameters and buffers, and the plain values and tensors that functions refer to.

    These are attributes of modules and of the objects that methods are bound to, and global and closed-over names, where
    they hold a number, a text or a tensor. What lies deeper (in a list, in an object's object, in a function of another
    file) is not seen.

    Arguments:
        functions: functions, or modules, that are called.
        parameters: further tensors that are read, asked for each time.
    """

    def __init__(self, functions: Iterable[Any], parameters: Callable[[], Iterable[Tensor]]) -> None:
        self.parameters = parameters
        self.modules: dict[nn.Module, None] = {}
        self._reads: list[Callable[[], Any]] = []
        self._functions: set[FunctionType] = set()
        self._hooks: list[Any] = []
        for function in functions:
            self._add_function(function)

    def state(self) -> list[Tensor]:
        """Parameters and buffers, each once."""
        state: dict[Tensor | None, None] = dict.fromkeys(self.parameters())
        for module in self.modules:
            state |= dict.fromkeys([*module._parameters.values(), *module._buffers.values()])
        return [tensor for tensor in state if tensor is not None]

    def buffers(self) -> list[Tensor]:
        """Buffers alone."""
        return [buffer for module in self.modules for buffer in module._buffers.values() if buffer is not None]

    def module_with_hooks(self) -> nn.Module | None:
        """A module that calls Python of the user's before or after its own."""
        if not any(self._hooks):
            return None
        return next(module for module in self.modules if any(getattr(module, hooks) for hooks in _HOOKS))

    def values(self) -> list[Hashable]:
        """What the watched attributes and names hold; what is watched later is appended."""
        return [_identity(read()) for read in self._reads]

    def signature(self) -> Hashable:
        """What all this is now; equal when nothing has changed but the values of parameters and buffers."""
        parts = [(len(module.__dict__), *map(id, module._modules.values())) for module in self.modules]
        context = (
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.is_autocast_enabled("cuda"),
            torch.get_autocast_dtype("cpu"),
            torch.get_autocast_dtype("cuda"),
        )
        state = [
            (id(tensor), tensor.requires_grad, tensor.dtype, tensor.device, len(tensor._backward_hooks or ()))
            for tensor in self.state()
        ]
        return tuple(self.values()), tuple(parts), tuple(state), context

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Notice the modules that are called."""
        seen: dict[nn.Module, None] = {}
        hook = register_module_forward_pre_hook(lambda module, inputs: seen.setdefault(module))
        try:
            yield
        finally:
            hook.remove()
            for module in seen:
                self._add_module(module)

    def _add_module(self, module: nn.Module) -> None:
        if module not in self.modules:
            self.modules[module] = None
            self._hooks += [getattr(module, hooks) for hooks in _HOOKS]
            self._add_names(vars(module), vars(module))
            self._add_function(type(module).forward)

    def _add_function(self, function: Any) -> None:
        while isinstance(function, partial):
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

    def _add_definition(self, function: FunctionType) -> None:
        """What a function's text refers to, and that of the functions beside it that it calls."""
        if function in self._functions:
            return
        self._functions.add(function)
        names = [name for name in _names(function.__code__) if name in function.__globals__]
        self._add_names(function.__globals__, names)
        cells = [cell for cell in function.__closure__ or () if _contents(cell) is not None]
        self._reads += [partial(_contents, cell) for cell in cells if _is_plain(_contents(cell))]
        for value in [function.__globals__[name] for name in names] + [_contents(cell) for cell in cells]:
            if isinstance(value, FunctionType) and value.__globals__ is function.__globals__:
                self._add_definition(value)

    def _add_names(self, namespace: dict[str, Any], names: Iterable[str]) -> None:
        self._reads += [partial(namespace.get, name) for name in names if _is_plain(namespace.get(name, ...))]


def _names(code: CodeType) -> Iterator[str]:
    """The global names in a function's code, and in that of the functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _contents(cell: CellType) -> Any:
    """What a closed-over name stands for; None before it has been given a value."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) or type(value) in CONSTANTS


def _identity(value: Any) -> Hashable:
    """What tells this value from another; two tensors are told apart by what they are, not by what they hold."""
    return (type(value), value) if type(value) in CONSTANTS else id(value)
