"""Where the scale of a likelihood comes from: a number, a parameter, or the network."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.parts.finite import HIGHEST_LOG_OF_DATA, held
from pyro_vae.parts.likelihoods.links import fill_in_buffers
from pyro_vae.support.checks import Shape, as_shape, not_negative, positive

# The floor of a scale where nothing is known of the data, in their units.
MIN_SCALE = 1e-3
# Where data do not vary at all the scale starts this share above its floor.
_LEAST_SHARE = 0.1
# So that there is a log even without a floor.
_TINY = 1e-30


class Scale(nn.Module, ABC):
    """Where a likelihood's scale comes from, or its dispersion where it is one of counts.

    A subclass defines `forward`, and `initialize` where it can start from data.

    Arguments:
        num_outputs: how many numbers for each element of x it takes from the network.
    """

    def __init__(self, num_outputs: int = 0) -> None:
        super().__init__()
        self.num_outputs = num_outputs

    @abstractmethod
    def forward(self, *outputs: Tensor) -> Tensor | float:
        """A positive scale that broadcasts to `(*, *x_shape)`, from `num_outputs` tensors of that shape."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        fill_in_buffers(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def start(self, mean: Tensor) -> Tensor:
        """The network's numbers for it at the start, `(num_outputs, *x_shape)`, beside a mean of shape `x_shape`."""
        return mean.new_zeros(self.num_outputs, *mean.shape)

    def initialize(self, scale: Tensor, floor: Tensor | float) -> None:
        """Start at the scale that data have, with a floor that suits their unit, both `x_shape`; here nothing starts."""


class FixedScale(Scale):
    """A scale that is given, not learned.

    Arguments:
        value: the scale, in the units of x (for a Normal its standard deviation); a dispersion has no unit.

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
    """A scale that is a parameter of the model and does not depend on z: scale = floor + exp(log_scale).

    Arguments:
        shape: the shape of the parameter: `()` for one scale, `x_shape` for one an element, or any that broadcasts to it.
        init: the scale at the start, in the units of x; when omitted, that of the training rows where the likelihood starts
            from them, and 1 else.
        min_scale: the floor, in the units of x; a likelihood with a scale free to reach 0 has no finite maximum. When
            omitted, one that suits the training rows where the scale starts from them, and 0.001 else.

    Example:
        >>> LearnedScale(shape=(1, 8, 8), init=0.5)().shape
        torch.Size([1, 8, 8])
    """

    floor: Tensor

    def __init__(self, shape: Shape = (), init: float | None = None, min_scale: float | None = None) -> None:
        super().__init__()
        first = 1.0 if init is None else init
        floor = MIN_SCALE if min_scale is None else min_scale
        if not first > floor >= 0:
            raise ValueError(f"'init' of a LearnedScale must be greater than min_scale = {floor} >= 0, got {first}.")
        self.starts_from_data = init is None
        self.has_own_floor = min_scale is not None
        sizes = as_shape(shape, "shape") if shape != () else ()
        self.log_scale = nn.Parameter(torch.full(sizes, first - floor).log())
        self.register_buffer("floor", torch.tensor(floor).expand(sizes).clone())

    def forward(self, *outputs: Tensor) -> Tensor:
        return self.floor + self.log_scale.exp()

    @torch.no_grad()
    def initialize(self, scale: Tensor, floor: Tensor | float) -> None:
        """Start at the scale that data have; where one stands for many elements, at their root mean square."""
        if self.starts_from_data:
            if not self.has_own_floor:
                self.floor.copy_(_pooled(torch.as_tensor(floor).expand_as(scale), self.floor))
            above = _pooled(scale, self.floor) - self.floor
            self.log_scale.copy_(torch.maximum(above, _LEAST_SHARE * self.floor).clamp(min=_TINY).log())

    def extra_repr(self) -> str:
        return f"shape={tuple(self.log_scale.shape)}, min_scale={self.floor.min().item():g}"


class NetworkScale(Scale):
    """A scale for each element that the network gives beside the location: scale = floor + exp(log_scale(z)).

    Arguments:
        min_scale: the floor, in the units of x; a likelihood with a scale free to reach 0 has no finite maximum. When
            omitted, one that suits the training rows where the likelihood starts from them, and 0.001 else.

    Example:
        >>> NetworkScale(min_scale=0.1)(torch.zeros(2))
        tensor([1.1000, 1.1000])
    """

    floor: Tensor

    def __init__(self, min_scale: float | None = None) -> None:
        super().__init__(num_outputs=1)
        floor = MIN_SCALE if min_scale is None else min_scale
        not_negative(floor, "min_scale", of=self)
        self.has_own_floor = min_scale is not None
        self.register_buffer("floor", torch.tensor(floor))

    def forward(self, *outputs: Tensor) -> Tensor:
        (log_scale,) = outputs
        return self.floor + held(log_scale, HIGHEST_LOG_OF_DATA).exp()

    @torch.no_grad()
    def initialize(self, scale: Tensor, floor: Tensor | float) -> None:
        """Take the least floor of all elements."""
        if not self.has_own_floor:
            self.floor.copy_(torch.as_tensor(floor).min())

    def extra_repr(self) -> str:
        return f"min_scale={self.floor.item():g}"


def _pooled(scale: Tensor, like: Tensor) -> Tensor:
    """The root mean square of the scale over those elements that share a number of `like`."""
    square = scale.double() ** 2
    while square.dim() > like.dim():
        square = square.mean(0)
    shared = [dim for dim in range(like.dim()) if like.shape[dim] == 1]
    return (square.mean(shared, keepdim=True) if shared else square).sqrt().to(like)


def as_scale(scale: float | Scale) -> Scale:
    """The scale; a number stands for one that is fixed."""
    return scale if isinstance(scale, Scale) else FixedScale(scale)
