"""Likelihoods of counts: whole numbers without an upper end."""

from abc import ABC
from functools import partial

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.distributions.gamma_family import NegativeBinomial, Poisson
from pyro_vae.parts.contracts import EncoderInputFactory, Likelihood, Network
from pyro_vae.parts.encoder_inputs import Composed, Log1p, Standardized
from pyro_vae.parts.finite import HIGHEST_LOG_OF_DATA, held
from pyro_vae.parts.likelihoods.links import bounded_log, found
from pyro_vae.parts.likelihoods.scales import MIN_SCALE, LearnedScale, Scale, as_scale
from pyro_vae.support.checks import Shape, as_shape, positive

# The logit of the share of extra zeros at the start of training, a share of 12 %.
_START_GATE_LOGIT = -2.0
# The least and the most dispersion at the start of training.
_START_DISPERSIONS = (0.01, 10.0)


class _CountLikelihood(Likelihood, ABC):
    """p(x | z) for counts x_i in 0, 1, 2, …: a subclass defines `forward` and `link`."""

    @property
    def encoder_input(self) -> EncoderInputFactory:
        """Input that gives log(1 + x), standardised by the training rows."""
        return partial(Composed, steps=[Log1p, Standardized])

    def check(self, x: Tensor) -> None:
        super().check(x)
        if not ((x >= 0) & (x == x.round())).all():
            raise ValueError(
                f"'x' must hold counts (0, 1, 2, …) for {type(self).__name__}, got {found(x, 0)}."
            )

    @property
    def mean_bounds(self) -> tuple[float, float]:
        return 0.0, torch.inf


class PoissonLikelihood(_CountLikelihood):
    """p(x | z) = Π Poisson(x_i; rate_i(z)) for counts, whose mean and variance are the rate.

    rate = min_rate + exp(log_rate), and log p = Σ x_i log rate_i − rate_i − log x_i!, in nats.

    References:
        Inferring single-trial neural population dynamics using sequential auto-encoders,
            Pandarinath et al., 2018.

    Arguments:
        network: gives log_rate: `(N, D)` to `(N, *x_shape)`.
        x_shape: the shape of one row of data.
        min_rate: the floor of the rate, so that no count is impossible.

    Example:
        >>> p_x = PoissonLikelihood(nn.Linear(2, 64), x_shape=64)(torch.zeros(5, 2))
        >>> p_x.log_prob(torch.ones(5, 64)).shape
        torch.Size([5])
    """

    def __init__(self, network: Network, x_shape: Shape, min_rate: float = 1e-6) -> None:
        super().__init__(network, x_shape)
        self.min_rate = positive(min_rate, "min_rate", of=self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        log_rate = held(self.call_network(z, y), HIGHEST_LOG_OF_DATA)
        rate = self.min_rate + log_rate.exp()
        return Poisson(rate).to_event(len(self.x_shape))

    def link(self, mean: Tensor) -> Tensor:
        return bounded_log(mean - self.min_rate)


class NegativeBinomialLikelihood(_CountLikelihood):
    """p(x | z) = Π NB(x_i; mean_i(z), dispersion_i) for counts that vary more than a Poisson's.

    It is a Poisson with a Gamma distributed rate: E[x_i | z] = mean = exp(log_mean), and
    Var = mean + dispersion mean². With n = 1 / dispersion and p = mean / (mean + n), in nats,
    log p = Σ log Γ(n + x_i) − log Γ(n) − log x_i! + n log(1 − p_i) + x_i log p_i.

    Value and gradient have single precision for a dispersion of 1e-6 and above. As the dispersion
    goes to 0 the distribution becomes a Poisson.

    References:
        Deep generative modeling for single-cell transcriptomics, Lopez et al., 2018.

    Arguments:
        network: gives log_mean, and also log_dispersion for a `NetworkScale`: `(N, D)` to
            `(N, 1 or 2, *x_shape)`.
        x_shape: the shape of one row of data.
        dispersion: a number (fixed), a `LearnedScale` (one for all, or one for each element) or a
            `NetworkScale` (a function of z). When omitted, one is learned for each element.

    Example:
        >>> likelihood = NegativeBinomialLikelihood(nn.Linear(2, 64), x_shape=64, dispersion=0.5)
        >>> likelihood(torch.zeros(5, 2)).log_prob(torch.ones(5, 64)).shape
        torch.Size([5])
    """

    def __init__(
        self, network: Network, x_shape: Shape, dispersion: float | Scale | None = None
    ) -> None:
        shape = as_shape(x_shape, "x_shape")
        scale = LearnedScale(shape) if dispersion is None else as_scale(dispersion, "dispersion")
        super().__init__(network, x_shape, out_shape=(1 + scale.num_outputs, *shape))
        self.dispersion = scale

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        log_mean, *raw_dispersion = self.call_network(z, y).unbind(-1 - len(self.x_shape))
        p_x = _negative_binomial(log_mean, self.dispersion(*raw_dispersion))
        return p_x.to_event(len(self.x_shape))

    def link(self, mean: Tensor) -> Tensor:
        return torch.cat([bounded_log(mean).unsqueeze(0), self.dispersion.start(mean)])

    def initialize(self, mean: Tensor, std: Tensor) -> None:
        self.dispersion.initialize(_dispersion_of_counts(mean, std), MIN_SCALE)


class ZeroInflatedNegativeBinomialLikelihood(_CountLikelihood):
    """p(x | z) = Π gate_i(z) [x_i = 0] + (1 − gate_i(z)) NB(x_i; mean_i(z), dispersion_i).

    It suits counts with extra zeros. With gate = sigmoid(gate_logit), E[x_i | z] = (1 − gate) mean
    and Var = (1 − gate) (mean + (dispersion + gate) mean²). NB is that of
    `NegativeBinomialLikelihood`.

    References:
        Deep generative modeling for single-cell transcriptomics, Lopez et al., 2018.

    Arguments:
        network: gives log_mean, gate_logit, and also log_dispersion for a `NetworkScale`:
            `(N, D)` to `(N, 2 or 3, *x_shape)`.
        x_shape: the shape of one row of data.
        dispersion: a number (fixed), a `LearnedScale` (one for all, or one for each element) or a
            `NetworkScale` (a function of z). When omitted, one is learned for each element.

    Example:
        >>> likelihood = ZeroInflatedNegativeBinomialLikelihood(nn.Linear(2, 2 * 64), x_shape=64)
        >>> likelihood(torch.zeros(5, 2)).log_prob(torch.zeros(5, 64)).shape
        torch.Size([5])
    """

    def __init__(
        self, network: Network, x_shape: Shape, dispersion: float | Scale | None = None
    ) -> None:
        shape = as_shape(x_shape, "x_shape")
        scale = LearnedScale(shape) if dispersion is None else as_scale(dispersion, "dispersion")
        super().__init__(network, x_shape, out_shape=(2 + scale.num_outputs, *shape))
        self.dispersion = scale

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        outputs = self.call_network(z, y)
        log_mean, gate_logits, *raw_dispersion = outputs.unbind(-1 - len(self.x_shape))
        counts = _negative_binomial(log_mean, self.dispersion(*raw_dispersion))
        # Not Pyro's ZeroInflatedNegativeBinomial: it refuses a mean for which probs rounds to 1.
        p_x = dist.ZeroInflatedDistribution(counts, gate_logits=gate_logits)
        return p_x.to_event(len(self.x_shape))

    def link(self, mean: Tensor) -> Tensor:
        gate_logits = torch.full_like(mean, _START_GATE_LOGIT)
        log_mean = bounded_log(mean / torch.sigmoid(-gate_logits))
        return torch.cat([torch.stack([log_mean, gate_logits]), self.dispersion.start(mean)])

    def initialize(self, mean: Tensor, std: Tensor) -> None:
        self.dispersion.initialize(_dispersion_of_counts(mean, std), MIN_SCALE)


def _dispersion_of_counts(mean: Tensor, std: Tensor) -> Tensor:
    """Return the dispersion by moments, Var = mean + dispersion mean², from which it can learn."""
    least, most = _START_DISPERSIONS
    dispersion = (std**2 - mean) / (mean**2).clamp(min=least)
    return dispersion.clamp(least, most)


def _negative_binomial(log_mean: Tensor, dispersion: Tensor | float) -> dist.TorchDistribution:
    """Return the distribution of counts, with a mean that stays finite."""
    return NegativeBinomial(held(log_mean, HIGHEST_LOG_OF_DATA), dispersion)
