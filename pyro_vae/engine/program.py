"""A function of tensors that runs as it is written, replayed from its trace, or compiled."""

import os
import random
import shutil
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from pyro_vae.engine.containers import CONSTANTS
from pyro_vae.engine.dependencies import Dependencies
from pyro_vae.engine.execution import Execution, check_execution
from pyro_vae.engine.failures import first_line, users_level
from pyro_vae.engine.precision import with_bfloat16_products
from pyro_vae.engine.tracing import NotTraceableError, trace
from pyro_vae.support.checks import whole

# Seconds that compiling costs once, and that it saves in each call: for each operation that is no
# longer called by itself, and for each number that no longer goes through memory. Measured on two
# cores; they are constants, so that no clock decides how a run rounds.
_COMPILE_SECONDS = 10.0
_SAVED_BY_OPERATION = 3e-6
_SAVED_BY_NUMBER = 5e-10
# A program with more signatures than this has an argument that changes all the time.
_MAX_SIGNATURES = 32
# The most replays between two comparisons with the program itself. A comparison takes as long
# as three of its runs.
_CHECK_EVERY = 1000
_NOTHING = (type(None), None)


class _Call:
    """The arguments of one call, taken apart into tensors and the rest."""

    def __init__(self, args: Any, kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs
        self.leaves, self.structure = pytree.tree_flatten((args, kwargs))
        self.tensors = [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]

    def with_tensors(self, tensors: Iterable[Tensor]) -> tuple[Any, Any]:
        """Return the same arguments with other tensors."""
        remaining = iter(tensors)
        leaves = [next(remaining) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        return pytree.tree_unflatten(leaves, self.structure)

    def signature(self) -> Hashable:
        """Return the properties of the arguments that a trace is specific to."""
        return self.structure, tuple(map(_leaf_signature, self.leaves))


class _Record:
    """The trace of one signature, the code that runs it, and the number of its calls."""

    def __init__(
        self, trace: GraphModule, graph: GraphModule, state: list[Tensor], may_compile: bool
    ) -> None:
        self.trace = trace
        self.graph = graph
        self.state = state
        self.may_compile = may_compile
        self.seconds_saved = _seconds_saved(graph)
        self.run: Callable[..., Any] = graph.forward
        self.calls = 0
        self.is_compiled = False


class Program:
    """A function of tensors, traced once for each signature and compiled if that pays.

    The signature is the shapes, dtypes and devices of tensors, the values of all other arguments,
    and the dependencies of the function. These are modes, parameters and plain attributes of
    modules, and global and closed-over names. The values that these hold in dicts, lists, objects
    and classes count too, as in `Containers`.

    Results and random draws are those of the function itself: bit for bit when it is replayed, up
    to rounding when it is compiled. A function that cannot be traced runs as it is written, and one
    warning says why.

    Changes of Python state that lies deeper are noticed when trace and function are compared again.
    That is after each number of replays that is a power of 2 or a multiple of 1,000.

    Arguments:
        function: returns a tuple of tensors and `None`s.
        traceable: a function with the same results, traced in place of `function`.
        parameters: returns the tensors that the function differentiates by; called each time.
        others: returns the tensors that the function reads besides these and those of modules;
            called each time.
        calls: functions and modules that the function calls, if they are known beforehand.
        name: the name of the function in warnings.
        execution: plain, traced or compiled, and the precision.
        num_calls: the number of calls, if known. If compiling pays, it is then done at once.

    Example:
        >>> from pyro_vae.engine import Program
        >>> program = Program(lambda x: (x.sin() + 1,))
        >>> results = [program(torch.ones(2)) for _ in range(2)]
        >>> results[1], program.how
        ((tensor([1.8415, 1.8415]),), 'traced')
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        traceable: Callable[..., Any] | None = None,
        parameters: Callable[[], Iterable[Tensor]] = tuple,
        others: Callable[[], Iterable[Tensor]] = tuple,
        calls: Iterable[Any] = (),
        name: str = "The program",
        execution: Execution = Execution(),
        num_calls: int | None = None,
    ) -> None:
        check_execution(execution)
        self.function = function
        self.traceable = traceable or function
        self.dependencies = Dependencies([function, *calls], parameters, others)
        self.name = name
        self.execution = execution
        self.num_calls = None if num_calls is None else whole(num_calls, "num_calls", least=0)
        self._traces = execution.trace
        self._note = ""
        # The objects that each signature identifies by their address; here they are kept alive.
        self._seen: dict[Hashable, list[Any]] = {}
        self._is_full = False
        self._records: dict[Hashable, _Record] = {}

    @property
    def how(self) -> str:
        """The mode of the calls: "plain", "traced" or "compiled".

        If it is not the requested mode, the reason follows.
        """
        if not self._records:
            return f"plain{self._note}"
        is_compiled = any(record.is_compiled for record in self._records.values())
        mode = "compiled" if is_compiled else "traced"
        products = ", bfloat16 products" if self.execution.precision == "bfloat16" else ""
        return f"{mode}{products}{self._note}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # A replay would bypass the effect handlers that the caller has put around this call.
        if not self._traces or _PYRO_STACK:
            return self.function(*args, **kwargs)
        call = _Call(args, kwargs)
        try:
            return self._replayed(call)
        except NotTraceableError as error:
            reason = str(error)
        # An error of the function itself comes before the warning, and without it.
        result = self.function(*args, **kwargs)
        self._give_up(reason)
        return result

    def _replayed(self, call: _Call) -> Any:
        hooked = self.dependencies.module_with_hooks()
        if hooked is not None:
            raise NotTraceableError(
                f"a {type(hooked).__name__} has hooks, which a replay would not call"
            )
        signature = self._signature(call)
        if signature not in self._records:
            self._refuse_compiled()
            if signature not in self._seen:
                waits = self._waits()
                result = self._run_first(call, waits)
                if waits or self._is_full:
                    return result
                signature = self._signature(call)
            self._records[signature] = self._trace(call)
        return self._run(self._records[signature], call)

    def _refuse_compiled(self) -> None:
        compiled = self.dependencies.compiled_module()
        if compiled is not None:
            kind = type(compiled._modules.get("_orig_mod", compiled)).__name__
            raise NotTraceableError(f"the module {kind} is compiled by torch.compile")

    def _signature(self, call: _Call) -> Hashable:
        first: dict[int, int] = {}  # a tensor that is passed twice is one tensor to the trace
        state = self.dependencies.state()
        tensors = call.tensors + state
        twins = tuple([first.setdefault(id(tensor), place) for place, tensor in enumerate(tensors)])
        return call.signature(), twins, self.dependencies.signature(state)

    def _waits(self) -> bool:
        """Return True if tracing waits for the second call of a signature.

        A signature that comes only once is not worth a trace. bfloat16 and compiled code round
        differently from the function. So they begin with the first call, and a resumed run rounds
        like an uninterrupted one.
        """
        may_be_compiled_now = not self._records and (
            self.execution.compile is True or self.num_calls is not None
        )
        return self.execution.precision == "float32" and not may_be_compiled_now

    def _run_first(self, call: _Call, waits: bool) -> Any:
        """Run the function as it is written, once for each signature.

        This run may create parameters, and shows which modules are called.
        """
        if len(self._seen) >= _MAX_SIGNATURES:
            self._warn_full()
            return self.function(*call.args, **call.kwargs)
        before = self._touched(call)
        with nullcontext() if waits else self._unchanged(call), self.dependencies.watching():
            result = self.function(*call.args, **call.kwargs)
        _check_result(result)
        self._seen[self._signature(call)] = self.dependencies.held()
        after = self._touched(call)
        for what, values in before.items():
            # Places that are new, or that held nothing, are set up in the first run.
            pairs = zip(values, after[what], strict=False)
            if any(old not in (new, _NOTHING) for old, new in pairs):
                if not waits:
                    raise NotTraceableError(what)
                self._give_up(what)
                break
        return result

    def _touched(self, call: _Call) -> dict[str, list[Any]]:
        """Return values by a reason not to trace: it applies if the function changes them."""
        return {
            "it changes its arguments in place": [_version(tensor) for tensor in call.tensors],
            "it changes numbers that it reads": self.dependencies.values(),
            "it replaces its buffers": [id(buffer) for buffer in self.dependencies.buffers()],
            "it draws random numbers with Python's or NumPy's generator": [
                random.getstate(),
                repr(np.random.get_state()),
            ],
        }

    def _trace(self, call: _Call) -> _Record:
        def flat(*tensors: Tensor) -> Any:
            args, kwargs = call.with_tensors(tensors)
            return self.traceable(*args, **kwargs)

        state = self.dependencies.state()
        with self._unchanged(call):
            recorded = trace(flat, call.tensors + state)
        is_rounded = self.execution.precision == "bfloat16"
        graph = with_bfloat16_products(recorded) if is_rounded else recorded
        # The signature of the short last batch of an epoch comes second, and is only replayed.
        decides_later = self.execution.compile == "auto" and self.num_calls is None
        may_compile = not self._records or decides_later
        return _Record(recorded, graph, state, may_compile)

    def _run(self, record: _Record, call: _Call) -> Any:
        inputs = call.tensors + record.state
        # The check is repeated on the next call, which has other data, and then now and again. It
        # finds changes that no signature shows.
        if record.calls & (record.calls - 1) == 0 or record.calls % _CHECK_EVERY == 0:
            self._check(record, call)
        if record.may_compile and self._is_due(record):
            self._compile(record, call)
        record.calls += 1
        with torch.no_grad():
            return record.run(*inputs)

    def _is_due(self, record: _Record) -> bool:
        if self.execution.compile == "auto":
            num_calls = record.calls if self.num_calls is None else self.num_calls
            return num_calls * record.seconds_saved >= _COMPILE_SECONDS
        return self.execution.compile

    def _check(self, record: _Record, call: _Call) -> None:
        with self._unchanged(call):
            expected = self.function(*call.args, **call.kwargs)
        with self._unchanged(call), torch.no_grad():
            received = record.trace(*call.tensors, *record.state)
        if not _agree(received, expected, tolerance=1e-6):
            raise NotTraceableError("its trace gives other values than the program itself")

    def _compile(self, record: _Record, call: _Call) -> None:
        """Compile the graph of a record; if that is impossible, the trace is still replayed."""
        record.may_compile = False
        inputs = call.tensors + record.state
        is_cuda = any(tensor.is_cuda for tensor in inputs)
        if not is_cuda and not _has_compiler():
            self._note = " (no C++ compiler to compile with)"
            return
        # Random numbers are those of the program; on CUDA the whole graph is launched at once.
        options: Any = {"fallback_random": True, "triton.cudagraphs": is_cuda}
        try:
            with warnings.catch_warnings(), torch.no_grad():
                from torch import _inductor  # takes a second, and changes the filters of warnings

                warnings.simplefilter("ignore")
                with self._unchanged(call):
                    expected = record.graph(*inputs)
                # torch.compile would read the graph's Python again, and check in each call if it is
                # still valid.
                compiled = _inductor.compile(
                    record.graph, [tensor.detach() for tensor in inputs], options
                )
                with self._unchanged(call):
                    received = compiled(*inputs)
        except Exception as error:
            warnings.warn(
                f"{self.name} is not compiled but replayed from its trace: {first_line(error)}.",
                stacklevel=users_level(),
            )
            return
        tolerance = 1e-4 if self.execution.precision == "float32" else 5e-2
        if not _agree(received, expected, tolerance):
            warnings.warn(
                f"{self.name} is not compiled but replayed from its trace: compiled it gives other "
                "values.",
                stacklevel=users_level(),
            )
            return
        record.run = compiled
        record.is_compiled = True

    def _give_up(self, reason: str) -> None:
        self._traces = False
        self._records.clear()
        self._seen.clear()
        self._note = f", because {reason}"
        products = " and with float32 products" if self.execution.precision == "bfloat16" else ""
        warnings.warn(
            f"{self.name} runs as it is written{products}, not traced, because {reason}.",
            stacklevel=users_level(),
        )

    def _warn_full(self) -> None:
        if not self._is_full:
            self._is_full = True
            warnings.warn(
                f"{self.name} is traced for the first {_MAX_SIGNATURES} signatures of its "
                "arguments only: pass numbers that change from call to call as tensors.",
                stacklevel=users_level(),
            )

    @contextmanager
    def _unchanged(self, call: _Call) -> Iterator[None]:
        """Restore random state, buffers (running statistics) and arguments after the block."""
        devices = {
            tensor.device for tensor in call.tensors + self.dependencies.state() if tensor.is_cuda
        }
        buffers = [(buffer, buffer.clone()) for buffer in self.dependencies.buffers()]
        arguments = [(tensor, _version(tensor), tensor.clone()) for tensor in call.tensors]
        try:
            with torch.random.fork_rng(devices=list(devices)):
                yield
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
                for tensor, version, value in arguments:
                    if _version(tensor) != version:
                        tensor.copy_(value)


def _leaf_signature(leaf: Any) -> Hashable:
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device, leaf.requires_grad
    if type(leaf) in CONSTANTS:
        return type(leaf), leaf
    raise NotTraceableError(
        f"an argument is of type {type(leaf).__name__}; pass tensors and plain values"
    )


def _check_result(result: Any) -> None:
    if not isinstance(result, tuple) or not all(isinstance(r, Tensor | None) for r in result):
        raise TypeError(
            "'function' must return a tuple of tensors and None, got "
            f"{[type(r).__name__ for r in result] if isinstance(result, tuple) else type(result)}."
        )


def _version(tensor: Tensor) -> int:
    """Return a number that grows with each change in place; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version


def _seconds_saved(graph: GraphModule) -> float:
    """Estimate the seconds that compiling saves in a call."""
    values = [node.meta.get("val") for node in graph.graph.nodes if node.op == "call_function"]
    numbers = sum(value.numel() for value in values if isinstance(value, Tensor))
    return len(values) * _SAVED_BY_OPERATION + numbers * _SAVED_BY_NUMBER


def _agree(received: Any, expected: Any, tolerance: float) -> bool:
    """Return True if the results are equal up to rounding, relative to each one's largest value."""
    pairs = list(zip(received, expected, strict=False))
    return len(received) == len(expected) and all(
        _is_close(one, other, tolerance) for one, other in pairs
    )


def _is_close(received: Tensor | None, expected: Tensor | None, tolerance: float) -> bool:
    if received is None or expected is None:
        return received is None and expected is None
    if received.shape != expected.shape or received.dtype != expected.dtype:
        return False
    atol = tolerance * _size(expected)
    return torch.allclose(_finite(received), _finite(expected), rtol=0.0, atol=atol, equal_nan=True)


def _finite(tensor: Tensor) -> Tensor:
    """Replace infinite numbers by NaN, as Pyro itself does with an infinite loss."""
    return tensor.masked_fill(tensor.isinf(), torch.nan) if tensor.is_floating_point() else tensor


def _size(tensor: Tensor) -> float:
    finite = tensor[tensor.isfinite()].abs()
    return max(1e-6, finite.max().item()) if finite.numel() else 0.0


def _has_compiler() -> bool:
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "c++", "cl"]
    return any(shutil.which(name) for name in names)
