"""Evaluation of a VAE on given rows: ELBO, log p(x), imputation, anomaly scores and q(z)."""

from pyro_vae.evaluation.aggregate import AggregatedPosterior, gaussian_mixture
from pyro_vae.evaluation.anomaly import AnomalyScores, anomaly_scores, auroc, threshold
from pyro_vae.evaluation.codes import Codes, encode_rows
from pyro_vae.evaluation.expression import (
    DifferentialExpression,
    differential_expression,
    normalized_expression,
)
from pyro_vae.evaluation.imputation import Imputation, impute
from pyro_vae.evaluation.measures import (
    ACTIVE_VARIANCE,
    RowEvaluation,
    evaluate,
    evaluate_rows,
    negative_elbo,
)
from pyro_vae.evaluation.results import Estimate, Evaluation

__all__ = [
    "ACTIVE_VARIANCE",
    "AggregatedPosterior",
    "AnomalyScores",
    "Codes",
    "DifferentialExpression",
    "Estimate",
    "Evaluation",
    "Imputation",
    "RowEvaluation",
    "anomaly_scores",
    "auroc",
    "differential_expression",
    "encode_rows",
    "evaluate",
    "evaluate_rows",
    "gaussian_mixture",
    "impute",
    "negative_elbo",
    "normalized_expression",
    "threshold",
]
