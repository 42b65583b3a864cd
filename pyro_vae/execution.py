"""Execution: a function of tensors run as it is written, replayed from its trace, or compiled."""

import os
import shutil
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, TypeAlias, get_args

import torch
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils import _pytree as pytree

from pyro_vae.errors import one_line
from pyro_vae.precision import with_bfloat16_products
from pyro_vae.tracing import NotTraceableError, trace

Compile: TypeAlias = bool | Literal["auto"]
Precision: TypeAlias = Literal["float32", "bfloat16"]

# Compiling takes some ten seconds and saves about a millisecond a call: it pays from here on.
COMPILE_PAYS_FROM = 10_000
# A program with more signatures than this has something in its arguments that changes all the time.
_MAX_SIGNATURES = 32
# A trace is compared with the program on the call it was made for and on the next one, which has other data.
_CHECKED_CALLS = 2
# Hooks that a module calls in Python; those on tensors are operations of the trace.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Arguments of these types, whose value is all there is to them, are part of a signature.
_CONSTANTS = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)


def check_execution(trace: bool, compile: Compile, precision: Precision) -> None:
    """Refuse settings that do not fit together.

    Raises:
        ValueError: an unknown setting, or one that needs a trace without one.
    """
    if compile not in (True, False, "auto"):
        raise ValueError(f"'compile' must be True, False or 'auto', got {compile!r}.")
    if precision not in get_args(Precision):
        raise ValueError(f"'precision' must be 'float32' or 'bfloat16', got {precision!r}.")
    if not trace and (compile is True or precision != "float32"):
        setting = f"compile={compile}" if compile is True else f"precision={precision!r}"
        raise ValueError(f"'trace' must be True for {setting}, got False.")


class _Call:
    """The arguments of one call, taken apart into tensors and the rest."""

    def __init__(self, args: Any, kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs
        self.leaves, self.structure = pytree.tree_flatten((args, kwargs))
        self.tensors = [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]

    def with_tensors(self, tensors: Iterable[Tensor]) -> tuple[Any, Any]:
        """The same arguments with other tensors."""
        remaining = iter(tensors)
        leaves = [next(remaining) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        return pytree.tree_unflatten(leaves, self.structure)

    def signature(self) -> Hashable:
        """What a trace is specific to."""
        return self.structure, tuple(map(_leaf_signature, self.leaves))


class _Record:
    """The trace of one signature, what runs it, and how often that was done."""

    def __init__(self, trace: GraphModule, graph: GraphModule, state: list[Tensor], may_compile: bool) -> None:
        self.trace, self.graph = trace, graph  # as it was recorded, and with its products in the precision asked for
        self.state, self.may_compile = state, may_compile
        self.run: Callable[..., Any] = graph.forward
        self.calls, self.is_compiled = 0, False


class Program:
    """A function of tensors that is traced once for each signature of its arguments, and compiled where that pays.

    The signature is the shapes, dtypes and devices of tensors, the values of all other arguments, and the modes and
    parameters of the modules that the function calls. Results and random draws are those of the function itself: bit for
    bit when it is replayed, up to rounding when it is compiled. What cannot be traced runs as it is written, with one
    warning that says why. A replay does not see Python state: a function that counts its own calls is not for this.

    Arguments:
        function: returns a tuple of tensors and `None`s.
        traceable: a function with the same results, traced in place of `function`.
        parameters: what the function differentiates by, asked for at each call.
        modules: modules whose modes and tensors count, beside those that are seen to be called.
        name: what warnings call the function.
        trace: trace at all.
        compile: compile the first signature at once (True), none (False), or any at its 10,000th call ("auto").
        precision: of the matrix products; "bfloat16" rounds their factors.

    Example:
        >>> from pyro_vae.execution import Program
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
        modules: Iterable[nn.Module] = (),
        name: str = "The program",
        trace: bool = True,
        compile: Compile = "auto",
        precision: Precision = "float32",
    ) -> None:
        check_execution(trace, compile, precision)
        self.function, self.traceable = function, traceable or function
        self.parameters, self.name = parameters, name
        self.compile, self.precision = compile, precision
        self._traces = trace
        self._note = ""
        # What comes once is not worth a trace; but a run that is taken up again must round like one that never stopped.
        self._waits = compile is not True and precision == "float32"
        self._modules: dict[nn.Module, None] = {}
        self._add_modules(part for module in modules for part in module.modules())
        self._seen: set[Hashable] = set()
        self._is_full = False
        self._records: dict[Hashable, _Record] = {}

    @property
    def how(self) -> str:
        """How calls are run: "plain", "traced" or "compiled", with the reason where it is not as asked."""
        if not self._records:
            return f"plain{self._note}"
        how = "compiled" if any(record.is_compiled for record in self._records.values()) else "traced"
        return how + (", bfloat16 products" if self.precision == "bfloat16" else "") + self._note

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # A replay would not meet the effect handlers that the caller has put around this call.
        if not self._traces or _PYRO_STACK:
            return self.function(*args, **kwargs)
        call = _Call(args, kwargs)
        try:
            self._refuse_hooks()
            signature = self._signature(call)
            if signature not in self._records:
                if signature not in self._seen:
                    result = self._run_first(call)
                    if self._waits or self._is_full:
                        return result
                    signature = self._signature(call)
                self._records[signature] = self._trace(call)
            return self._run(self._records[signature], call)
        except NotTraceableError as reason:
            self._give_up(str(reason))
            return self.function(*args, **kwargs)

    def _signature(self, call: _Call) -> Hashable:
        modes = tuple([module.training for module in self._modules])
        state = self._state()
        flags = tuple([(id(tensor), tensor.requires_grad, tensor.dtype, tensor.device) for tensor in state])
        first: dict[int, int] = {}  # a tensor that is passed twice is one tensor to the trace
        twins = tuple([first.setdefault(id(tensor), place) for place, tensor in enumerate(call.tensors + state)])
        context = (
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.is_autocast_enabled("cuda"),
        )
        return call.signature(), modes, flags, twins, context

    def _refuse_hooks(self) -> None:
        if any(self._hooks):
            owner = next(module for module in self._modules if any(getattr(module, hooks) for hooks in _HOOKS))
            raise NotTraceableError(f"a {type(owner).__name__} has hooks, which a replay would not call")

    def _add_modules(self, modules: Iterable[nn.Module]) -> None:
        self._modules.update(dict.fromkeys(modules))
        self._hooks = [getattr(module, hooks) for module in self._modules for hooks in _HOOKS]

    def _state(self) -> list[Tensor]:
        """What the function reads besides its arguments, each tensor once."""
        state: dict[Tensor | None, None] = dict.fromkeys(self.parameters())
        for module in self._modules:
            state |= dict.fromkeys([*module._parameters.values(), *module._buffers.values()])
        return [tensor for tensor in state if tensor is not None]

    def _run_first(self, call: _Call) -> Any:
        """The function as it is written, once for each signature: it may create parameters, and shows its modules."""
        if len(self._seen) >= _MAX_SIGNATURES:
            self._warn_full()
            return self.function(*call.args, **call.kwargs)
        with nullcontext() if self._waits else self._unchanged(call), self._noting_modules():
            result = self.function(*call.args, **call.kwargs)
        self._seen.add(self._signature(call))
        return result

    def _trace(self, call: _Call) -> _Record:
        def flat(*tensors: Tensor) -> Any:
            args, kwargs = call.with_tensors(tensors)
            return self.traceable(*args, **kwargs)

        state = self._state()
        with self._unchanged(call):
            recorded = trace(flat, call.tensors + state)
        graph = recorded if self.precision == "float32" else with_bfloat16_products(recorded)
        may_compile = self.compile == "auto" or (self.compile and not self._records)
        return _Record(recorded, graph, state, may_compile)

    def _run(self, record: _Record, call: _Call) -> Any:
        inputs = call.tensors + record.state
        if record.calls < _CHECKED_CALLS:
            self._check(record, call)
        if record.may_compile and (self.compile is True or record.calls >= COMPILE_PAYS_FROM):
            self._compile(record, call)
        record.calls += 1
        with torch.no_grad():
            return record.run(*inputs)

    def _check(self, record: _Record, call: _Call) -> None:
        with self._unchanged(call):
            expected = self.function(*call.args, **call.kwargs)
        with self._unchanged(call), torch.no_grad():
            received = record.trace(*call.tensors, *record.state)
        if not _agree(received, expected, tolerance=1e-5):
            raise NotTraceableError("its trace gives other values than the program itself")

    def _compile(self, record: _Record, call: _Call) -> None:
        """Replace what runs the record by compiled code; where that is impossible the trace goes on being replayed."""
        record.may_compile = False
        inputs = call.tensors + record.state
        is_cuda = any(tensor.is_cuda for tensor in inputs)
        if not is_cuda and not _has_compiler():
            self._note = " (no C++ compiler to compile with)"
            return
        # The random numbers are those of the program; on CUDA all of it is one CUDA graph.
        options: Any = {"fallback_random": True, "triton.cudagraphs": is_cuda}
        try:
            with warnings.catch_warnings(), torch.no_grad():
                from torch import _inductor  # takes a second, and changes the filters of warnings

                warnings.simplefilter("ignore")
                with self._unchanged(call):
                    expected = record.graph(*inputs)
                # Not torch.compile: it would read the graph's Python again, and at each call ask if it still holds.
                compiled = _inductor.compile(record.graph, [tensor.detach() for tensor in inputs], options)
                with self._unchanged(call):
                    received = compiled(*inputs)
        except Exception as error:
            warnings.warn(f"{self.name} is not compiled but replayed from its trace: {one_line(error)}", stacklevel=2)
            return
        if not _agree(received, expected, tolerance=1e-4 if self.precision == "float32" else 5e-2):
            warnings.warn(
                f"{self.name} is not compiled but replayed from its trace: compiled it gives other values.",
                stacklevel=2,
            )
            return
        record.run, record.is_compiled = compiled, True

    def _give_up(self, reason: str) -> None:
        self._traces = False
        self._records.clear()
        self._note = f", because {reason}"
        products = " and with float32 products" if self.precision == "bfloat16" else ""
        warnings.warn(f"{self.name} runs as it is written{products}, not traced, because {reason}.", stacklevel=3)

    def _warn_full(self) -> None:
        if not self._is_full:
            self._is_full = True
            warnings.warn(
                f"{self.name} is traced for the first {_MAX_SIGNATURES} signatures of its arguments only: pass numbers "
                "that change from call to call as tensors.",
                stacklevel=4,
            )

    @contextmanager
    def _noting_modules(self) -> Iterator[None]:
        seen: dict[nn.Module, None] = {}
        hook = register_module_forward_pre_hook(lambda module, inputs: seen.setdefault(module))
        try:
            yield
        finally:
            hook.remove()
            self._add_modules(seen)

    @contextmanager
    def _unchanged(self, call: _Call) -> Iterator[None]:
        """Random state and buffers (running statistics) come back as they were."""
        devices = {tensor.device for tensor in call.tensors + self._state() if tensor.is_cuda}
        buffers = [buffer for module in self._modules for buffer in module._buffers.values() if buffer is not None]
        saved = [buffer.clone() for buffer in buffers]
        try:
            with torch.random.fork_rng(devices=list(devices)):
                yield
        finally:
            with torch.no_grad():
                for buffer, value in zip(buffers, saved, strict=True):
                    buffer.copy_(value)


def _leaf_signature(leaf: Any) -> Hashable:
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device, leaf.requires_grad
    if type(leaf) in _CONSTANTS:
        return type(leaf), leaf
    raise NotTraceableError(f"an argument is of type {type(leaf).__name__}; pass tensors and plain values")


def _agree(received: Any, expected: Any, tolerance: float) -> bool:
    """Whether the tensors are equal up to rounding, measured against the largest value of each."""
    pairs = list(zip(received, expected, strict=True))
    return all(
        (one is None and other is None)
        or (
            one is not None
            and other is not None
            and one.shape == other.shape
            and one.dtype == other.dtype
            and torch.allclose(one, other, rtol=0.0, atol=tolerance * _size(other), equal_nan=True)
        )
        for one, other in pairs
    )


def _size(tensor: Tensor) -> float:
    finite = tensor[tensor.isfinite()].abs()
    return max(1e-6, finite.max().item()) if finite.numel() else 0.0


def _has_compiler() -> bool:
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "c++", "cl"]
    return any(shutil.which(name) for name in names)
