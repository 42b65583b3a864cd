"""Where the scale of a likelihood comes from: a number, a parameter, or the network."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from pyro_vae.finite import HIGHEST_LOG_OF_DATA, soft_ceiling
from pyro_vae.parts import Shape, as_shape


class Scale(nn.Module, ABC):
    """Where a likelihood's scale comes from, or its dispersion where it is one of counts.

    Arguments:
        num_outputs: how many numbers for each element of x it takes from the network.
    """

    def __init__(self, num_outputs: int = 0) -> None:
        super().__init__()
        self.num_outputs = num_outputs

    @abstractmethod
    def forward(self, *outputs: Tensor) -> Tensor | float:
        """A positive scale that broadcasts to `(*, *x_shape)`, from `num_outputs` tensors of that shape."""

    def start(self, mean: Tensor) -> Tensor:
        """The network's numbers for it at the start, `(num_outputs, *x_shape)`, beside a mean of shape `x_shape`."""
        return mean.new_zeros(self.num_outputs, *mean.shape)


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
        if not value > 0:
            raise ValueError(f"'value' of a FixedScale must be greater than 0, got {value}.")
        self.value = value

    def forward(self, *outputs: Tensor) -> float:
        return self.value

    def extra_repr(self) -> str:
        return f"value={self.value}"


class LearnedScale(Scale):
    """A scale that is a parameter of the model and does not depend on z: scale = min_scale + exp(log_scale).

    Arguments:
        shape: the shape of the parameter: `()` for one scale, `x_shape` for one an element, or any that broadcasts to it.
        init: the scale at the start, in the units of x.
        min_scale: the floor; a likelihood with a scale free to reach 0 has no finite maximum.

    Example:
        >>> LearnedScale(shape=(1, 8, 8), init=0.5)().shape
        torch.Size([1, 8, 8])
    """

    def __init__(self, shape: Shape = (), init: float = 1.0, min_scale: float = 1e-3) -> None:
        super().__init__()
        if not init > min_scale >= 0:
            raise ValueError(f"'init' of a LearnedScale must be greater than min_scale = {min_scale} >= 0, got {init}.")
        self.min_scale = min_scale
        sizes = as_shape(shape, "shape") if shape != () else ()
        self.log_scale = nn.Parameter(torch.full(sizes, init - min_scale).log())

    def forward(self, *outputs: Tensor) -> Tensor:
        return self.min_scale + self.log_scale.exp()

    def extra_repr(self) -> str:
        return f"shape={tuple(self.log_scale.shape)}, min_scale={self.min_scale}"


class NetworkScale(Scale):
    """A scale for each element that the network gives beside the location: scale = min_scale + exp(log_scale(z)).

    Arguments:
        min_scale: the floor; a likelihood with a scale free to reach 0 has no finite maximum.

    Example:
        >>> NetworkScale(min_scale=0.1)(torch.zeros(2))
        tensor([1.1000, 1.1000])
    """

    def __init__(self, min_scale: float = 1e-3) -> None:
        super().__init__(num_outputs=1)
        if not min_scale >= 0:
            raise ValueError(f"'min_scale' of a NetworkScale must be 0 or more, got {min_scale}.")
        self.min_scale = min_scale

    def forward(self, *outputs: Tensor) -> Tensor:
        (log_scale,) = outputs
        return self.min_scale + soft_ceiling(log_scale, HIGHEST_LOG_OF_DATA).exp()

    def extra_repr(self) -> str:
        return f"min_scale={self.min_scale}"


def as_scale(scale: float | Scale) -> Scale:
    """The scale; a number stands for one that is fixed."""
    return scale if isinstance(scale, Scale) else FixedScale(scale)
