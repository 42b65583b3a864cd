"""VAEs small enough to reason about."""

import pyro.distributions as dist
import torch
from torch import nn

from pyro_vae import (
    MLP,
    VAE,
    BernoulliLikelihood,
    DiagNormalPosterior,
    NormalLikelihood,
    Posterior,
    StandardNormalPrior,
)


class FixedNoise(dist.Normal):
    """A normal that always draws loc + 0.7 scale, so that two runs see the same noise whatever their shapes."""

    def rsample(self, sample_shape=()):
        return (self.loc + 0.7 * self.scale).expand(self._extended_shape(torch.Size(sample_shape)))


class FixedNoisePosterior(DiagNormalPosterior):
    def forward(self, x, y=None):
        normal = super().forward(x, y).base_dist
        return FixedNoise(normal.loc, normal.scale).to_event(1)


class ExactPosterior(Posterior):
    """p(z | x) of a linear-Gaussian model, with its full covariance."""

    def __init__(self, reference):
        super().__init__(nn.Identity(), len(reference.bias), reference.weight.shape[1])
        self.reference = reference

    def forward(self, x, y=None):
        return dist.MultivariateNormal(
            self.reference.posterior_loc(x), self.reference.posterior_covariance()
        )


class PriorAsPosterior(Posterior):
    def forward(self, x, y=None):
        loc = torch.zeros(*x.shape[: -len(self.x_shape)], self.latent_dim)
        return dist.Normal(loc, 1.0).to_event(1)


def nowhere_special(module):
    """The same module, its weights moved off all that they may start at."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def linear(weight, bias):
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = weight.clone(), bias.clone()
    return layer


def linear_gaussian_vae(reference, posterior=None):
    likelihood = NormalLikelihood(
        linear(reference.weight, reference.bias), len(reference.bias), reference.scale
    )
    return VAE(
        StandardNormalPrior(reference.weight.shape[1]),
        likelihood,
        posterior or ExactPosterior(reference),
    )


def exact_diagonal_posterior(reference):
    """The exact posterior as a diagonal one; W must have orthogonal columns."""
    loc_weight = reference.precision.inverse() @ reference.weight.T
    log_scale = (reference.posterior_covariance().diagonal().sqrt() - 1e-6).log()
    weight = torch.cat([loc_weight, torch.zeros_like(loc_weight)])
    return DiagNormalPosterior(
        linear(weight, torch.cat([-loc_weight @ reference.bias, log_scale])),
        len(reference.bias),
        len(log_scale),
    )


def binary_vae(posterior=DiagNormalPosterior, latent_dim=2, x_shape=(1, 4, 4), hidden=(8,)):
    size = torch.Size(x_shape).numel()
    return VAE(
        StandardNormalPrior(latent_dim),
        BernoulliLikelihood(MLP(latent_dim, hidden, size), x_shape),
        posterior(MLP(size, hidden, 2 * latent_dim), x_shape, latent_dim),
    )
