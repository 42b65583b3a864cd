"""Densities, masks and KL divergences that torch and Pyro lack or compute inaccurately."""

from pyro_vae.distributions.densities import Concatenation, ContinuousBernoulli, DiscretizedLogistic
from pyro_vae.distributions.gamma_family import Beta, Binomial, NegativeBinomial, Poisson, StudentT
from pyro_vae.distributions.kl import closed_kl, closed_kl_by_dim
from pyro_vae.distributions.masks import masked
from pyro_vae.distributions.means import distribution_mean

__all__ = [
    "Beta",
    "Binomial",
    "Concatenation",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "NegativeBinomial",
    "Poisson",
    "StudentT",
    "closed_kl",
    "closed_kl_by_dim",
    "distribution_mean",
    "masked",
]
