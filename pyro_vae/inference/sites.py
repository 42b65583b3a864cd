"""Sample statements of a trace: their log-densities, scales, masks and sums by row."""

from collections.abc import Iterable
from typing import Any, TypeAlias

import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from torch import Tensor

# What a Pyro trace keeps of a sample statement: the distribution "fn", "value", "scale", "mask" and
# plates.
Site: TypeAlias = Any


def sample_sites(trace: poutine.Trace) -> list[Site]:
    """The sample statements of a trace, in order."""
    nodes = poutine.util.prune_subsample_sites(trace).nodes.values()
    return [site for site in nodes if site["type"] == "sample"]


def is_auxiliary(site: Site) -> bool:
    """Return True for a site of the guide that is no latent of the model."""
    return bool(site["infer"].get("is_auxiliary"))


def log_prob(site: Site) -> Tensor:
    """The log-density of a site's value, in nats."""
    return site["fn"].log_prob(site["value"])


def weighed(site: Site, term: Tensor) -> Tensor:
    """A term of a site, such as its log-density, times its scale, and 0 where it is masked."""
    return scale_and_mask(term, site["scale"], site["mask"])


def sum_by_row(terms: Iterable[tuple[Site, Tensor]], kept: set[int | None]) -> Tensor:
    """The sum of the sites' terms, masked as the sites are, over all dimensions but these."""
    total = torch.zeros(())
    for site, term in terms:
        term = scale_and_mask(term, mask=site["mask"])
        summed = [dim for dim in range(-term.dim(), 0) if dim not in kept]
        total = total + (term.sum(summed, keepdim=True) if summed else term)
    return total


def refuse_points(latents: list[Site]) -> None:
    """Refuse latents that a guide draws from a point.

    A point has no density, and would look like the exact posterior.

    Raises:
        ValueError: if there is one.
    """
    for site in latents:
        base = site["fn"]
        while hasattr(base, "base_dist"):
            base = base.base_dist
        if isinstance(base, Delta):
            found = f"a point for '{site['name']}'"
            raise ValueError(f"'guide' must have a density of the model's latents, got {found}.")
