"""Anomaly detection: scores of rows under a VAE, and a threshold for them."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.data.arrays import Array, as_tensor
from pyro_vae.data.missing import filled
from pyro_vae.data.rows import Data
from pyro_vae.evaluation.measures import evaluate_rows
from pyro_vae.evaluation.vae_rows import rows_for
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import check_finite, check_sizes, real
from pyro_vae.support.modules import evaluating, tensor_like
from pyro_vae.support.streams import stream
from pyro_vae.support.tables import shown_in_short
from pyro_vae.vae import VAE


@shown_in_short
class AnomalyScores(NamedTuple):
    """Four scores of each row, `(N,)`; a higher score is more anomalous.

    Arguments:
        kl: KL(q(z | x) ‖ p(z)), in nats: the distance of the code from the prior.
        negative_elbo: −ELBO, in nats.
        negative_log_marginal: −log p(x) by importance sampling, in nats.
        squared_error: Σ (x − E[x | z])² over observed entries at z = E_q[z | x], in squared units
            of x.
    """

    kl: Tensor
    negative_elbo: Tensor
    negative_log_marginal: Tensor
    squared_error: Tensor


@arguments_checked
@torch.no_grad()
def anomaly_scores(
    vae: VAE,
    data: Data,
    *,
    num_samples: int = 10,
    num_importance_samples: int = 50,
    seed: int = 0,
) -> AnomalyScores:
    """Score how anomalous each row is under a VAE.

    References:
        Variational autoencoder based anomaly detection using reconstruction probability, An and
            Cho, 2015.
        Do deep generative models know what they don't know?, Nalisnick et al., 2019: why log p(x)
            can fail as a score.

    Arguments:
        vae: a VAE trained on rows that are normal.
        data: the rows to score, `(N, *x_shape)`.
        num_samples: the number of draws of z for each row, for −ELBO.
        num_importance_samples: the number of draws of z for each row, for −log p(x).
        seed: names the random stream.

    Raises:
        ValueError: if rows have another shape, or lie outside the likelihood's support.
    """
    rows = rows_for(vae, data)
    terms = evaluate_rows(
        vae,
        rows,
        num_samples=num_samples,
        num_importance_samples=num_importance_samples,
        seed=seed,
    )
    errors = []
    with evaluating(vae), stream(seed, device=tensor_like(vae).device):
        for block in rows.rows.blocks():
            batch = rows.batch(block)
            means = vae.reconstruct(*batch)
            differences = filled(batch.x, means) - means
            errors.append((differences**2).flatten(1).sum(1).cpu())
    return AnomalyScores(
        kl=terms.rate,
        negative_elbo=terms.negative_elbo,
        negative_log_marginal=-terms.log_marginal,
        squared_error=torch.cat(errors),
    )


@arguments_checked
def auroc(normal: Array, anomalous: Array) -> float:
    """Return the probability that an anomalous row scores higher than a normal one.

    A tie counts one half.

    Arguments:
        normal: the scores of normal rows, `(N,)`.
        anomalous: the scores of anomalous rows, `(M,)`.

    Raises:
        ValueError: if there are no scores of one kind, or one is not finite.
    """
    from sklearn.metrics import roc_auc_score

    normal = _as_scores(normal, "normal")
    anomalous = _as_scores(anomalous, "anomalous")
    if _are_labels(normal) and len(normal) == len(anomalous):
        raise ValueError(
            "'normal' must hold the scores of normal rows, got labels 0 and 1: split the scores by "
            "them."
        )
    check_finite(normal, "normal")
    check_finite(anomalous, "anomalous")
    is_anomalous = torch.cat([torch.zeros(len(normal)), torch.ones(len(anomalous))])
    scores = torch.cat([normal, anomalous]).cpu()
    return float(roc_auc_score(is_anomalous.numpy(), scores.numpy()))


@arguments_checked
def threshold(normal: Array, false_positive_rate: float) -> float:
    """Return the score above which a row is called anomalous.

    A new normal row exceeds it with at most the probability `false_positive_rate`. It is the
    ⌈(N + 1)(1 − rate)⌉-th smallest of N scores. The bound is exact for exchangeable rows of any
    distribution.

    References:
        Algorithmic learning in a random world, Vovk, Gammerman and Shafer, 2005.

    Arguments:
        normal: scores of normal rows that the VAE was not trained on, `(N,)`.
        false_positive_rate: the bound on this probability, in (0, 1).

    Raises:
        ValueError: if there are too few rows for so small a rate, or the rate is not in (0, 1).
    """
    normal = _as_scores(normal, "normal")
    rate = real(false_positive_rate, "false_positive_rate")
    least = 1 / (len(normal) + 1)
    rank = math.ceil((len(normal) + 1) * (1 - rate))
    if not 0 < rate < 1 or rank > len(normal):
        raise ValueError(
            f"'false_positive_rate' must lie in (0, 1), and {len(normal)} rows can calibrate no "
            f"less than {least:.4f}, got {false_positive_rate}."
        )
    return normal.sort().values[rank - 1].item()


def _as_scores(scores: Array, name: str) -> Tensor:
    """Return the scores of rows as a tensor, `(N,)`.

    Raises:
        ValueError: if there are none, one is NaN, or they have another shape.
    """
    tensor = as_tensor(scores, name).cpu()
    if tensor.dtype == torch.bool:
        raise ValueError(f"'{name}' must hold scores, which are real numbers, got booleans.")
    check_sizes(tensor, name, "N")
    if tensor.isnan().any():
        raise ValueError(f"'{name}' must hold numbers, got NaN.")
    return tensor


def _are_labels(scores: Tensor) -> bool:
    """Return True for whole numbers that are 0 and 1, as the labels of scikit-learn."""
    return not scores.is_floating_point() and set(scores.tolist()) == {0, 1}
