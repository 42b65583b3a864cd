"""Tracing: the computation of a function of tensors, recorded as one flat graph of operations."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributions import Distribution
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from pyro_vae.engine.failures import first_line, users_line
from pyro_vae.support.validation import validating

_ATEN = torch.ops.aten
# If the shape stays the same, these return their argument, in shared memory.
_VIEWS = {_ATEN.view.default, _ATEN.expand.default}
_ALIASES = {_ATEN.alias.default, _ATEN.detach.default}
# Operations on single elements: the result may replace the first argument if nothing else needs it.
_IN_PLACE: dict[Any, Any] = {
    _ATEN.add.Tensor: _ATEN.add_.Tensor,
    _ATEN.sub.Tensor: _ATEN.sub_.Tensor,
    _ATEN.mul.Tensor: _ATEN.mul_.Tensor,
    _ATEN.div.Tensor: _ATEN.div_.Tensor,
    _ATEN.neg.default: _ATEN.neg_.default,
    _ATEN.exp.default: _ATEN.exp_.default,
    _ATEN.log.default: _ATEN.log_.default,
    _ATEN.sigmoid.default: _ATEN.sigmoid_.default,
    _ATEN.tanh.default: _ATEN.tanh_.default,
    _ATEN.relu.default: _ATEN.relu_.default,
}
# The results of these have their own memory.
_FRESH = {
    *_IN_PLACE,
    _ATEN.mm.default,
    _ATEN.addmm.default,
    _ATEN.bmm.default,
    _ATEN.binary_cross_entropy_with_logits.default,
}


class NotTraceableError(Exception):
    """A function that cannot be recorded; the message is the reason, as the end of a sentence."""


def trace(function: Callable[..., Any], inputs: Sequence[Tensor]) -> GraphModule:
    """Record the operations of `function(*inputs)` in evaluation order.

    A replay with the same inputs and the same random state gives the same values bit for bit, and
    draws the same random numbers. Everything besides tensor operations happens once, now. The
    operations are those below autograd, including the derivatives that the function takes. The
    graph cannot be differentiated, so the function takes the derivatives itself.

    Arguments:
        function: takes the inputs and returns a tuple of tensors and `None`s.
        inputs: tensors; the parameters of modules that the function reads should be among them.

    Raises:
        NotTraceableError: if the function reads a tensor's value into Python, or makes shapes that
            depend on values.

    Example:
        >>> from pyro_vae.engine import trace
        >>> graph = trace(lambda x: (x.sin() + 1,), [torch.zeros(2)])
        >>> graph(torch.ones(2))
        (tensor([1.8415, 1.8415]),)
    """
    try:
        with _RefuseReads(), _without_validation(), _one_fake_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = make_fx(function)(*inputs)
    except NotTraceableError:
        raise
    except Exception as error:
        raise NotTraceableError(_reason(error)) from error
    _refuse_dynamic_shapes(graph)
    _simplify(graph)
    return graph


class DetachedReads(TorchFunctionMode):
    """Mode in which `Tensor.item` returns a detached tensor in place of a number.

    An objective that reads a loss into Python gets a tensor in double precision, like a float.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.item:
            value = args[0].detach()
            return value.double() if value.is_floating_point() else value
        return func(*args, **(kwargs or {}))


class _RefuseReads(TorchFunctionMode):
    """Mode that refuses reads into NumPy or lists.

    The graph would keep their values as constants without notice.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.numpy, Tensor.tolist, Tensor.__array__):
            raise NotTraceableError(
                f"it turns a tensor into numbers with .{func.__name__}(){users_line()}"
            )
        return func(*args, **(kwargs or {}))


@contextmanager
def _without_validation() -> Iterator[None]:
    """Leave out checks of arguments, which read values.

    Pyro's setting acts on new distributions only. So the check of samples is also replaced, for
    distributions that were made before.
    """
    validate = Distribution._validate_sample
    Distribution._validate_sample = _accept  # type: ignore[method-assign]
    try:
        with validating(False):
            yield
    finally:
        Distribution._validate_sample = validate  # type: ignore[method-assign]


def _one_fake_mode() -> AbstractContextManager[Any]:
    """Note the shapes of all results in one mode.

    Without it, torch makes a mode for each operation, which takes a third of the time of a trace.
    """
    return tracing(TracingContext(FakeTensorMode()))


def _accept(self: Distribution, value: Tensor) -> None:
    """Accept any value of a distribution."""


def _reason(error: Exception) -> str:
    place = users_line(error)
    if "get value out of a tracing tensor" in str(error):
        return f"its course depends on the value of a tensor{place}"
    if "dynamo-optimized function" in str(error):
        return f"it calls a function that torch.compile has made{place}"
    return f"tracing fails with {type(error).__name__}: {first_line(error)}{place}"


def _refuse_dynamic_shapes(graph: GraphModule) -> None:
    for node in graph.graph.nodes:
        tags = getattr(node.target, "tags", ())
        if torch.Tag.dynamic_output_shape in tags and not _is_plain_indexing(node):
            raise NotTraceableError(
                f"the result of {node.target} has a shape that depends on values"
            )


def _is_plain_indexing(node: Node) -> bool:
    """Return True if the operation selects elements by number and not by a mask."""
    if node.target not in (_ATEN.index.Tensor, _ATEN.index_put_.default, _ATEN.index_put.default):
        return False
    indices: Any = node.args[1]
    return all(
        index is None or index.meta["val"].dtype in (torch.int32, torch.int64) for index in indices
    )


def _simplify(graph: GraphModule) -> None:
    """Remove operations that take time but change nothing.

    They are views of the same shape, results without a user, and allocations.
    """
    for node in graph.graph.nodes:
        if node.target in _ALIASES or (node.target in _VIEWS and _keeps_shape(node)):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code(_has_effect)
    _reuse_memory(graph)
    graph.recompile()


def _reuse_memory(graph: GraphModule) -> None:
    """Write results over arguments that nothing else needs, which saves large allocations."""
    fresh: set[Node] = set()
    for node in graph.graph.nodes:
        if node.target in _FRESH:
            fresh.add(node)
        if node.target in _IN_PLACE and node.args[0] in fresh and _fits(node):
            node.target = _IN_PLACE[node.target]


def _fits(node: Node) -> bool:
    """Return True if the result may be written over the first argument.

    It must have the same shape, strides and dtype, and the argument no other user, such as a view.
    """
    source: Any = node.args[0]
    taken = source.meta["val"]
    needed = node.meta["val"]
    is_like = (
        taken.shape == needed.shape
        and taken.stride() == needed.stride()
        and taken.dtype == needed.dtype
    )
    return is_like and len(source.users) == 1


def _keeps_shape(node: Node) -> bool:
    source: Any = node.args[0]
    return node.meta["val"].shape == source.meta["val"].shape


def _has_effect(node: Node) -> bool:
    """Return True if an operation matters even without a user of its result.

    It writes to a tensor, or it draws random numbers.
    """
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.op in ("placeholder", "output")
    return node.target._schema.is_mutable or torch.Tag.nondeterministic_seeded in node.target.tags
