"""Imputation of missing entries of x, given the observed ones."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.data.batch import Batch
from pyro_vae.data.missing import filled
from pyro_vae.data.rows import Data
from pyro_vae.distributions.means import distribution_mean
from pyro_vae.evaluation.vae_rows import rows_for
from pyro_vae.inference.importance import importance_sample
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import whole
from pyro_vae.support.chunks import chunk_size
from pyro_vae.support.tables import shown_in_short
from pyro_vae.vae import VAE

# Draws times rows that are decoded at once, to bound the memory.
_CHUNK = 5_000


@shown_in_short
class Imputation(NamedTuple):
    """Results of `impute`, in the order of the rows; observed entries keep their values.

    Arguments:
        mean: x with E[x_missing | x_observed] for missing entries, `(N, *x_shape)`. This guess has
            the least expected squared error.
        draws: x with draws of p(x_missing | x_observed) for missing entries,
            `(num_draws, N, *x_shape)`: multiple imputations.
        ess: the effective sample size of the weighted draws of z, `(N,)`.
        khat: Pareto k̂ of the weights, `(N,)`; above 0.7 the imputation of this row is unreliable.
    """

    mean: Tensor
    draws: Tensor
    ess: Tensor
    khat: Tensor


@arguments_checked
@torch.no_grad()
def impute(
    vae: VAE, data: Data, *, num_samples: int = 1000, num_draws: int = 0, seed: int = 0
) -> Imputation:
    """Impute missing entries by self-normalised importance sampling, in evaluation mode.

    E[x_missing | x_observed] ≈ Σ_s v_s E[x_missing | z_s] at draws z_s of q(z | x). The normalised
    weights are v_s ∝ p(x_observed | z_s) p(z_s) / q(z_s | x); the largest ones are smoothed. The
    result does not depend on the order of the rows. The caller's random state does not change.

    References:
        MIWAE: deep generative modelling and imputation of incomplete data sets, Mattei and
            Frellsen, 2019. Deviation: the weights are Pareto-smoothed.

    Arguments:
        vae: a VAE made with `missing="nan"`.
        data: rows with NaN for missing entries, `(N, *x_shape)`; for a conditional VAE a pair
            (x, y), or rows with labels.
        num_samples: the number of draws of z for each row.
        num_draws: the number of draws of x for each row; z is drawn by weight, and x given z.
        seed: names the random stream.

    Raises:
        ValueError: if the VAE takes no NaN, if it cannot score the rows, or if a count is too
            small.

    Example:
        >>> vae = VAE(vae.prior, vae.likelihood, vae.posterior, missing="nan")
        >>> x = vae.sample(3).index_fill(-1, torch.tensor([0]), torch.nan)
        >>> impute(vae, x, num_samples=100, num_draws=5).draws.shape
        torch.Size([5, 3, 1, 4, 4])
    """
    if vae.missing is None:
        raise ValueError(
            "'vae' must be made with missing=\"nan\" to impute, got one that takes no NaN."
        )
    whole(num_samples, "num_samples")
    whole(num_draws, "num_draws", least=0)
    rows = rows_for(vae, data).checked()
    blocks = rows.by_block(seed, partial(_impute_block, vae, num_samples, num_draws))
    return Imputation(
        mean=rows.in_order([block.mean for block in blocks]),
        draws=rows.in_order([block.draws for block in blocks], dim=1),
        ess=rows.in_order([block.ess for block in blocks]),
        khat=rows.in_order([block.khat for block in blocks]),
    )


def _impute_block(vae: VAE, num_samples: int, num_draws: int, batch: Batch) -> Imputation:
    weighted = importance_sample(vae.model, vae.guide, *batch, num_samples=num_samples)
    x = batch.x
    y = batch.y
    size = chunk_size(_CHUNK, len(x))
    mean = torch.zeros_like(x)
    chunks = zip(weighted.latents["z"].split(size), weighted.weights.split(size), strict=True)
    for z, weights in chunks:
        x_mean = distribution_mean(vae.decode(z, y))
        mean += torch.einsum("sb,sb...->b...", weights.to(x), x_mean)
    draws = x.new_empty(0, *x.shape)
    if num_draws:
        latents = weighted.resample(num_draws)["z"].split(size)
        draws = torch.cat([vae.decode(z, y).sample() for z in latents])
    return Imputation(filled(x, mean), filled(x, draws), weighted.ess, weighted.khat)
