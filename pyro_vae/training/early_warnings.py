"""What can be done and is seldom meant: said in one sentence before training."""

import torch
from pyro.infer import ELBO, TraceMeanField_ELBO
from torch import Tensor

from pyro_vae.data.batch import Batch
from pyro_vae.data.missing import filled
from pyro_vae.evaluation.vae_rows import VAERows
from pyro_vae.inference.divergences import monte_carlo_sites
from pyro_vae.vae import VAE

# Beyond such numbers a network with weights of the usual start gives a scale whose exponential is
# out of all proportion.
_LARGE = 300.0


@torch.no_grad()
def advice(rows: VAERows, batch: Batch, objective: ELBO) -> list[str]:
    """Sentences on a KL that is not taken in closed form as asked, on whole numbers that are scored
    by a density, and on an encoder that sees large numbers.

    Arguments:
        rows: all rows to train on, with their VAE.
        batch: some of them.
        objective: what is minimised.
    """
    vae = rows.vae
    sentences = []
    sites: list[str] = []
    if isinstance(objective, TraceMeanField_ELBO):
        sites = monte_carlo_sites(vae.model, vae.guide, *batch)
    if sites:
        sentences.append(
            f"TraceMeanField_ELBO draws the KL of {', '.join(sites)} like Trace_ELBO, because there is no closed form for "
            f"{type(vae.posterior).__name__} and {type(vae.prior).__name__}."
        )
    blocks = rows.rows.blocks
    if _is_density(vae, batch) and all(_is_whole(rows.rows.batch(block)) for block in blocks()):
        sentences.append(
            f"'data' hold whole numbers only, which {type(vae.likelihood).__name__} scores by a density: -ELBO has no lower "
            "limit where a scale can shrink, and compares with that of no discrete likelihood."
        )
    highest = max(float(_seen(vae, rows.batch(block).x)) for block in blocks())
    if highest > _LARGE:
        sentences.append(
            f"The encoder sees numbers up to {highest:g}, from which training may not begin: put "
            "Standardized, Log1p or Divided in front of its network, and call initialize(vae, x) before fit."
        )
    return sentences


def _seen(vae: VAE, x: Tensor) -> Tensor:
    """The largest number that the encoder's network sees of x."""
    return filled(vae.posterior.seen(x), 0.0).abs().max()


def _is_density(vae: VAE, batch: Batch) -> bool:
    try:
        support = vae.decode(vae.encode(*batch).sample(), batch.y).support
    except NotImplementedError:
        return False
    return support is not None and not support.is_discrete


def _is_whole(x: Tensor) -> bool:
    return bool(((x == x.round()) | x.isnan()).all())
