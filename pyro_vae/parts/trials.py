"""Trial of a part: two rows of zeros pass through it when a VAE is made."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.parts.contracts import ContractError, EncoderInput
from pyro_vae.support.checks import described, one_line, with_article
from pyro_vae.support.invalid_parameters import InvalidParameterError
from pyro_vae.support.modules import evaluating, tensor_like

# Characters of another library's message that an error repeats.
_MOST_REPEATED = 160
# Draws in front of the rows that a likelihood must take.
_NUM_DRAWS = 3


@torch.no_grad()
def example(part: Any, in_shape: torch.Size | None, context_dim: int) -> Any:
    """Return the distribution that a part gives for two rows of zeros."""
    return _zeros_through(part, in_shape, context_dim, tensor_like(part))


def check_part(
    name: str,
    part: Any,
    in_shape: torch.Size | None,
    event_shape: torch.Size,
    context_dim: int,
    like: Tensor,
    takes_draws: bool = False,
) -> None:
    """Refuse a part that makes no distribution of the right shape from two rows of zeros.

    Arguments:
        name: its role in the VAE.
        part: the part.
        in_shape: the shape of one row of its inputs; None for a part without.
        event_shape: the event shape of its distribution.
        context_dim: the size of the context that it is given; 0 for none.
        like: a tensor of the dtype and device that the VAE works with.
        takes_draws: True if its inputs can have an axis of draws in front of the rows.

    Raises:
        ValueError: if it fails, or returns anything else.
    """
    title = f"'{name}', {_class_of(part)},"
    _check_signature(title, part, in_shape is not None)
    if like.is_meta:  # a part without numbers cannot be tried
        return
    for num_draws in (0, _NUM_DRAWS) if takes_draws else (0,):
        run = partial(_zeros_through, part, in_shape, context_dim, like, num_draws)
        accepted = f"{title} must make a distribution{_source(in_shape, num_draws)}"
        p = _distribution(accepted, part, run, like)
        _check_distribution(title, p)
        rows = (num_draws, 2) if num_draws else (2,)
        batch_shapes = [rows] if in_shape is not None else [(), rows] if context_dim else [()]
        if tuple(p.batch_shape) not in batch_shapes or p.event_shape != event_shape:
            fault = _fault(part, run)
            if fault is not None:
                raise ValueError(f"{accepted}, but {fault}.")
            raise ValueError(_wrong_shape(title, p, batch_shapes[-1], event_shape))


def _source(in_shape: torch.Size | None, num_draws: int) -> str:
    if in_shape is None:
        return ""
    draws = f" with {num_draws} draws in front, as call_network(z, y) does" if num_draws else ""
    return f" from rows of the shape {tuple(in_shape)}{draws}"


def _check_distribution(title: str, value: Any) -> None:
    if isinstance(value, TorchDistributionMixin):
        return
    received = described(value)
    if isinstance(value, Distribution):
        received = f"{_class_of(value)} of torch: take that of pyro.distributions"
    raise ValueError(f"{title} must return a Pyro distribution, got {received}.")


def _zeros_through(
    part: Any, in_shape: torch.Size | None, context_dim: int, like: Tensor, num_draws: int = 0
) -> Any:
    leading = (num_draws, 2) if num_draws else (2,)
    rows = () if in_shape is None else (like.new_zeros(*leading, *in_shape),)
    offset_dim = getattr(part, "offset_dim", 0)
    size = part.context_dim + offset_dim if offset_dim else context_dim
    y = like.new_zeros(2, size) if size else None
    with evaluating(part):
        return part(*rows, y)


def _distribution(accepted: str, part: nn.Module, run: Callable[[], Any], like: Tensor) -> Any:
    """Return what a part gives, or raise one sentence on what fails in it."""
    try:
        return run()
    except ContractError:
        raise
    except Exception as error:  # whatever a class of the user raises: the cause is kept
        own = tensor_like(part).dtype
        if own != like.dtype:
            raise ValueError(
                f"{accepted} of the dtype {like.dtype} of the other parts, got weights of {own}."
            ) from error
        fault = _fault(part, run)
        if fault is None and isinstance(error, InvalidParameterError):
            raise
        raise ValueError(f"{accepted}, but {fault or f'fails: {_reason(error)}'}.") from error


def _check_signature(title: str, part: nn.Module, has_rows: bool) -> None:
    """Refuse a `forward` that cannot be called with the rows and the context."""
    arguments = (None, None) if has_rows else (None,)
    try:
        signature(part.forward).bind(*arguments)
    except TypeError:
        wanted = f"{part._given}, y=None" if has_rows else "y=None"
        names = ", ".join(signature(part.forward).parameters)
        raise ValueError(f"{title} must define forward(self, {wanted}), got ({names}).") from None


def _wrong_shape(title: str, p: Any, batch: tuple[int, ...], event: torch.Size) -> str:
    missing = len(event) - len(p.event_shape)
    is_undeclared = missing > 0 and tuple(p.batch_shape + p.event_shape) == (*batch, *event)
    advice = f": add .to_event({missing})" if is_undeclared else ""
    return (
        f"{title} must return a distribution with the batch shape {batch} and the event shape "
        f"{tuple(event)}, got {tuple(p.batch_shape)} and {tuple(p.event_shape)}{advice}."
    )


def _fault(part: nn.Module, run: Callable[[], Any]) -> str | None:
    """Run a part again, and return in words the first of its modules that fails, or None."""
    watch = _Watch(part)
    handles = []
    for name, module in part.named_modules():
        if name and not isinstance(module, torch.jit.ScriptModule):
            handles += watch.hooks(name, module)
    try:
        run()
    except Exception as error:
        watch.failed(error)
    finally:
        for handle in handles:
            handle.remove()
    return watch.fault


@dataclass
class _Watch:
    """Record of the modules that a part calls, and of the first fault among them."""

    part: nn.Module
    fault: str | None = None
    running: list[tuple[str, nn.Module, Any]] = field(default_factory=list)

    def hooks(self, name: str, module: nn.Module) -> list[Any]:
        def enter(module: nn.Module, args: Any) -> None:
            self.running.append((name, module, args))

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            self.running.pop()
            self._look_at(name, module, args, output)

        return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]

    def failed(self, error: Exception) -> None:
        """Name the innermost module that was running."""
        if self.fault is None and self.running and not isinstance(error, ContractError):
            name, module, args = self.running[-1]
            inputs = _inputs_in_words(args)
            reason = _reason_in(module, args, error)
            self.fault = f"its {self._title(name, module)}, fails{inputs}: {reason}"

    def _look_at(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        if self.fault is not None:
            return
        problem = None
        problem_of: Any = getattr(module, "problem_of", None)
        if problem_of is not None:  # a Scale
            owner = self.part.get_submodule(name.rpartition(".")[0])
            problem = problem_of(output, owner.x_shape)
        elif _is_finite(*args) and not _is_finite(output):
            problem = f"gives {_first_not_finite(output)}{_inputs_in_words(args)}"
        if problem is not None:
            self.fault = f"its {self._title(name, module)}, {problem}"

    def _title(self, name: str, module: nn.Module) -> str:
        behind = [
            type(other).__name__
            for prefix, other in self.part.named_modules()
            if isinstance(other, EncoderInput) and name.startswith(f"{prefix}.")
        ]
        place = f" behind {with_article(behind[-1])}" if behind else ""
        return f"'{name}', {_class_of(module)}{place}"


def _is_finite(*values: Any) -> bool:
    tensors = [value for value in values if isinstance(value, Tensor)]
    return all(bool(value.isfinite().all()) for value in tensors)


def _first_not_finite(value: Tensor) -> str:
    return "NaN" if value.isnan().any() else "infinity"


def _inputs_in_words(args: Any) -> str:
    shapes = [str(tuple(each.shape)) for each in args if isinstance(each, Tensor)]
    return f" for an input of the shape {' and '.join(shapes)}" if shapes else ""


def _reason_in(module: nn.Module, args: Any, error: Exception) -> str:
    """Return the reason of a failure; for a linear layer in numbers that the user knows."""
    is_linear = isinstance(module, nn.Linear) and args and isinstance(args[0], Tensor)
    if not is_linear or args[0].shape[-1:] == (module.in_features,):
        return _reason(error)
    flat = args[0].shape[1:].numel() == module.in_features
    advice = ", so put nn.Flatten() in front" if flat else ""
    return f"it takes {module.in_features} numbers a row{advice}"


def _reason(error: Exception) -> str:
    """Return the first line of another library's message, with the class if that says more."""
    first = str(error).partition("\n")[0]
    message = one_line(first) if first.strip() else type(error).__name__
    if len(message) > _MOST_REPEATED:
        message = f"{message[:_MOST_REPEATED]}…"
    is_plain = isinstance(error, RuntimeError | TypeError | ValueError) or not first.strip()
    return (message if is_plain else f"{type(error).__name__}: {message}").rstrip(".")


def _class_of(value: object) -> str:
    return with_article(type(value).__name__)
