"""Overdispersed counts of a known model: what each likelihood makes of them, beside the truth."""

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
# Points along each axis of the plane of z on which the true p(x) is integrated, and how far they reach.
POINTS, REACH = 121, 6.0


class TrueModel(NamedTuple):
    """z ~ N(0, I), and x_i | z negative binomial with mean exp(W z + b)_i and variance mean + dispersion mean².

    Arguments:
        weight: W, `(C, 2)`.
        bias: b, `(C,)`.
        dispersion: that of every column.
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
        """log p(x) of each row, by integrating over a grid of z."""
        axis = torch.linspace(-REACH, REACH, POINTS)
        z = torch.cartesian_prod(axis, axis)
        prior = dist.Normal(0.0, 1.0).log_prob(z).sum(1) + 2 * math.log((axis[1] - axis[0]).item())
        p_x = self.likelihood(z)
        return torch.cat(
            [(p_x.log_prob(part.unsqueeze(1)) + prior).logsumexp(1) for part in x.split(50)]
        )


class Counts(NamedTuple):
    """Mean log p(x) of held-out rows, in nats, with its standard error: of the truth and of the two VAEs."""

    true: tuple[float, float]
    negative_binomial: tuple[float, float]
    poisson: tuple[float, float]


def true_model(num_columns: int = 20, dispersion: float = 0.5) -> TrueModel:
    """A model with means of about 1 to 20."""
    return TrueModel(
        0.7 * torch.randn(num_columns, LATENT_DIM), 1 + torch.rand(num_columns), dispersion
    )


def compare_counts(num_rows: int = 20_000, num_held_out: int = 2_000, epochs: int = 60) -> Counts:
    """Draw counts, train a VAE with each likelihood on them, and score held-out rows."""
    with stream(0):
        model = true_model()
        x = model.likelihood(torch.randn(num_rows + num_held_out, LATENT_DIM)).sample()
        train, held_out = x[:num_rows], x[num_rows:]
        size = x.shape[1]
        dispersion = LearnedScale(shape=(size,))
        likelihoods = [
            NegativeBinomialLikelihood(MLP(LATENT_DIM, [], size), size, dispersion),
            PoissonLikelihood(MLP(LATENT_DIM, [], size), size),
        ]
        scores = [model.log_marginal(held_out)]
        scores += [score(likelihood, train, held_out, epochs) for likelihood in likelihoods]
    return Counts(
        *((values.mean().item(), (values.std() / len(values) ** 0.5).item()) for values in scores)
    )


def score(likelihood: Likelihood, train: Tensor, held_out: Tensor, epochs: int) -> Tensor:
    """log p(x) of held-out rows under a VAE with this likelihood, trained."""
    size = train.shape[1]
    encoder = Log1p(MLP(size, [64, 64], (2, LATENT_DIM)))
    vae = VAE(
        StandardNormalPrior(LATENT_DIM), likelihood, DiagNormalPosterior(encoder, size, LATENT_DIM)
    )
    likelihood.initialize_bias(train.mean(0))
    training = Training(
        epochs=epochs,
        batches=Shuffled(100),
        optimizer=partial(torch.optim.Adam, lr=3e-3, fused=True),
        scheduler=partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs),
    )
    fit(vae, train, training, progress=True)
    return evaluate_rows(vae, held_out, num_importance_samples=1_000).log_marginal
