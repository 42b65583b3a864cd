"""Likelihoods of x with a finite number of levels: binary, whole or one-hot."""

import math
from abc import ABC

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.distributions.densities import DiscretizedLogistic
from pyro_vae.distributions.gamma_family import Binomial
from pyro_vae.parts.contracts import EncoderInputFactory, Likelihood, Network
from pyro_vae.parts.encoder_inputs import AsIs
from pyro_vae.parts.finite import HIGHEST_LOG, held
from pyro_vae.parts.likelihoods.links import (
    MEAN_MARGIN,
    bounded_logit,
    found,
    solve_increasing,
    span,
    way_into_unit_interval,
)
from pyro_vae.support.checks import Shape, as_shape, flag, positive, whole

# The scale of a discretised logistic at the start of training, if the levels span [−1, 1]. It is
# close to the spread of pixels in images.
_START_SCALE = 0.3
# Beyond this n, rounding of n λ in single precision shows in log p.
_MAX_COUNT = 2**16
# A loc this many scales beyond an end level has a mean closer than MEAN_MARGIN to that level.
_REACH = 10.0
# Advice on grey levels in [0, 1] where x must be binary.
_FOR_GREY_LEVELS = (
    "binarise the data (the transforms Threshold, FixedDraw, DynamicDraw), use "
    "ContinuousBernoulliLikelihood, or pass relaxed=True to score grey levels improperly"
)


class BernoulliLikelihood(Likelihood):
    """p(x | z) = Π Bernoulli(x_i; logits_i(z)) for binary x.

    log p = Σ x_i log λ_i + (1 − x_i) log(1 − λ_i), in nats. With `relaxed=True` the same formula
    also scores grey levels in [0, 1]. It is then no density, since it does not integrate to one,
    but many tutorials report it.

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
        self.relaxed = flag(relaxed, "relaxed")

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        logits = self.call_network(z, y)
        validate_args = False if self.relaxed else None
        p_x = dist.Bernoulli(logits=logits, validate_args=validate_args)
        return p_x.to_event(len(self.x_shape))

    @property
    def encoder_input(self) -> EncoderInputFactory:
        """Input that leaves x as it is."""
        return AsIs

    def check(self, x: Tensor) -> None:
        is_inside = bool(((x >= 0) & (x <= 1)).all())
        if self.relaxed and not is_inside:
            raise ValueError(
                f"'x' must lie in [0, 1] for a relaxed BernoulliLikelihood, got {span(x)}: "
                f"{way_into_unit_interval(x)}."
            )
        if not self.relaxed and not ((x == 0) | (x == 1)).all():
            received = found(x, 0, 1) if is_inside else span(x)
            advice = _FOR_GREY_LEVELS if is_inside else way_into_unit_interval(x)
            raise ValueError(
                f"'x' must be 0 or 1 for BernoulliLikelihood, got {received}: {advice}."
            )

    def link(self, mean: Tensor) -> Tensor:
        return bounded_logit(mean)

    @property
    def mean_bounds(self) -> tuple[float, float]:
        return 0.0, 1.0


class BinomialLikelihood(Likelihood):
    """p(x | z) = Π Binomial(x_i; n, logits_i(z)) for whole levels x_i in 0 … n.

    It suits the grey levels of an image. In nats,
    log p = Σ log (n choose x_i) + x_i log λ_i + (n − x_i) log(1 − λ_i).

    Arguments:
        network: gives the logits: `(N, D)` to `(N, *x_shape)`.
        x_shape: the shape of one row of data.
        total_count: the highest level n, at most 2^16.

    Example:
        >>> likelihood = BinomialLikelihood(nn.Linear(2, 64), x_shape=(1, 8, 8), total_count=16)
        >>> likelihood(torch.zeros(5, 2)).mean.shape
        torch.Size([5, 1, 8, 8])
    """

    def __init__(self, network: Network, x_shape: Shape, total_count: int) -> None:
        super().__init__(network, x_shape)
        self.total_count = whole(total_count, "total_count")
        if self.total_count > _MAX_COUNT:
            raise ValueError(
                f"'total_count' of BinomialLikelihood must be at most {_MAX_COUNT}, where single "
                f"precision tells its levels apart, got {total_count}: divide the levels."
            )

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        p_x = Binomial(self.total_count, logits=self.call_network(z, y))
        return p_x.to_event(len(self.x_shape))

    def check(self, x: Tensor) -> None:
        if not ((x >= 0) & (x <= self.total_count) & (x == x.round())).all():
            raise ValueError(
                f"'x' must hold whole levels from 0 to total_count = {self.total_count} for "
                f"BinomialLikelihood, got {found(x, 0, self.total_count)}."
            )

    @property
    def mean_bounds(self) -> tuple[float, float]:
        return 0.0, self.total_count

    def link(self, mean: Tensor) -> Tensor:
        return bounded_logit(mean / self.total_count)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, total_count={self.total_count}"


class OneHotCategoricalLikelihood(Likelihood):
    """p(x | z) = Π Categorical(x_i; softmax logits_i(z)) for x one-hot along its last axis.

    Arguments:
        network: gives the logits: `(N, D)` to `(N, *x_shape)`.
        x_shape: the shape of one row of data; its last size is the number of categories.

    Example:
        >>> p_x = OneHotCategoricalLikelihood(nn.Linear(2, 4), x_shape=4)(torch.zeros(5, 2))
        >>> p_x.log_prob(torch.eye(4)[0]).shape
        torch.Size([5])
    """

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        p_x = dist.OneHotCategorical(logits=self.call_network(z, y))
        return p_x.to_event(len(self.x_shape) - 1)

    @property
    def encoder_input(self) -> EncoderInputFactory:
        """Input that leaves x as it is."""
        return AsIs

    @property
    def filler(self) -> Tensor:
        """First unit vector."""
        return torch.eye(self.x_shape[-1], 1).squeeze(1)

    def check(self, x: Tensor) -> None:
        sums = x.sum(-1)
        if not (((x == 0) | (x == 1)).all() and (sums == 1).all()):
            raise ValueError(
                "'x' must be one-hot along its last axis (one 1, zeros elsewhere) for "
                f"OneHotCategoricalLikelihood, got {found(x, 0, 1)} with sums from "
                f"{sums.min().item():g} to {sums.max().item():g}."
            )

    def link(self, mean: Tensor) -> Tensor:
        return mean.clamp(min=MEAN_MARGIN).log()

    @property
    def mean_bounds(self) -> tuple[float, float]:
        return 0.0, 1.0


class _LogisticLevelsLikelihood(Likelihood, ABC):
    """Base of the discretised logistics on levels 0 … L − 1, with L = num_levels.

    The network gives loc and scale in units in which the levels span [−1, 1]:
    loc = (L − 1) / 2 · (1 + raw_loc) and scale = (L − 1) / 2 · (min_scale + exp(log_scale)).
    """

    def __init__(
        self,
        network: Network,
        x_shape: Shape,
        numbers: tuple[int, ...],
        num_levels: int,
        min_scale: float,
    ) -> None:
        super().__init__(network, x_shape, out_shape=(*numbers, *as_shape(x_shape, "x_shape")))
        self.num_levels = whole(num_levels, "num_levels", least=2)
        self.min_scale = positive(min_scale, "min_scale", of=self)

    def logistic(self, raw_loc: Tensor, log_scale: Tensor) -> DiscretizedLogistic:
        """Return the distribution of each element from the network's outputs for it."""
        half = (self.num_levels - 1) / 2
        scale = self.min_scale + held(log_scale, HIGHEST_LOG).exp()
        return DiscretizedLogistic(half * (1 + raw_loc), half * scale, self.num_levels)

    def start(self, mean: Tensor, offsets: Tensor) -> Tensor:
        """Return raw_loc and log_scale, `(2, K, *x_shape)`, of K logistics with this mean.

        The K logistics lie at the offsets, `(K,)`, around a common raw_loc. Their means average to
        the mean.
        """
        highest = self.num_levels - 1
        mean = mean.double().clamp(MEAN_MARGIN * highest, (1 - MEAN_MARGIN) * highest)
        offsets = offsets.to(mean).reshape(-1, *[1] * mean.dim())
        log_scale = torch.full_like(mean, math.log(_START_SCALE))
        edge = torch.full_like(mean, 1 + _REACH * (self.min_scale + _START_SCALE))

        def mean_at(raw_loc: Tensor) -> Tensor:
            return self.logistic(raw_loc + offsets, log_scale).mean.mean(0)

        middle = solve_increasing(mean_at, mean, -edge, edge)
        return torch.stack(torch.broadcast_tensors(middle + offsets, log_scale))

    def check(self, x: Tensor) -> None:
        if not ((x >= 0) & (x < self.num_levels) & (x == x.round())).all():
            raise ValueError(
                f"'x' must hold whole levels from 0 to num_levels - 1 = {self.num_levels - 1} for "
                f"{type(self).__name__}, got {found(x, 0, self.num_levels - 1)}: the transform "
                "Identity keeps levels as they are stored."
            )

    @property
    def mean_bounds(self) -> tuple[float, float]:
        return 0.0, self.num_levels - 1.0

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_levels={self.num_levels}"


class DiscretizedLogisticLikelihood(_LogisticLevelsLikelihood):
    """p(x | z) = Π P(x_i; loc_i(z), scale_i(z)), logistics rounded to levels 0 … L − 1.

    P(k) = σ((k + ½ − loc) / scale) − σ((k − ½ − loc) / scale). The end levels also have the
    probability beyond them. In units in which the levels span [−1, 1],
    loc = (L − 1) / 2 · (1 + raw_loc) and scale = (L − 1) / 2 · (min_scale + exp(log_scale)).

    References:
        PixelCNN++: improving the PixelCNN with discretized logistic mixture likelihood and other
            modifications, Salimans et al., 2017. Deviation: min_scale is added to the scale; they
            clip its log at −7.

    Arguments:
        network: gives raw_loc and log_scale: `(N, D)` to `(N, 2, *x_shape)`.
        x_shape: the shape of one row of data.
        num_levels: the number L of levels, such as 256.
        min_scale: the floor of the scale, in units in which the levels span [−1, 1].

    Example:
        >>> network = nn.Linear(2, 2 * 64)
        >>> likelihood = DiscretizedLogisticLikelihood(network, x_shape=(1, 8, 8), num_levels=17)
        >>> likelihood(torch.zeros(5, 2)).log_prob(torch.full((1, 8, 8), 16.0)).shape
        torch.Size([5])
    """

    def __init__(
        self, network: Network, x_shape: Shape, num_levels: int = 256, min_scale: float = 1e-3
    ) -> None:
        super().__init__(network, x_shape, (2,), num_levels, min_scale)

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        raw_loc, log_scale = self.call_network(z, y).unbind(-1 - len(self.x_shape))
        return self.logistic(raw_loc, log_scale).to_event(len(self.x_shape))

    def link(self, mean: Tensor) -> Tensor:
        return self.start(mean, torch.zeros(1)).squeeze(1)


class DiscretizedLogisticMixtureLikelihood(_LogisticLevelsLikelihood):
    """p(x | z) = Π Σ_k π_ik(z) P(x_i; loc_ik(z), scale_ik(z)), mixtures of K rounded logistics.

    The levels are 0 … L − 1. P is that of `DiscretizedLogisticLikelihood`, and
    π_i = softmax logits_i(z).

    References:
        PixelCNN++: improving the PixelCNN with discretized logistic mixture likelihood and other
            modifications, Salimans et al., 2017. Deviation: given z, the colours of a pixel are
            independent.

    Arguments:
        network: gives logits, raw_loc and log_scale: `(N, D)` to `(N, 3, K, *x_shape)`.
        x_shape: the shape of one row of data.
        num_levels: the number L of levels, such as 256.
        min_scale: the floor of the scales, in units in which the levels span [−1, 1].
        num_components: the number K of logistics for each element.

    Example:
        >>> network = nn.Linear(2, 3 * 5 * 64)
        >>> likelihood = DiscretizedLogisticMixtureLikelihood(network, x_shape=(1, 8, 8))
        >>> likelihood(torch.zeros(5, 2)).log_prob(torch.full((1, 8, 8), 255.0)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        network: Network,
        x_shape: Shape,
        num_levels: int = 256,
        min_scale: float = 1e-3,
        num_components: int = 5,
    ) -> None:
        count = whole(num_components, "num_components")
        super().__init__(network, x_shape, (3, count), num_levels, min_scale)
        self.num_components = count

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        event_dim = len(self.x_shape)
        outputs = self.call_network(z, y).movedim(-1 - event_dim, -1)
        logits, raw_loc, log_scale = outputs.unbind(-2 - event_dim)
        components = self.logistic(raw_loc, log_scale)
        p_x = dist.MixtureSameFamily(dist.Categorical(logits=logits), components)
        return p_x.to_event(event_dim)

    def link(self, mean: Tensor) -> Tensor:
        """Return outputs with equal weights, and locs spread evenly over one scale on each side.

        Components with different locs can move apart.
        """
        count = self.num_components
        offsets = _START_SCALE * (2 * torch.arange(count) + 1 - count) / count
        outputs = self.start(mean, offsets)
        return torch.cat([torch.zeros_like(outputs[:1]), outputs])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_components={self.num_components}"
