"""Anomaly detection: how unlike its training data a VAE finds each row, and where to draw the line."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.data.missing import filled
from pyro_vae.data.rows import Data
from pyro_vae.evaluation.measures import evaluate_rows
from pyro_vae.evaluation.vae_rows import rows_for
from pyro_vae.support.modules import evaluating, tensor_like
from pyro_vae.support.streams import stream
from pyro_vae.vae import VAE


class AnomalyScores(NamedTuple):
    """Four scores of each row, `(N,)`; higher is stranger.

    Arguments:
        kl: KL(q(z | x) ‖ p(z)), in nats: how far the code is from the prior.
        negative_elbo: −ELBO, in nats.
        negative_log_marginal: −log p(x) by importance sampling, in nats.
        squared_error: Σ (x − E[x | z])² over observed entries at z = E_q[z | x], in squared units of x.
    """

    kl: Tensor
    negative_elbo: Tensor
    negative_log_marginal: Tensor
    squared_error: Tensor


@torch.no_grad()
def anomaly_scores(
    vae: VAE,
    data: Data,
    *,
    num_samples: int = 10,
    num_importance_samples: int = 50,
    seed: int = 0,
) -> AnomalyScores:
    """Score each row.

    References:
        Variational autoencoder based anomaly detection using reconstruction probability, An and Cho, 2015.
        Do deep generative models know what they don't know?, Nalisnick et al., 2019: why a likelihood can fail at this.

    Arguments:
        vae: a VAE trained on rows that are normal.
        data: the rows to score, `(N, *x_shape)`.
        num_samples: the draws of z for each row, for −ELBO.
        num_importance_samples: the draws of z for each row, for −log p(x).
        seed: names the random stream.

    Raises:
        ValueError: rows of another shape or outside the likelihood's support.
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


def auroc(normal: Tensor, anomalous: Tensor) -> float:
    """The probability that an anomalous row scores higher than a normal one, ties counted half.

    Arguments:
        normal: the scores of normal rows, `(N,)`.
        anomalous: the scores of anomalous rows, `(M,)`.
    """
    from sklearn.metrics import roc_auc_score

    is_anomalous = torch.cat([torch.zeros(len(normal)), torch.ones(len(anomalous))])
    return float(roc_auc_score(is_anomalous.numpy(), torch.cat([normal, anomalous]).cpu().numpy()))


def threshold(normal: Tensor, false_positive_rate: float) -> float:
    """The score above which a row is called anomalous, so that a new normal row is so called with at most this probability.

    It is the ⌈(N + 1)(1 − rate)⌉-th smallest of N scores: exact for exchangeable rows, whatever their distribution.

    References:
        Algorithmic learning in a random world, Vovk, Gammerman and Shafer, 2005.

    Arguments:
        normal: scores of normal rows that the VAE was not trained on, `(N,)`.
        false_positive_rate: in (0, 1).

    Raises:
        ValueError: too few rows for so small a rate.
    """
    rank = math.ceil((len(normal) + 1) * (1 - false_positive_rate))
    if not 0 < false_positive_rate < 1 or rank > len(normal):
        raise ValueError(
            f"'false_positive_rate' must lie in (0, 1), and {len(normal)} rows can calibrate no less than "
            f"{1 / (len(normal) + 1):.4f}, got {false_positive_rate}."
        )
    return normal.sort().values[rank - 1].item()
