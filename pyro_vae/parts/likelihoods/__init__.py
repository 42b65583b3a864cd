"""Likelihoods p(x | z)."""

from pyro_vae.parts.likelihoods.counts import (
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)
from pyro_vae.parts.likelihoods.levels import (
    BernoulliLikelihood,
    BinomialLikelihood,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    OneHotCategoricalLikelihood,
)
from pyro_vae.parts.likelihoods.product import Columns, ProductLikelihood
from pyro_vae.parts.likelihoods.real import LaplaceLikelihood, NormalLikelihood, StudentTLikelihood
from pyro_vae.parts.likelihoods.scales import (
    ContextScale,
    FixedScale,
    LearnedScale,
    NetworkScale,
    Scale,
)
from pyro_vae.parts.likelihoods.unit import BetaLikelihood, ContinuousBernoulliLikelihood

__all__ = [
    "BernoulliLikelihood",
    "BetaLikelihood",
    "BinomialLikelihood",
    "Columns",
    "ContextScale",
    "ContinuousBernoulliLikelihood",
    "DiscretizedLogisticLikelihood",
    "DiscretizedLogisticMixtureLikelihood",
    "FixedScale",
    "LaplaceLikelihood",
    "LearnedScale",
    "NegativeBinomialLikelihood",
    "NetworkScale",
    "NormalLikelihood",
    "OneHotCategoricalLikelihood",
    "PoissonLikelihood",
    "ProductLikelihood",
    "Scale",
    "StudentTLikelihood",
    "ZeroInflatedNegativeBinomialLikelihood",
]
