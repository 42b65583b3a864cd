"""Terms of each row under a VAE, with Monte Carlo variances: −ELBO, rate, distortion, log p(x)."""

import math
from typing import NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_vae.data.batch import Batch
from pyro_vae.distributions.kl import closed_kl, closed_kl_by_dim, kl_or_draws
from pyro_vae.distributions.means import MeanEstimate, estimated_mean
from pyro_vae.engine.program import Program
from pyro_vae.evaluation.vae_rows import BLOCK_ROWS
from pyro_vae.inference.psis import LEAST_DRAWS, pareto_khat
from pyro_vae.inference.weights import log_mean_exp_variance
from pyro_vae.support.chunks import chunk_size, chunks
from pyro_vae.support.tables import shown_in_short
from pyro_vae.vae import VAE

# Draws times rows that pass through the networks at once, to bound the memory.
_CHUNK = 5_000
# Draws times rows whose weights get a variance and a k̂ at once, to bound the memory.
_KHAT_CHUNK = 200_000


@shown_in_short
class RowEstimate(NamedTuple):
    """An estimate for each row, from draws of z.

    Arguments:
        mean: the estimates, `(B,)`.
        variance: their Monte Carlo variances, `(B,)`.
        num_samples: the number of draws of z for each row; 0 if the estimate is exact.
    """

    mean: Tensor
    variance: Tensor
    num_samples: int

    @staticmethod
    def exact(values: Tensor) -> "RowEstimate":
        """Return exact values as means without variance."""
        return RowEstimate(values, torch.zeros_like(values), 0)

    @staticmethod
    def of_draws(draws: Tensor) -> "RowEstimate":
        """Return the means of draws, `(S, B)`."""
        spread = draws - draws.mean(0)
        variance = (spread**2).sum(0) / len(draws) / max(1, len(draws) - 1)
        return RowEstimate(draws.mean(0), variance, len(draws))


@shown_in_short
class ELBOTerms(NamedTuple):
    """−ELBO = rate + distortion at each draw of z, in nats, `(S, B)`."""

    negative_elbo: Tensor
    rate: Tensor
    distortion: Tensor


@shown_in_short
class Marginal(NamedTuple):
    """log p(x) by importance sampling, with k̂ of the weights or None for too few draws."""

    log_marginal: RowEstimate
    khat: Tensor | None


@shown_in_short
class RowTerms(NamedTuple):
    """Terms of each row of a batch, in nats.

    Arguments:
        negative_elbo: rate + distortion.
        rate: KL(q(z | x) ‖ p(z)).
        distortion: −E_q[log p(x | z)].
        marginal: log p(x); None without importance samples.
        rate_by_dim: the KL of each latent dimension, `(B, D)`; None unless it has a closed form.
        latent_mean: E_q[z | x], `(B, D)`.
        is_discrete: True if exp(log p(x)) is a probability, so that bits per dimension exist.
    """

    negative_elbo: RowEstimate
    rate: RowEstimate
    distortion: RowEstimate
    marginal: Marginal | None
    rate_by_dim: Tensor | None
    latent_mean: MeanEstimate
    is_discrete: bool


def row_terms(
    vae: VAE,
    weights: Program,
    num_samples: int,
    num_importance_samples: int,
    batch: Batch,
) -> RowTerms:
    """Return the terms of each row of a batch.

    Arguments:
        vae: the VAE.
        weights: a function of x, y and a number of draws, which returns log-weights.
        num_samples: the number of draws of z for −ELBO.
        num_importance_samples: the number of draws of z for log p(x); 0 omits it.
        batch: the rows.
    """
    q_z = vae.encode(*batch)
    p_z = vae.p_z(batch.y)
    terms = elbo_terms(vae, batch, q_z, num_samples)
    latent_mean = estimated_mean(q_z)
    rate_by_dim = closed_kl_by_dim(q_z, p_z)
    rate = RowEstimate.of_draws(terms.rate)
    if closed_kl(q_z, p_z) is not None:
        rate = RowEstimate.exact(terms.rate[0])
    marginal = None
    if num_importance_samples:
        marginal = _marginal(weights, batch, num_importance_samples)
    return RowTerms(
        negative_elbo=RowEstimate.of_draws(terms.negative_elbo),
        rate=rate,
        distortion=RowEstimate.of_draws(terms.distortion),
        marginal=marginal,
        rate_by_dim=None if rate_by_dim is None else rate_by_dim.double(),
        latent_mean=MeanEstimate(latent_mean.mean.double(), latent_mean.variance.double()),
        is_discrete=_is_discrete(vae.decode(latent_mean.mean, batch.y), batch.x),
    )


def elbo_terms(vae: VAE, batch: Batch, q_z: TorchDistribution, num_samples: int) -> ELBOTerms:
    """Return the terms of the ELBO at draws of z; the rate has its closed form, if there is one."""
    p_z = vae.p_z(batch.y)
    rates = []
    distortions = []
    for count in sample_chunks(num_samples):
        z = q_z.sample(torch.Size([count]))
        rates.append(kl_or_draws(q_z, p_z, z).expand(count, -1))
        distortions.append(-vae.log_likelihood(batch.x, z, batch.y))
    rate = torch.cat(rates).double()
    distortion = torch.cat(distortions).double()
    return ELBOTerms(rate + distortion, rate, distortion)


def sample_chunks(num_samples: int) -> list[int]:
    """Return the sizes of chunks of draws that bound the memory of a pass through the networks."""
    return chunks(num_samples, chunk_size(_CHUNK, BLOCK_ROWS))


def _marginal(weights: Program, batch: Batch, num_samples: int) -> Marginal:
    """Return log p(x) of each row by importance sampling."""
    log_sum = batch.x.new_full(batch.x.shape[:1], -math.inf, dtype=torch.float64)
    parts = []
    for count in sample_chunks(num_samples):
        part = weights(*batch, count)[0].clone()  # the next call overwrites it if compiled for CUDA
        parts.append(part)
        log_sum = torch.logaddexp(log_sum, part.double().logsumexp(0))
    row_parts = torch.cat(parts).split(chunk_size(_KHAT_CHUNK, num_samples), dim=1)
    variance = torch.cat([log_mean_exp_variance(part.double()) for part in row_parts])
    khat = None
    if num_samples >= LEAST_DRAWS:
        khat = torch.cat([_khat(part) for part in row_parts])
    return Marginal(RowEstimate(log_sum - math.log(num_samples), variance, num_samples), khat)


def _khat(log_weights: Tensor) -> Tensor:
    """Return k̂ of each row, infinite if no weights exist: NaN, infinite or all 0."""
    khat = log_weights.new_full(log_weights.shape[1:], math.inf, dtype=torch.float64)
    is_finite = log_weights.amax(0).isfinite()
    if is_finite.any():
        khat[is_finite] = pareto_khat(log_weights[:, is_finite])
    return khat


def _is_discrete(p_x: TorchDistribution, x: Tensor) -> bool:
    """Return True if p_x is discrete and all x lie in its support.

    Missing entries and grey levels under a binary distribution lie outside it.
    """
    try:
        support = p_x.support
    except NotImplementedError:
        return False
    return support is not None and support.is_discrete and bool(support.check(x).all())
