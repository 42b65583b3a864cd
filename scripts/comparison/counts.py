"""Overdispersed counts of a known model: log p(x) under each likelihood and under the truth."""

import math
from functools import partial
from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae import (
    MLP,
    VAE,
    DiagNormalPosterior,
    Estimate,
    LearnedScale,
    Likelihood,
    Log1p,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    Shuffled,
    StandardNormalPrior,
    Training,
    fit,
)
from pyro_vae.evaluation import evaluate_rows
from pyro_vae.support import stream

LATENT_DIM = 2
# Grid of z over which the true p(x) is integrated: points along each axis, from −REACH to REACH.
POINTS = 121
REACH = 6.0
# Rows of x that are integrated at once, to bound memory.
CHUNK = 50


class TrueModel(NamedTuple):
    """Known model of the counts: z ~ N(0, I), and x_i | z negative binomial.

    Its mean is m_i = exp(W z + b)_i, and its variance m_i + dispersion m_i².

    Arguments:
        weight: W, `(C, 2)`.
        bias: b, `(C,)`.
        dispersion: the dispersion of every column.
    """

    weight: Tensor
    bias: Tensor
    dispersion: float

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """p(x | z)."""
        log_mean = z @ self.weight.T + self.bias
        logits = log_mean + math.log(self.dispersion)
        return dist.NegativeBinomial(1 / self.dispersion, logits=logits).to_event(1)

    def log_marginal(self, x: Tensor) -> Tensor:
        """log p(x) of each row, by integration over a grid of z."""
        axis = torch.linspace(-REACH, REACH, POINTS)
        log_area = 2 * math.log((axis[1] - axis[0]).item())
        z = torch.cartesian_prod(axis, axis)
        log_weight = dist.Normal(0.0, 1.0).log_prob(z).sum(1) + log_area
        p_x = self.likelihood(z)
        found = []
        for part in x.split(CHUNK):
            log_p = p_x.log_prob(part.unsqueeze(1))
            found.append((log_p + log_weight).logsumexp(1))
        return torch.cat(found)


class Scores(NamedTuple):
    """Mean log p(x) of held-out rows, in nats, under the truth and under two VAEs."""

    true: Estimate
    negative_binomial: Estimate
    poisson: Estimate


def true_model(num_columns: int = 20, dispersion: float = 0.5) -> TrueModel:
    """Draw a model with means of about 1 to 20."""
    weight = 0.7 * torch.randn(num_columns, LATENT_DIM)
    bias = 1 + torch.rand(num_columns)
    return TrueModel(weight, bias, dispersion)


def compare_counts(num_rows: int = 20_000, num_held_out: int = 2_000, epochs: int = 60) -> Scores:
    """Draw counts, train a VAE with each likelihood on them, and score held-out rows."""
    with stream(0):
        model = true_model()
        x = model.likelihood(torch.randn(num_rows + num_held_out, LATENT_DIM)).sample()
        train = x[:num_rows]
        held_out = x[num_rows:]
        size = x.shape[1]
        dispersion = LearnedScale(shape=(size,))
        negative_binomial = NegativeBinomialLikelihood(MLP(LATENT_DIM, [], size), size, dispersion)
        poisson = PoissonLikelihood(MLP(LATENT_DIM, [], size), size)
        return Scores(
            true=Estimate.over_rows(model.log_marginal(held_out)),
            negative_binomial=score(negative_binomial, train, held_out, epochs),
            poisson=score(poisson, train, held_out, epochs),
        )


def score(likelihood: Likelihood, train: Tensor, held_out: Tensor, epochs: int) -> Estimate:
    """Train a VAE with this likelihood, and return log p(x) of held-out rows."""
    size = train.shape[1]
    encoder = Log1p(MLP(size, [64, 64], (2, LATENT_DIM)))
    posterior = DiagNormalPosterior(encoder, size, LATENT_DIM)
    vae = VAE(StandardNormalPrior(LATENT_DIM), likelihood, posterior)
    likelihood.initialize_bias(train.mean(0))
    training = Training(
        epochs=epochs,
        batches=Shuffled(100),
        optimizer=partial(torch.optim.Adam, lr=3e-3, fused=True),
        scheduler=partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs),
    )
    fit(vae, train, training, progress=True)
    by_row = evaluate_rows(vae, held_out, num_importance_samples=1_000)
    return Estimate.over_rows(by_row.log_marginal)
