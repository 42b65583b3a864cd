"""Likelihoods of numbers in the unit interval."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.distributions.densities import ContinuousBernoulli
from pyro_vae.distributions.gamma_family import Beta
from pyro_vae.parts.contracts import EncoderInputFactory, Likelihood, Network
from pyro_vae.parts.encoder_inputs import AsIs
from pyro_vae.parts.likelihoods.links import MEAN_MARGIN, span, way_into_unit_interval
from pyro_vae.support.checks import Shape, as_shape, real

# Added to both concentrations, since they must not underflow to 0.
_MIN_CONCENTRATION = 1e-3
# Beyond this precision, rounding of a and b in single precision shows in log p.
_MAX_PRECISION = 1e5
# The precision at the start of training: with the mean ½ it is close to uniform.
_START_PRECISION = 2.0
# Advice on values in [0, 1] where the ends are left out.
_FOR_ENDS = "the transform OpenUnitInterval moves levels inside"


class ContinuousBernoulliLikelihood(Likelihood):
    """p(x | z) = Π CB(x_i; logits_i(z)) for grey levels in [0, 1]: a normalised Bernoulli.

    References:
        The continuous Bernoulli: fixing a pervasive error in variational autoencoders, Loaiza-Ganem
            and Cunningham, 2019.

    Arguments:
        network: gives the logits: `(N, D)` to `(N, *x_shape)`.
        x_shape: the shape of one row of data.

    Example:
        >>> likelihood = ContinuousBernoulliLikelihood(nn.Linear(2, 64), x_shape=(1, 8, 8))
        >>> likelihood(torch.zeros(5, 2)).event_shape
        torch.Size([1, 8, 8])
    """

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        return ContinuousBernoulli(logits=self.call_network(z, y)).to_event(len(self.x_shape))

    @property
    def encoder_input(self) -> EncoderInputFactory:
        """x as it is."""
        return AsIs

    def check(self, x: Tensor) -> None:
        if not ((x >= 0) & (x <= 1)).all():
            raise ValueError(
                f"'x' must lie in [0, 1] for ContinuousBernoulliLikelihood, got {span(x)}: "
                f"{way_into_unit_interval(x)}."
            )

    @property
    def mean_bounds(self) -> tuple[float, float]:
        return 0.0, 1.0

    def link(self, mean: Tensor) -> Tensor:
        """Return the logits with this mean, by Newton's method.

        The derivative of the mean by the logits is the variance.
        """
        mean = mean.double().clamp(MEAN_MARGIN, 1 - MEAN_MARGIN)
        # Start at the limits of the inverse, −1 / mean near 0 and 1 / (1 − mean) near 1. From there
        # the steps of Newton's method do not overshoot.
        logits = 1 / (1 - mean) - 1 / mean
        for _ in range(50):
            p_x = ContinuousBernoulli(logits)
            logits = logits - (p_x.mean - mean) / p_x.variance
        return logits


class BetaLikelihood(Likelihood):
    """p(x | z) = Π Beta(x_i; a_i(z), b_i(z)) for x in (0, 1), without the ends.

    log p = Σ (a_i − 1) log x_i + (b_i − 1) log(1 − x_i) − log B(a_i, b_i), in nats.

    With a mean m = sigmoid(logit) and a precision s, a = ε + m s and b = ε + (1 − m) s. Here
    ε = 0.001 keeps both from 0. The precision is
    s = max_precision · sigmoid(log_precision − log max_precision), about exp(log_precision).
    E[x_i | z] = a / (a + b) and Var = E (1 − E) / (1 + a + b).

    References:
        Beta regression for modelling rates and proportions, Ferrari and Cribari-Neto, 2004.
            Deviation: ε and the bound.

    Arguments:
        network: gives the logit of the mean and log_precision: `(N, D)` to `(N, 2, *x_shape)`.
        x_shape: the shape of one row of data.
        max_precision: the bound of s, at most 1e5; with a precision free to grow the likelihood
            has no finite maximum.

    Raises:
        ValueError: if `max_precision` is not greater than 2 and at most 1e5.

    Example:
        >>> p_x = BetaLikelihood(nn.Linear(2, 2 * 64), x_shape=(1, 8, 8))(torch.zeros(5, 2))
        >>> p_x.log_prob(torch.full((1, 8, 8), 0.5)).shape
        torch.Size([5])
    """

    def __init__(self, network: Network, x_shape: Shape, max_precision: float = 1e4) -> None:
        super().__init__(network, x_shape, out_shape=(2, *as_shape(x_shape, "x_shape")))
        self.max_precision = real(
            max_precision,
            "max_precision",
            of=self,
            holds=lambda number: _START_PRECISION < number <= _MAX_PRECISION,
            accepted=f"be greater than {_START_PRECISION:g} and at most {_MAX_PRECISION:g}, where "
            "single precision tells the means apart",
        )

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        logits, log_precision = self.call_network(z, y).unbind(-1 - len(self.x_shape))
        precision = self.max_precision * torch.sigmoid(log_precision - math.log(self.max_precision))
        concentration1 = _MIN_CONCENTRATION + torch.sigmoid(logits) * precision
        concentration0 = _MIN_CONCENTRATION + torch.sigmoid(-logits) * precision
        return Beta(concentration1, concentration0).to_event(len(self.x_shape))

    @property
    def encoder_input(self) -> EncoderInputFactory:
        """x as it is."""
        return AsIs

    @property
    def filler(self) -> float:
        return 0.5

    def check(self, x: Tensor) -> None:
        if not ((x > 0) & (x < 1)).all():
            is_closed = bool(((x >= 0) & (x <= 1)).all())
            advice = _FOR_ENDS if is_closed else way_into_unit_interval(x)
            raise ValueError(
                f"'x' must lie in (0, 1), without 0 and 1, for BetaLikelihood, got {span(x)}: "
                f"{advice}."
            )

    @property
    def mean_bounds(self) -> tuple[float, float]:
        return 0.0, 1.0

    def link(self, mean: Tensor) -> Tensor:
        mean = mean.clamp(MEAN_MARGIN, 1 - MEAN_MARGIN)
        logits = torch.logit(mean + (2 * mean - 1) * _MIN_CONCENTRATION / _START_PRECISION)
        share = _START_PRECISION / self.max_precision
        log_precision = math.log(_START_PRECISION) - math.log1p(-share)
        return torch.stack([logits, torch.full_like(mean, log_precision)])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, max_precision={self.max_precision:g}"
