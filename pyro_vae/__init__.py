"""Variational autoencoders in Pyro: a prior p(z), a likelihood p(x | z) and a posterior q(z | x), joined by `VAE`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyro_vae.data import Rows, Shuffled, WithReplacement
from pyro_vae.distributions import ContinuousBernoulli
from pyro_vae.evaluation import Estimate, Evaluation, evaluate
from pyro_vae.importance import log_mean_exp, log_weights
from pyro_vae.likelihoods import (
    BernoulliLikelihood,
    BinomialLikelihood,
    ContinuousBernoulliLikelihood,
    FixedScale,
    LearnedScale,
    NetworkScale,
    NormalLikelihood,
    OneHotCategoricalLikelihood,
)
from pyro_vae.nets import MLP
from pyro_vae.objectives import ConstantKL, LinearWarmup
from pyro_vae.parts import Likelihood, Posterior, Prior
from pyro_vae.posteriors import DiagNormalPosterior
from pyro_vae.priors import StandardNormalPrior
from pyro_vae.snapshots import Snapshots
from pyro_vae.sources import KMNIST, MNIST, ArrayFile, Digits, FashionMNIST, OneHot, Splits, load_splits
from pyro_vae.svi import SVI
from pyro_vae.training import Epoch, Fit, NonFiniteLossError, Training, fit
from pyro_vae.transforms import DynamicDraw, FixedDraw, Identity, Threshold, UnitInterval
from pyro_vae.vae import VAE

if TYPE_CHECKING:
    from pyro_vae.config import load

__version__ = "0.1.0"

__all__ = [
    "KMNIST",
    "MLP",
    "MNIST",
    "SVI",
    "VAE",
    "ArrayFile",
    "BernoulliLikelihood",
    "BinomialLikelihood",
    "ConstantKL",
    "ContinuousBernoulli",
    "ContinuousBernoulliLikelihood",
    "DiagNormalPosterior",
    "Digits",
    "DynamicDraw",
    "Epoch",
    "Estimate",
    "Evaluation",
    "FashionMNIST",
    "Fit",
    "FixedDraw",
    "FixedScale",
    "Identity",
    "LearnedScale",
    "Likelihood",
    "LinearWarmup",
    "NetworkScale",
    "NonFiniteLossError",
    "NormalLikelihood",
    "OneHot",
    "OneHotCategoricalLikelihood",
    "Posterior",
    "Prior",
    "Rows",
    "Shuffled",
    "Snapshots",
    "Splits",
    "StandardNormalPrior",
    "Threshold",
    "Training",
    "UnitInterval",
    "WithReplacement",
    "evaluate",
    "fit",
    "load",
    "load_splits",
    "log_mean_exp",
    "log_weights",
]


def __getattr__(name: str) -> Any:
    # The settings need a parser of command lines and YAML, which a notebook may never need.
    if name == "load":
        return import_module("pyro_vae.config").load
    raise AttributeError(f"module 'pyro_vae' has no attribute '{name}'")
