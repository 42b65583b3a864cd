"""Likelihoods p(x | z)."""

from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.distributions import ContinuousBernoulli
from pyro_vae.parts import Likelihood, Network, Shape, as_shape

# A mean at the edge of the support has an infinite logit: clip it this far inside before taking the link.
_MEAN_MARGIN = 1e-3


def _span(x: Tensor) -> str:
    return f"values from {x.min().item():g} to {x.max().item():g}"


def _bounded_logit(mean: Tensor) -> Tensor:
    return torch.logit(mean, eps=_MEAN_MARGIN)


class BernoulliLikelihood(Likelihood):
    """p(x | z) = Π Bernoulli(x_i; logits_i(z)) for binary x: log p = Σ x_i log λ_i + (1 − x_i) log(1 − λ_i), in nats.

    With `relaxed=True` the same formula also scores grey levels in [0, 1]. That is no density of grey data (it does not
    integrate to one), but many tutorials report it.

    References:
        Auto-encoding variational Bayes, Kingma and Welling, 2013.

    Arguments:
        network: gives the logits: `(N, D)` to `(N, *x_shape)`.
        x_shape: the shape of one row of data.
        relaxed: accept grey levels in [0, 1], scored improperly.

    Example:
        >>> p_x = BernoulliLikelihood(nn.Linear(2, 64), x_shape=(1, 8, 8))(torch.zeros(5, 2))
        >>> p_x.log_prob(torch.ones(5, 1, 8, 8)).shape
        torch.Size([5])
    """

    def __init__(self, network: Network, x_shape: Shape, relaxed: bool = False) -> None:
        super().__init__(network, x_shape)
        self.relaxed = relaxed

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        logits = self.call_network(z, y)
        return dist.Bernoulli(logits=logits, validate_args=False if self.relaxed else None).to_event(len(self.x_shape))

    def check(self, x: Tensor) -> None:
        if self.relaxed and not ((x >= 0) & (x <= 1)).all():
            raise ValueError(f"'x' must lie in [0, 1] for a relaxed BernoulliLikelihood, got {_span(x)}.")
        if not self.relaxed and not ((x == 0) | (x == 1)).all():
            raise ValueError(
                f"'x' must be 0 or 1 for BernoulliLikelihood, got {_span(x)}: binarise the data (the transforms Threshold, "
                "FixedDraw, DynamicDraw), use ContinuousBernoulliLikelihood, or pass relaxed=True to score grey levels "
                "improperly."
            )

    def link(self, mean: Tensor) -> Tensor:
        return _bounded_logit(mean)


class ContinuousBernoulliLikelihood(Likelihood):
    """p(x | z) = Π CB(x_i; logits_i(z)) for grey levels in [0, 1]: a Bernoulli made a density.

    References:
        The continuous Bernoulli: fixing a pervasive error in variational autoencoders, Loaiza-Ganem and Cunningham, 2019.

    Arguments:
        network: gives the logits: `(N, D)` to `(N, *x_shape)`.
        x_shape: the shape of one row of data.

    Example:
        >>> p_x = ContinuousBernoulliLikelihood(nn.Linear(2, 64), x_shape=(1, 8, 8))(torch.zeros(5, 2))
        >>> p_x.event_shape
        torch.Size([1, 8, 8])
    """

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        return ContinuousBernoulli(logits=self.call_network(z, y)).to_event(len(self.x_shape))

    def check(self, x: Tensor) -> None:
        if not ((x >= 0) & (x <= 1)).all():
            raise ValueError(f"'x' must lie in [0, 1] for ContinuousBernoulliLikelihood, got {_span(x)}.")

    def link(self, mean: Tensor) -> Tensor:
        """The logits with this mean, by Newton's method: the mean rises with slope equal to the variance."""
        mean = mean.double().clamp(_MEAN_MARGIN, 1 - _MEAN_MARGIN)
        # −1 / mean near 0 and 1 / (1 − mean) near 1: the exact inverse far out, on the steep side everywhere.
        logits = 1 / (1 - mean) - 1 / mean
        for _ in range(50):
            p_x = ContinuousBernoulli(logits)
            logits = logits - (p_x.mean - mean) / p_x.variance
        return logits


class Scale(nn.Module, ABC):
    """Where the scale of a location-scale likelihood comes from.

    Arguments:
        num_outputs: how many numbers for each element of x it takes from the network.
    """

    def __init__(self, num_outputs: int = 0) -> None:
        super().__init__()
        self.num_outputs = num_outputs

    @abstractmethod
    def forward(self, *outputs: Tensor) -> Tensor | float:
        """A positive scale that broadcasts to `(*, *x_shape)`, from `num_outputs` tensors of that shape."""


class FixedScale(Scale):
    """A scale that is given, not learned.

    Arguments:
        value: the standard deviation, in the units of x.

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

    def __init__(self, shape: tuple[int, ...] = (), init: float = 1.0, min_scale: float = 1e-3) -> None:
        super().__init__()
        if not init > min_scale >= 0:
            raise ValueError(f"'init' of a LearnedScale must be greater than min_scale = {min_scale} >= 0, got {init}.")
        self.min_scale = min_scale
        self.log_scale = nn.Parameter(torch.full(tuple(shape), init - min_scale).log())

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
        return self.min_scale + log_scale.exp()

    def extra_repr(self) -> str:
        return f"min_scale={self.min_scale}"


class NormalLikelihood(Likelihood):
    """p(x | z) = Π N(x_i; loc_i(z), scale_i²) for real x.

    Arguments:
        network: gives loc, and log_scale where `scale` asks for it: `(N, D)` to `(N, 1 or 2, *x_shape)`.
        x_shape: the shape of one row of data.
        scale: a number (fixed), `LearnedScale` (one for all, or one an element) or `NetworkScale` (a function of z).

    Example:
        >>> p_x = NormalLikelihood(nn.Linear(2, 64), x_shape=64, scale=0.1)(torch.zeros(5, 2))
        >>> p_x.log_prob(torch.ones(5, 64)).shape
        torch.Size([5])
    """

    def __init__(self, network: Network, x_shape: Shape, scale: float | Scale = 1.0) -> None:
        scale = scale if isinstance(scale, Scale) else FixedScale(scale)
        super().__init__(network, x_shape, out_shape=(1 + scale.num_outputs, *as_shape(x_shape, "x_shape")))
        self.scale = scale

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        loc, *raw_scale = self.call_network(z, y).unbind(-1 - len(self.x_shape))
        return dist.Normal(loc, self.scale(*raw_scale)).to_event(len(self.x_shape))

    def link(self, mean: Tensor) -> Tensor:
        raw_scale = torch.zeros_like(mean).expand(self.scale.num_outputs, *mean.shape)
        return torch.cat([mean.unsqueeze(0), raw_scale])


class BinomialLikelihood(Likelihood):
    """p(x | z) = Π Binomial(x_i; n, logits_i(z)) for whole levels x_i in 0 … n, such as the grey levels of an image.

    log p = Σ log (n choose x_i) + x_i log λ_i + (n − x_i) log(1 − λ_i), in nats.

    Arguments:
        network: gives the logits: `(N, D)` to `(N, *x_shape)`.
        x_shape: the shape of one row of data.
        total_count: the highest level n.

    Example:
        >>> p_x = BinomialLikelihood(nn.Linear(2, 64), x_shape=(1, 8, 8), total_count=16)(torch.zeros(5, 2))
        >>> p_x.mean.shape
        torch.Size([5, 1, 8, 8])
    """

    def __init__(self, network: Network, x_shape: Shape, total_count: int) -> None:
        super().__init__(network, x_shape)
        (self.total_count,) = as_shape(total_count, "total_count")

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        return dist.Binomial(self.total_count, logits=self.call_network(z, y)).to_event(len(self.x_shape))

    def check(self, x: Tensor) -> None:
        if not ((x >= 0) & (x <= self.total_count) & (x == x.round())).all():
            raise ValueError(
                f"'x' must hold whole levels from 0 to total_count = {self.total_count} for BinomialLikelihood, got "
                f"{_span(x)}."
            )

    def link(self, mean: Tensor) -> Tensor:
        return _bounded_logit(mean / self.total_count)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, total_count={self.total_count}"


class OneHotCategoricalLikelihood(Likelihood):
    """p(x | z) = Π Categorical(x_i; softmax logits_i(z)) for one-hot vectors along the last axis of x.

    Arguments:
        network: gives the logits: `(N, D)` to `(N, *x_shape)`.
        x_shape: the shape of one row of data; its last size is the number of categories.

    Example:
        >>> p_x = OneHotCategoricalLikelihood(nn.Linear(2, 4), x_shape=4)(torch.zeros(5, 2))
        >>> p_x.log_prob(torch.eye(4)[0]).shape
        torch.Size([5])
    """

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        return dist.OneHotCategorical(logits=self.call_network(z, y)).to_event(len(self.x_shape) - 1)

    def check(self, x: Tensor) -> None:
        if not (((x == 0) | (x == 1)).all() and (x.sum(-1) == 1).all()):
            raise ValueError(
                "'x' must be one-hot along its last axis (one 1, zeros elsewhere) for OneHotCategoricalLikelihood, "
                f"got {_span(x)} with sums from {x.sum(-1).min().item():g} to {x.sum(-1).max().item():g}."
            )

    def link(self, mean: Tensor) -> Tensor:
        return mean.clamp(min=_MEAN_MARGIN).log()
