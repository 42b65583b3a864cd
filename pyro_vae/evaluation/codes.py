"""Codes of rows: where q(z | x) puts each row."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.data.batch import Batch
from pyro_vae.data.rows import Data
from pyro_vae.distributions.means import distribution_mean, distribution_stddev
from pyro_vae.evaluation.vae_rows import rows_for
from pyro_vae.inference.importance import importance_sample
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import whole
from pyro_vae.support.tables import shown_in_short
from pyro_vae.vae import VAE


@shown_in_short
class Codes(NamedTuple):
    """Results of `encode_rows`, in the order of the rows.

    Arguments:
        mean: E_q[z | x], `(N, D)`.
        scale: the standard deviation of each latent dimension under q(z | x), `(N, D)`.
        draws: draws of q(z | x), `(num_draws, N, D)`.
        khat: Pareto k̂ of the weights of draws, `(N,)`, or None without importance samples. Above
            0.7, q(z | x) is not near the posterior of the row.
    """

    mean: Tensor
    scale: Tensor
    draws: Tensor
    khat: Tensor | None


@arguments_checked
@torch.no_grad()
def encode_rows(
    vae: VAE, data: Data, *, num_draws: int = 0, num_importance_samples: int = 0, seed: int = 0
) -> Codes:
    """Encode all rows, in evaluation mode.

    The result does not depend on the order of the rows. The caller's random state does not change.

    Arguments:
        vae: the VAE.
        data: rows, `(N, *x_shape)`; for a conditional VAE a pair (x, y), or rows with labels.
        num_draws: the number of draws of z for each row.
        num_importance_samples: the number of draws of z behind the k̂ of a row; 0 for no k̂.
        seed: names the random stream.

    Raises:
        ValueError: if the VAE cannot score the rows, or a count is too small.

    Example:
        >>> from pyro_vae.evaluation import encode_rows
        >>> encode_rows(vae, vae.sample(3), num_draws=5).draws.shape
        torch.Size([5, 3, 2])
    """
    whole(num_draws, "num_draws", least=0)
    whole(num_importance_samples, "num_importance_samples", least=0)
    rows = rows_for(vae, data).checked()
    blocks = rows.by_block(seed, partial(_codes, vae, num_draws, num_importance_samples))
    khats = [block.khat for block in blocks if block.khat is not None]
    return Codes(
        mean=rows.in_order([block.mean for block in blocks]),
        scale=rows.in_order([block.scale for block in blocks]),
        draws=rows.in_order([block.draws for block in blocks], dim=1),
        khat=rows.in_order(khats) if khats else None,
    )


def _codes(vae: VAE, num_draws: int, num_importance_samples: int, batch: Batch) -> Codes:
    q_z = vae.encode(*batch)
    khat = None
    if num_importance_samples:
        count = num_importance_samples
        khat = importance_sample(vae.model, vae.guide, *batch, num_samples=count).khat
    return Codes(
        mean=distribution_mean(q_z),
        scale=distribution_stddev(q_z),
        draws=q_z.sample(torch.Size([num_draws])),
        khat=khat,
    )
