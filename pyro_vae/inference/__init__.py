"""Inference for any Pyro model and guide: weights, SVI, MCMC and annealing. It knows no VAE."""

from pyro_vae.inference.annealing import Sandwich, sandwich
from pyro_vae.inference.divergences import monte_carlo_sites
from pyro_vae.inference.importance import WeightedDraws, importance_sample
from pyro_vae.inference.mcmc import Chains, hmc, nuts
from pyro_vae.inference.psis import SmoothedWeights, pareto_khat, pareto_smooth
from pyro_vae.inference.renaming import renamed
from pyro_vae.inference.soundness import UnsoundStepError
from pyro_vae.inference.surrogates import WrappedELBO
from pyro_vae.inference.svi import SVI
from pyro_vae.inference.weights import log_mean_exp, log_mean_exp_variance, log_weights

__all__ = [
    "SVI",
    "Chains",
    "Sandwich",
    "SmoothedWeights",
    "UnsoundStepError",
    "WeightedDraws",
    "WrappedELBO",
    "hmc",
    "importance_sample",
    "log_mean_exp",
    "log_mean_exp_variance",
    "log_weights",
    "monte_carlo_sites",
    "nuts",
    "pareto_khat",
    "pareto_smooth",
    "renamed",
    "sandwich",
]
