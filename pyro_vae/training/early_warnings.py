"""Early warnings: one sentence, before training, on each choice that is seldom meant."""

import torch
from pyro.infer import ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from pyro_vae.data.batch import Batch
from pyro_vae.data.missing import filled
from pyro_vae.data.rows import Rows
from pyro_vae.evaluation.vae_rows import VAERows
from pyro_vae.inference.divergences import monte_carlo_sites
from pyro_vae.vae import VAE

# With larger inputs, a network with the usual start weights gives log-scales whose exponential is
# far too large.
_LARGE = 300.0
# Places that a sentence names.
_MOST_PLACES = 3


@torch.no_grad()
def warnings_for(rows: VAERows, batch: Batch, objective: ELBO) -> list[str]:
    """Return a sentence on each choice that is seldom meant.

    Such choices are a KL without the closed form that was asked for, whole numbers that a density
    scores, an element of x that is never observed, and an encoder that sees large numbers.

    Arguments:
        rows: all rows to train on, with their VAE.
        batch: some of them.
        objective: the objective that is minimised.
    """
    vae = rows.vae
    sentences = []
    sites: list[str] = []
    if isinstance(objective, TraceMeanField_ELBO):
        sites = monte_carlo_sites(vae.model, vae.guide, *batch)
    if sites:
        sentences.append(
            f"TraceMeanField_ELBO draws the KL of {', '.join(sites)} like Trace_ELBO, because "
            f"there is no closed form for {type(vae.posterior).__name__} and "
            f"{type(vae.prior).__name__}."
        )
    blocks = rows.rows.blocks
    if _is_density(vae, batch) and all(_is_whole(rows.rows.batch(block)) for block in blocks()):
        sentences.append(
            f"'data' hold whole numbers only, which {type(vae.likelihood).__name__} scores by a "
            "density: -ELBO has no lower limit where a scale can shrink, and compares with that of "
            "no discrete likelihood."
        )
    unseen = _never_observed(rows.rows)
    if unseen and _is_trained(vae.likelihood):
        sentences.append(
            f"No training row has an observed value of x at {', '.join(unseen)}, so the VAE knows "
            "nothing of it: leave it out."
        )
    highest = max(float(_seen(vae, rows.batch(block).x)) for block in blocks())
    if highest > _LARGE:
        sentences.append(
            f"The encoder sees numbers up to {highest:g}, from which training may not begin: put "
            "Standardized, Log1p or Divided in front of its network, and call initialize(vae, x) "
            "before fit."
        )
    return sentences


def _never_observed(rows: Rows) -> list[str]:
    """Return the first places in a row that are missing in all rows: names, or Python's indices."""
    if not rows.has_missing:
        return []
    observed = torch.zeros(rows.levels.shape[1:], dtype=torch.bool)
    for block in rows.blocks():
        observed |= ~rows.levels[block].isnan().all(0).cpu()
    places = (~observed).nonzero().tolist()
    if rows.column_names is not None:
        return [repr(rows.column_names[place]) for (place,) in places[:_MOST_PLACES]]
    return [str(place).replace(" ", "") for place in places[:_MOST_PLACES]]


def _is_trained(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())


def _seen(vae: VAE, x: Tensor) -> Tensor:
    """Return the largest absolute value in the input of the encoder's network."""
    return filled(vae.posterior.seen(x), 0.0).abs().max()


def _is_density(vae: VAE, batch: Batch) -> bool:
    """Return True if p(x | z) is known to be a density."""
    try:
        support = vae.decode(vae.encode(*batch).sample(), batch.y).support
    except NotImplementedError:
        return False
    return support is not None and not support.is_discrete


def _is_whole(x: Tensor) -> bool:
    return bool(((x == x.round()) | x.isnan()).all())
