"""Draws of all latents in one vectorised pass of guide and model, with log-weights by row."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from pyro import poutine
from pyro.poutine.indep_messenger import CondIndepStackFrame
from torch import Tensor

from pyro_vae.inference.sites import Site, log_prob, sample_sites, sum_by_row
from pyro_vae.support.tables import shown_in_short


@shown_in_short
class Draws(NamedTuple):
    """S draws of all latents, from one vectorised pass of guide and model.

    Arguments:
        guide_trace: the guide's trace, in which each site has S draws at `dim`.
        model_trace: the model's trace, replayed against the guide's.
        row_frames: the plates that every site lies in.
        dim: the dimension of the draws.
        row_weight: the number of rows that each row stands for, from a subsampled plate and from
            scales around all sites of the model.
    """

    guide_trace: poutine.Trace
    model_trace: poutine.Trace
    row_frames: frozenset[CondIndepStackFrame]
    dim: int
    row_weight: float | Tensor = 1.0

    @property
    def latents(self) -> list[Site]:
        """The guide's sample sites."""
        return sample_sites(self.guide_trace)

    @property
    def observations(self) -> list[Site]:
        """The model's observed sites."""
        return [site for site in sample_sites(self.model_trace) if site["is_observed"]]

    def prior(self, site: Site) -> Site:
        """The model's site of the same name as a latent of the guide."""
        name = site["name"]
        if name not in self.model_trace:
            required = "'model' must have a prior for all latents of the guide"
            raise ValueError(f"{required}, but has none for '{name}'.")
        return self.model_trace.nodes[name]

    def log_weights(self) -> Tensor:
        """log p(x, z) − log q(z | x), without any scales."""
        return self._log_density(self.model_trace) - self._log_density(self.guide_trace)

    def scaled_log_weights(self) -> Tensor:
        """log p(x, z) − log q(z | x), with the scales of single sites, such as a KL weight.

        The weight of the row is left out.
        """
        log_p = self._scaled_log_density(self.model_trace)
        log_q = self._scaled_log_density(self.guide_trace)
        return log_p - log_q

    def inner_scale(self, site: Site) -> float | Tensor:
        """The site's scale without the weight of its row."""
        weight = self.row_weight
        if isinstance(weight, Tensor):
            weight = torch.where(weight == 0, 1.0, weight)  # the scale is also 0 there
        return site["scale"] / weight

    def by_row(self, terms: Iterable[tuple[Site, Tensor]]) -> Tensor:
        """The sum of the sites' terms, masked as the sites are, for each draw and row."""
        return sum_by_row(terms, self.kept_dims)

    @property
    def kept_dims(self) -> set[int | None]:
        """The dimensions of draws and rows."""
        return {frame.dim for frame in self.row_frames} | {self.dim}

    def _log_density(self, trace: poutine.Trace) -> Tensor:
        return self.by_row((site, log_prob(site)) for site in sample_sites(trace))

    def _scaled_log_density(self, trace: poutine.Trace) -> Tensor:
        sites = sample_sites(trace)
        return self.by_row((site, self.inner_scale(site) * log_prob(site)) for site in sites)
