"""Densities by row of a program whose latents have given values."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.inference.row_plate import RowPlate, samples_plate
from pyro_vae.inference.sites import log_prob, sample_sites, sum_by_row
from pyro_vae.support.store import store_as_found
from pyro_vae.support.validation import validating


def log_density(program: Callable[[], Any], latents: dict[str, Tensor], plate: RowPlate) -> Tensor:
    """Return the log-density of all sites of a program, at given values of its latents.

    Scales are left out.

    Arguments:
        program: the model or the guide, with its arguments.
        latents: the values of its latents by name, each `(S, plates, event)`.
        plate: the plate of the rows.

    Returns:
        In nats, `(S, B)`.

    Raises:
        ValueError: if a latent has no value, such as the site that an AutoGuide draws first.
    """
    num_samples = len(next(iter(latents.values())))
    return given_density(poutine.condition(program, data=latents), num_samples, plate)


def given_density(program: Callable[[], Any], num_samples: int, plate: RowPlate) -> Tensor:
    """Return the log-density of all sites of a program that gives its latents S values itself.

    Scales are left out.

    Arguments:
        program: the model or the guide, with its arguments.
        num_samples: the number S of values.
        plate: the plate of the rows.

    Returns:
        In nats, `(S, B)`.

    Raises:
        ValueError: if a latent has no value.
    """
    with store_as_found(), samples_plate(num_samples, plate.max_plate_nesting):
        trace = poutine.trace(plate.of_rows(program)).get_trace()
    sites = sample_sites(trace)
    for site in sites:
        if not site["is_observed"]:
            required = "'latents' must have a value for each latent of the program"
            raise ValueError(f"{required}, but there is none for '{site['name']}'.")
    kept: set[int | None] = {plate.dim, -1 - plate.max_plate_nesting}
    total = sum_by_row(((site, log_prob(site)) for site in sites), kept)
    return total.reshape(num_samples, plate.size)


@torch.no_grad()
def check_draws_apart(
    model: Callable[[], Any],
    latents: dict[str, Tensor],
    plate: RowPlate,
) -> None:
    """Refuse a model whose density of a draw depends on the other draws.

    Means over a batch cause that.

    Arguments:
        model: the model, with its arguments.
        latents: at least two draws of each latent, `(S, plates, event)`.
        plate: the plate of the rows.

    Raises:
        ValueError: if the density depends on them.
    """
    first = {name: value[:1] for name, value in latents.items()}
    with validating(False):
        beside = log_density(model, latents, plate)[:1]
        alone = log_density(model, first, plate)
    if not torch.allclose(alone, beside, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise ValueError(
            "'model' must give a draw the same density beside any other draws, but does not: does "
            "it take means over a batch, as batch normalisation without running statistics does?"
        )
