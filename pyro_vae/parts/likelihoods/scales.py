"""Scales of likelihoods: a number, a parameter, or an output of the network."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.parts.finite import HIGHEST_LOG_OF_DATA, held
from pyro_vae.parts.likelihoods.links import fill_in_buffers
from pyro_vae.support.checks import (
    Shape,
    as_real,
    as_shape,
    described,
    not_negative,
    positive,
    real,
    whole,
    with_article,
)

# The floor of a scale if nothing is known of the data, in the units of x.
MIN_SCALE = 1e-3
# If the data do not vary, the scale starts above its floor by this share of the floor.
_LEAST_SHARE = 0.1
# The least excess over the floor, so that its log exists even with a floor of 0.
_TINY = 1e-30


class Scale(nn.Module, ABC):
    """Source of a likelihood's scale, or of the dispersion of a likelihood of counts.

    A subclass defines `forward`, and `initialize` if it can start from data.

    Arguments:
        num_outputs: the number of network outputs that it takes for each element of x.

    Attributes:
        context_dim: the number Y of context numbers that it takes, as a `ContextScale` does.
    """

    context_dim: int = 0

    def __init__(self, num_outputs: int = 0) -> None:
        super().__init__()
        self.num_outputs = whole(num_outputs, "num_outputs", least=0)

    @abstractmethod
    def forward(self, *outputs: Tensor) -> Tensor | float:
        """Return a positive scale that broadcasts to `(*, *x_shape)`.

        Arguments:
            outputs: `num_outputs` tensors of the shape `(*, *x_shape)`.
        """

    def at(self, outputs: Sequence[Tensor], y: Tensor | None) -> Tensor | float:
        """Return the scale for outputs of the network and a context.

        Arguments:
            outputs: `num_outputs` tensors of the shape `(*, *x_shape)`.
            y: the context, `(*, Y)`; None for none.
        """
        return self(*outputs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        fill_in_buffers(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def problem_of(self, scale: object, x_shape: torch.Size) -> str | None:
        """Return in words what is wrong with a scale for rows of a shape, or None."""
        accepted = f"must return numbers above 0 that broadcast to (rows, {_listed(x_shape)})"
        if not isinstance(scale, Tensor):
            number = as_real(scale)
            is_right = number is not None and number > 0
            return None if is_right else f"{accepted}, got {described(scale)}"
        trailing = scale.shape[-len(x_shape) :]
        pairs = zip(reversed(trailing), reversed(x_shape), strict=False)
        if not all(size in (1, full) for size, full in pairs):
            return f"{accepted}, got the shape {tuple(scale.shape)}"
        wrong = scale[~(scale > 0)]
        return f"{accepted}, got {wrong[0].item():.3g}" if wrong.numel() else None

    def start(self, mean: Tensor) -> Tensor:
        """Return the network's outputs for the scale at the start, `(num_outputs, *x_shape)`.

        Arguments:
            mean: the mean of x at the start, `x_shape`.
        """
        return mean.new_zeros(self.num_outputs, *mean.shape)

    def initialize(self, scale: Tensor, floor: Tensor | float) -> None:
        """Start at the scale of the data; do nothing by default.

        Arguments:
            scale: the scale of the data, `x_shape`.
            floor: a floor that suits their unit, a number or `x_shape`.
        """


class FixedScale(Scale):
    """Scale that is given, not learned.

    Arguments:
        value: the scale, in the units of x (for a Normal the standard deviation); a dispersion has
            no unit.

    Example:
        >>> FixedScale(0.1)
        FixedScale(value=0.1)
    """

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.value = positive(value, "value", of=self)

    def forward(self, *outputs: Tensor) -> float:
        return self.value

    def extra_repr(self) -> str:
        return f"value={self.value}"


class LearnedScale(Scale):
    """Scale that is a parameter, the same for all z: scale = floor + exp(log_scale).

    Arguments:
        shape: the shape of the parameter: `()` for one scale, `x_shape` for one for each element,
            or any shape that broadcasts to `x_shape`.
        init: the scale at the start, in the units of x. When omitted, it is that of the training
            rows if the likelihood starts from them, and 1 if not.
        min_scale: the floor, in the units of x; with a scale free to reach 0 the likelihood has no
            finite maximum. When omitted, it suits the training rows if the scale starts from them,
            and is 0.001 if not.

    Raises:
        ValueError: if `init` is not greater than the floor, or the floor is negative.

    Example:
        >>> LearnedScale(shape=(1, 8, 8), init=0.5)().shape
        torch.Size([1, 8, 8])
    """

    floor: Tensor

    def __init__(
        self, shape: Shape = (), init: float | None = None, min_scale: float | None = None
    ) -> None:
        super().__init__()
        first = 1.0 if init is None else real(init, "init", of=self)
        floor = MIN_SCALE if min_scale is None else real(min_scale, "min_scale", of=self)
        if not first > floor >= 0:
            raise ValueError(
                f"'init' of a LearnedScale must be greater than min_scale = {floor} >= 0, got "
                f"{first}."
            )
        self.starts_from_data = init is None
        self.has_own_floor = min_scale is not None
        sizes = as_shape(shape, "shape")
        self.log_scale = nn.Parameter(torch.full(sizes, first - floor).log())
        self.register_buffer("floor", torch.tensor(floor).expand(sizes).clone())

    def forward(self, *outputs: Tensor) -> Tensor:
        return self.floor + self.log_scale.exp()

    @torch.no_grad()
    def initialize(self, scale: Tensor, floor: Tensor | float) -> None:
        """Start at the scale of the data, or at the root mean square of those that share one."""
        if not self.starts_from_data:
            return
        if not self.has_own_floor:
            self.floor.copy_(_pooled(torch.as_tensor(floor).expand_as(scale), self.floor))
        above = _pooled(scale, self.floor) - self.floor
        above = torch.maximum(above, _LEAST_SHARE * self.floor).clamp(min=_TINY)
        self.log_scale.copy_(above.log())

    def extra_repr(self) -> str:
        return f"shape={tuple(self.log_scale.shape)}, min_scale={self.floor.min().item():g}"


class NetworkScale(Scale):
    """Scale of each element from the network: scale = floor + exp(log_scale(z)).

    Arguments:
        min_scale: the floor, in the units of x; with a scale free to reach 0 the likelihood has no
            finite maximum. When omitted, it suits the training rows if the likelihood starts from
            them, and is 0.001 if not.

    Example:
        >>> NetworkScale(min_scale=0.1)(torch.zeros(2))
        tensor([1.1000, 1.1000])
    """

    floor: Tensor

    def __init__(self, min_scale: float | None = None) -> None:
        super().__init__(num_outputs=1)
        floor = MIN_SCALE if min_scale is None else min_scale
        floor = not_negative(floor, "min_scale", of=self)
        self.has_own_floor = min_scale is not None
        self.register_buffer("floor", torch.tensor(floor))

    def forward(self, *outputs: Tensor) -> Tensor:
        (log_scale,) = outputs
        return self.floor + held(log_scale, HIGHEST_LOG_OF_DATA).exp()

    @torch.no_grad()
    def initialize(self, scale: Tensor, floor: Tensor | float) -> None:
        """Take the least floor of all elements, if none was given."""
        if not self.has_own_floor:
            self.floor.copy_(torch.as_tensor(floor).min())

    def extra_repr(self) -> str:
        return f"min_scale={self.floor.item():g}"


class ContextScale(Scale):
    """Scale of each element in each context: scale = floor + exp(Σ_c y_c log_scale_c).

    For a one-hot y, such as a batch, it is the scale of that context.

    Arguments:
        context_dim: the number Y of context numbers.
        shape: the shape of the scales of a context, an axis for each axis of a row; elements share
            a scale along an axis of size 1.
        init: the scale at the start, as for `LearnedScale`.
        min_scale: the floor, as for `LearnedScale`.

    Example:
        >>> scale = ContextScale(context_dim=4, shape=64, init=0.5)
        >>> scale.at([], torch.eye(4)).shape
        torch.Size([4, 64])
    """

    def __init__(
        self,
        context_dim: int,
        shape: Shape,
        init: float | None = None,
        min_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.context_dim = whole(context_dim, "context_dim")
        sizes = as_shape(shape, "shape", least_axes=1)
        self.by_context = LearnedScale((self.context_dim, *sizes), init, min_scale)

    def at(self, outputs: Sequence[Tensor], y: Tensor | None) -> Tensor | float:
        if y is None:
            raise ValueError(
                f"'y' must have {self.context_dim} numbers a row for a ContextScale, got none."
            )
        return self(y)

    def forward(self, *outputs: Tensor) -> Tensor:
        (y,) = outputs
        learned = self.by_context
        log_scale = torch.tensordot(y, learned.log_scale, dims=1)
        return learned.floor[0] + log_scale.exp()

    @torch.no_grad()
    def initialize(self, scale: Tensor, floor: Tensor | float) -> None:
        """Start each context at the scale of the data."""
        self.by_context.initialize(scale.expand(self.context_dim, *scale.shape), floor)

    def extra_repr(self) -> str:
        return f"context_dim={self.context_dim}"


def _pooled(scale: Tensor, parameter: Tensor) -> Tensor:
    """Return the root mean square of the scale over elements that share a number of `parameter`."""
    square = scale.double() ** 2
    while square.dim() > parameter.dim():
        square = square.mean(0)
    shared = [dim for dim in range(parameter.dim()) if parameter.shape[dim] == 1]
    if shared:
        square = square.mean(shared, keepdim=True)
    return square.sqrt().to(parameter)


def as_scale(scale: float | Scale, name: str) -> Scale:
    """Return the scale; a number becomes a `FixedScale`.

    Arguments:
        scale: the scale.
        name: the argument that an error names.

    Raises:
        ValueError: if it is neither a `Scale` nor a number above 0.
    """
    if isinstance(scale, Scale):
        if not hasattr(scale, "num_outputs"):
            raise ValueError(
                f"'{name}', {with_article(type(scale).__name__)}, must call super().__init__() of "
                "Scale in its own __init__."
            )
        return scale
    number = real(
        scale,
        name,
        holds=lambda number: 0 < number < math.inf,
        accepted="be a finite number greater than 0, or a Scale such as LearnedScale()",
    )
    return FixedScale(number)


def with_scale(context_dim: int, scale: Scale, name: str) -> int:
    """Return the size of the context that a network and a scale take together.

    Arguments:
        context_dim: the size that the network takes; 0 for none.
        scale: the scale.
        name: the argument that an error names.

    Raises:
        ValueError: if both take a context, of two sizes.
    """
    sizes = {context_dim, scale.context_dim} - {0}
    if len(sizes) > 1:
        raise ValueError(
            f"'{name}' must take a context y of {context_dim}, as the network, got a scale for one "
            f"of {scale.context_dim}."
        )
    return max(sizes, default=0)


def _listed(shape: torch.Size) -> str:
    return ", ".join(map(str, shape))
