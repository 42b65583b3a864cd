"""Variational autoencoders in Pyro: a prior p(z), a likelihood p(x | z) and a posterior q(z | x), joined by `VAE`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyro_vae.aggregate import AggregatedPosterior, gaussian_mixture
from pyro_vae.correction import WeightedDraws, importance_sample
from pyro_vae.data import Rows, Shuffled, WithReplacement
from pyro_vae.distributions import Concatenation, ContinuousBernoulli, DiscretizedLogistic
from pyro_vae.divergences import monte_carlo_sites
from pyro_vae.estimates import Estimate, Evaluation
from pyro_vae.evaluation import evaluate
from pyro_vae.fitting import NonFiniteLossError, fit
from pyro_vae.flows import AffineFlow, SplineFlow
from pyro_vae.importance import log_mean_exp, log_weights
from pyro_vae.imputation import Imputation, impute
from pyro_vae.initialization import initialize
from pyro_vae.inputs import AsIs, ByColumn, Composed, Divided, Log1p, Standardized, WithMask
from pyro_vae.likelihoods import (
    BernoulliLikelihood,
    BetaLikelihood,
    BinomialLikelihood,
    Columns,
    ContinuousBernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    FixedScale,
    LaplaceLikelihood,
    LearnedScale,
    NegativeBinomialLikelihood,
    NetworkScale,
    NormalLikelihood,
    OneHotCategoricalLikelihood,
    PoissonLikelihood,
    ProductLikelihood,
    StudentTLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)
from pyro_vae.mcmc import Chains, hmc, nuts
from pyro_vae.nets import MLP, ConvDecoder, ConvEncoder, GatedMLP
from pyro_vae.objectives import (
    CapacityELBO,
    ConstantKL,
    CyclicalKL,
    DoublyReparameterizedELBO,
    FreeBitsELBO,
    ImportanceWeightedELBO,
    LinearCapacity,
    LinearWarmup,
    RateTerms,
    StickingTheLandingELBO,
    TotalCorrelationELBO,
)
from pyro_vae.parts import EncoderInput, Likelihood, Posterior, Prior
from pyro_vae.posteriors import DiagNormalPosterior, FlowPosterior, FullNormalPosterior, LowRankNormalPosterior
from pyro_vae.priors import (
    ConditionalNormalPrior,
    DiagNormalPrior,
    FlowPrior,
    LaplacePrior,
    MixtureNormalPrior,
    StandardNormalPrior,
    VampPrior,
)
from pyro_vae.psis import pareto_smooth
from pyro_vae.reuse import renamed
from pyro_vae.snapshots import Snapshots
from pyro_vae.sources import KMNIST, MNIST, ArrayFile, Digits, FashionMNIST, OneHot, Splits, load_splits
from pyro_vae.svi import SVI
from pyro_vae.training import Change, Epoch, Fit, Training
from pyro_vae.transforms import DynamicDraw, FixedDraw, Identity, OpenUnitInterval, Threshold, UnitInterval
from pyro_vae.vae import VAE

if TYPE_CHECKING:
    from pyro_vae.config import load, load_data, rows_like

__version__ = "0.1.0"

__all__ = [
    "KMNIST",
    "MLP",
    "MNIST",
    "SVI",
    "VAE",
    "AffineFlow",
    "AggregatedPosterior",
    "ArrayFile",
    "AsIs",
    "BernoulliLikelihood",
    "BetaLikelihood",
    "BinomialLikelihood",
    "ByColumn",
    "CapacityELBO",
    "Chains",
    "Change",
    "Columns",
    "Composed",
    "Concatenation",
    "ConditionalNormalPrior",
    "ConstantKL",
    "ContinuousBernoulli",
    "ContinuousBernoulliLikelihood",
    "ConvDecoder",
    "ConvEncoder",
    "CyclicalKL",
    "DiagNormalPosterior",
    "DiagNormalPrior",
    "Digits",
    "DiscretizedLogistic",
    "DiscretizedLogisticLikelihood",
    "DiscretizedLogisticMixtureLikelihood",
    "Divided",
    "DoublyReparameterizedELBO",
    "DynamicDraw",
    "EncoderInput",
    "Epoch",
    "Estimate",
    "Evaluation",
    "FashionMNIST",
    "Fit",
    "FixedDraw",
    "FixedScale",
    "FlowPosterior",
    "FlowPrior",
    "FreeBitsELBO",
    "FullNormalPosterior",
    "GatedMLP",
    "Identity",
    "ImportanceWeightedELBO",
    "Imputation",
    "LaplaceLikelihood",
    "LaplacePrior",
    "LearnedScale",
    "Likelihood",
    "LinearCapacity",
    "LinearWarmup",
    "Log1p",
    "LowRankNormalPosterior",
    "MixtureNormalPrior",
    "NegativeBinomialLikelihood",
    "NetworkScale",
    "NonFiniteLossError",
    "NormalLikelihood",
    "OneHot",
    "OneHotCategoricalLikelihood",
    "OpenUnitInterval",
    "PoissonLikelihood",
    "Posterior",
    "Prior",
    "ProductLikelihood",
    "RateTerms",
    "Rows",
    "Shuffled",
    "Snapshots",
    "SplineFlow",
    "Splits",
    "StandardNormalPrior",
    "Standardized",
    "StickingTheLandingELBO",
    "StudentTLikelihood",
    "Threshold",
    "TotalCorrelationELBO",
    "Training",
    "UnitInterval",
    "VampPrior",
    "WeightedDraws",
    "WithMask",
    "WithReplacement",
    "ZeroInflatedNegativeBinomialLikelihood",
    "evaluate",
    "fit",
    "gaussian_mixture",
    "hmc",
    "importance_sample",
    "impute",
    "initialize",
    "load",
    "load_data",
    "load_splits",
    "log_mean_exp",
    "log_weights",
    "monte_carlo_sites",
    "nuts",
    "pareto_smooth",
    "renamed",
    "rows_like",
]


def __getattr__(name: str) -> Any:
    # The settings need a parser of command lines and YAML, which a notebook may never need.
    if name in ("load", "load_data", "rows_like"):
        return getattr(import_module("pyro_vae.config"), name)
    raise AttributeError(f"module 'pyro_vae' has no attribute '{name}'")
