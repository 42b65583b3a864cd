"""Pyro's distributions with the gamma function, with accurate log-densities and gradients.

Differences of log Γ lose their digits at large counts, dispersions near 0, many degrees of freedom
and high concentrations.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.log_gamma import (
    SMALLEST,
    digamma_rest,
    log_gamma_half_step,
    negative_deviance,
    select,
    stirling_rest,
    unexpanded,
    with_slopes,
)

# Functions for the log-density, and for its derivative by each of its arguments.
Formulas: TypeAlias = list[Callable[[], Tensor]]
# Beyond this |log μ| the formulas of a negative binomial are replaced by their limits, which are
# linear in log μ.
_LARGEST_LOG_MEAN = 40.0
# Value in place of a count of 0 in a logarithm, which is multiplied by that count.
_NO_COUNT = 1e-6


class Poisson(dist.Poisson):
    """p(x) = λ^x exp(−λ) / x!, in nats as log p(x) = −r(x) − D(x, λ).

    D(k, m) = k log(k / m) − (k − m), and r is `stirling_rest`.

    Arguments:
        rate: the rate λ; its shape is the batch shape.

    Example:
        >>> from pyro_vae.distributions import Poisson
        >>> Poisson(torch.tensor(1e6)).log_prob(torch.tensor(1e6))
        tensor(-7.8267)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return with_slopes(_poisson, self.rate, value)


def _poisson(rate: Tensor, value: Tensor) -> Formulas:
    excess = value - rate

    def log_prob() -> Tensor:
        total = negative_deviance(value, excess, _log_positive(value / rate))
        return total.sub_(stirling_rest(value))

    return [
        log_prob,
        lambda: excess / rate,
        lambda: rate.log() - torch.digamma(value + 1),
    ]


class Binomial(dist.Binomial):
    """p(x) = (n choose x) λ^x (1 − λ)^(n − x).

    log p(x) = r(n) − r(x) − r(n − x) − D(x, n λ) − D(n − x, n (1 − λ)), in nats, with D and r of
    `Poisson`.

    Arguments:
        total_count: the number n of trials.
        probs: λ, or give logits.
        logits: log λ − log(1 − λ); broadcasts with n to the batch shape.

    Example:
        >>> from pyro_vae.distributions import Binomial
        >>> Binomial(65535, logits=torch.tensor(0.0)).log_prob(torch.tensor(32768.0))
        tensor(-5.7710)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return with_slopes(_binomial, self.logits, self.total_count, value)


def _binomial(logits: Tensor, count: Tensor, value: Tensor) -> Formulas:
    missed = count - value
    excess = value * torch.sigmoid(-logits) - missed * logits.sigmoid()  # x − n λ

    def log_prob() -> Tensor:
        total = negative_deviance(value, excess, _log_positive(value / count) - logsigmoid(logits))
        log_ratio = _log_positive(missed / count) - logsigmoid(-logits)
        total.add_(negative_deviance(missed, -excess, log_ratio))
        total.sub_(stirling_rest(value)).sub_(stirling_rest(missed))
        return total.add_(stirling_rest(unexpanded(count)))

    return [
        log_prob,
        lambda: excess,
        lambda: torch.digamma(count + 1) - torch.digamma(missed + 1) + logsigmoid(-logits),
        lambda: logits + torch.digamma(missed + 1) - torch.digamma(value + 1),
    ]


class NegativeBinomial(dist.NegativeBinomial):  # type: ignore[misc]
    """Negative binomial with mean μ and dispersion α, whose variance is μ + α μ².

    For α = 0 the variance is that of a Poisson. With n = 1 / α, D and r of `Poisson` and the excess
    e = (x − μ) n / (n + μ),
    log p(x) = r(n + x) − r(n) − r(x) − log(1 + α x) − D(n, n + e) − D(x, x − e), in nats.

    Arguments:
        log_mean: the log-mean log μ.
        dispersion: the dispersion α, greater than 0; broadcasts with log_mean to the batch shape.

    Example:
        >>> from pyro_vae.distributions import NegativeBinomial
        >>> NegativeBinomial(torch.tensor(0.0), torch.tensor(1e-6)).log_prob(torch.tensor(1.0))
        tensor(-1.0000)
    """

    def __init__(
        self, log_mean: Tensor, dispersion: Tensor | float, validate_args: bool | None = None
    ) -> None:
        self.log_mean, self.dispersion = broadcast_all(log_mean, dispersion)
        alpha = unexpanded(self.dispersion)
        logits = self.log_mean + alpha.log()
        super().__init__(1 / alpha, logits=logits, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp()

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "NegativeBinomial":
        validate_args = self.__dict__.get("_validate_args")
        log_mean = self.log_mean.expand(batch_shape)
        dispersion = self.dispersion.expand(batch_shape)
        return NegativeBinomial(log_mean, dispersion, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return with_slopes(_negative_binomial, self.log_mean, self.dispersion, value)


def _negative_binomial(log_mean: Tensor, dispersion: Tensor, value: Tensor) -> Formulas:
    dispersion = unexpanded(dispersion)
    bounded = log_mean.clamp(-_LARGEST_LOG_MEAN, _LARGEST_LOG_MEAN)
    count = 1 / dispersion
    mean = bounded.exp()
    odds = dispersion * mean  # μ / n
    excess = (value - mean) / (1 + odds)
    log_dilution = torch.log1p(dispersion * value)  # log((n + x) / n)
    log_missed = torch.log1p(odds) + (log_mean - bounded).clamp(min=0)  # log((n + μ) / n)
    log_hit = torch.log1p(1 / odds) - (log_mean - bounded).clamp(max=0)  # log((n + μ) / μ)
    miss = negative_deviance(count, -excess, log_missed - log_dilution)

    def log_prob() -> Tensor:
        log_ratio = log_hit - torch.log1p(count / value.clamp(min=_NO_COUNT))
        total = negative_deviance(value, excess, log_ratio).add_(miss).sub_(log_dilution)
        total.add_(stirling_rest(count + value))
        return total.sub_(stirling_rest(count)).sub_(stirling_rest(value))

    return [
        log_prob,
        lambda: excess,
        lambda: _slope_of_dispersion(dispersion, miss, value),
        lambda: torch.digamma(count + value) - torch.digamma(value + 1) - log_hit,
    ]


def _slope_of_dispersion(dispersion: Tensor, miss: Tensor, value: Tensor) -> Tensor:
    """Return d log p / dα = n D(n, n + e) − x / (2 + 2 α x) − n² (δ(n + x) − δ(n)).

    δ is `digamma_rest`.
    """
    count = 1 / dispersion
    rests = digamma_rest(count + value) - digamma_rest(count)
    return -count * (miss + count * rests) - value / (2 + 2 * dispersion * value)


class StudentT(dist.StudentT):  # type: ignore[misc]
    """p(x) ∝ (1 + y² / ν)^(−(ν + 1) / 2) with y = (x − loc) / scale.

    The constant comes from `log_gamma_half_step`.

    Arguments:
        df: the degrees of freedom ν.
        loc: the location.
        scale: the scale; all three broadcast to the batch shape.

    Example:
        >>> from pyro_vae.distributions import StudentT
        >>> StudentT(1e7).log_prob(torch.tensor(0.0))
        tensor(-0.9189)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        df = unexpanded(self.df)
        distance = (value - self.loc) / self.scale
        constant = log_gamma_half_step(df / 2) - 0.5 * math.log(2 * math.pi)
        return constant - self.scale.log() - 0.5 * (df + 1) * torch.log1p(distance**2 / df)


class Beta(dist.Beta):
    """p(x) = x^(a − 1) (1 − x)^(b − 1) / B(a, b) on (0, 1).

    With s = a + b, and D and r of `Poisson`, in nats,
    log p(x) = r(s) − r(a) − r(b) + log(a b / s) − log x − log(1 − x)
    − D(a, s x) − D(b, s (1 − x)).

    Arguments:
        concentration1: the concentration a.
        concentration0: the concentration b; broadcasts with a to the batch shape.

    Example:
        >>> from pyro_vae.distributions import Beta
        >>> Beta(torch.tensor(1e6), torch.tensor(1e6)).log_prob(torch.tensor(0.5))
        tensor(7.0285)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return with_slopes(_beta, self.concentration1, self.concentration0, value)


def _beta(a: Tensor, b: Tensor, value: Tensor) -> Formulas:
    a = a.contiguous()  # a and b are columns of a Dirichlet's concentrations
    b = b.contiguous()
    total_count = a + b
    rest = 1 - value
    log_value = value.log()
    log_rest = torch.log1p(-value)
    excess = a * rest - b * value  # a − s x
    share0 = b / total_count
    log_ratio1 = (a / total_count).log() - log_value
    log_ratio0 = share0.log() - log_rest

    def log_prob() -> Tensor:
        total = negative_deviance(a, excess, log_ratio1)
        total.add_(negative_deviance(b, -excess, log_ratio0))
        total.add_(stirling_rest(total_count)).sub_(stirling_rest(a)).sub_(stirling_rest(b))
        return total.add_((a * share0).log()).sub_(log_value).sub_(log_rest)

    return [
        log_prob,
        lambda: _slope_of_concentration(a, total_count, excess, log_ratio1),
        lambda: _slope_of_concentration(b, total_count, -excess, log_ratio0),
        lambda: (excess + 2 * value - 1) / (value * rest),
    ]


def _slope_of_concentration(a: Tensor, total: Tensor, excess: Tensor, log_ratio: Tensor) -> Tensor:
    """Return ψ(s) − ψ(a) + log x, from the excess a − s x and log_ratio = log(a / (s x))."""
    share = excess / a
    log_share = select(share.abs() < 0.5, torch.log1p(-share.clamp(-0.5, 0.5)), -log_ratio)
    return log_share + digamma_rest(total) - digamma_rest(a) - 0.5 / total + 0.5 / a


def _log_positive(ratio: Tensor) -> Tensor:
    """Return log(ratio), and a finite number at 0; the ratio is overwritten."""
    return ratio.clamp_(min=SMALLEST).log_()
