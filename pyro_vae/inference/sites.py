"""Sample statements of a trace: their log-densities, scales, masks and sums by row."""

from collections.abc import Iterable
from typing import Any, TypeAlias

import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from torch import Tensor

# A sample statement in a Pyro trace: the distribution "fn", "value", "scale", "mask" and plates.
Site: TypeAlias = Any


def sample_sites(trace: poutine.Trace) -> list[Site]:
    """Return the sample statements of a trace, in order."""
    nodes = poutine.util.prune_subsample_sites(trace).nodes.values()
    return [site for site in nodes if site["type"] == "sample"]


def is_auxiliary(site: Site) -> bool:
    """Return True for a site of the guide that is no latent of the model."""
    return bool(site["infer"].get("is_auxiliary"))


def log_prob(site: Site) -> Tensor:
    """Return the log-density of a site's value, in nats."""
    return site["fn"].log_prob(site["value"])


def weighed(site: Site, term: Tensor) -> Tensor:
    """Return a term of a site, such as its log-density, times its scale, and 0 if masked."""
    return scale_and_mask(term, site["scale"], site["mask"])


def sum_by_row(terms: Iterable[tuple[Site, Tensor]], kept: set[int | None]) -> Tensor:
    """Sum the terms of sites, masked as the sites are, over all dimensions except `kept`."""
    total = torch.zeros(())
    for site, term in terms:
        term = scale_and_mask(term, mask=site["mask"])
        summed = [dim for dim in range(-term.dim(), 0) if dim not in kept]
        total = total + (term.sum(summed, keepdim=True) if summed else term)
    return total


def refuse_points(latents: list[Site]) -> None:
    """Refuse latents that a guide draws from a point mass.

    A point mass has no density, and would look like the exact posterior.

    Raises:
        ValueError: if there is such a latent.
    """
    for site in latents:
        base = site["fn"]
        while hasattr(base, "base_dist"):
            base = base.base_dist
        if isinstance(base, Delta):
            found = f"a point for '{site['name']}'"
            raise ValueError(f"'guide' must have a density of the model's latents, got {found}.")
