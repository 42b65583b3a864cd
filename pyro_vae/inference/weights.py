"""Importance weights by row: the one estimator that log p(x), bounds and diagnostics share."""

import math
from collections.abc import Callable, Iterable
from math import prod
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine.indep_messenger import CondIndepStackFrame
from torch import Tensor

from pyro_vae.inference.determinism import check_deterministic
from pyro_vae.inference.sites import (
    _SAMPLES,
    Site,
    _row_frames,
    _SharedScales,
    _sum_by_row,
    log_prob,
    sample_sites,
    traces,
)


class Draws(NamedTuple):
    """What S draws of all latents have given in one vectorised pass of guide and model.

    Arguments:
        guide_trace: the guide's trace, each site with S draws at `dim`.
        model_trace: the model's, replayed against it.
        row_frames: the plates that every site lies in.
        dim: the dimension of the draws.
        row_weight: how many rows each row stands for: by a subsampled plate, and by scales around all sites of the model.
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
        if site["name"] not in self.model_trace:
            raise ValueError(
                f"'model' must have a prior for all latents of the guide, but has none for '{site['name']}'."
            )
        return self.model_trace.nodes[site["name"]]

    def log_weights(self) -> Tensor:
        """log p(x, z) − log q(z | x), without any scales."""
        log_p, log_q = (
            self.by_row((site, log_prob(site)) for site in sample_sites(trace))
            for trace in (self.model_trace, self.guide_trace)
        )
        return log_p - log_q

    def scaled_log_weights(self) -> Tensor:
        """The same with the scales of single sites, such as a KL weight, and not with the weight of the row."""
        log_p, log_q = (
            self.by_row((site, self.inner_scale(site) * log_prob(site)) for site in sample_sites(trace))
            for trace in (self.model_trace, self.guide_trace)
        )
        return log_p - log_q

    def inner_scale(self, site: Site) -> float | Tensor:
        """The site's scale without the weight of its row."""
        weight = self.row_weight
        # A row of weight 0 has a scale of 0 as well.
        return site["scale"] / (torch.where(weight == 0, 1.0, weight) if isinstance(weight, Tensor) else weight)

    def by_row(self, terms: Iterable[tuple[Site, Tensor]]) -> Tensor:
        """The sum of the sites' terms, masked as the sites are, over all dimensions but those of draws and rows."""
        return _sum_by_row(terms, self.kept_dims)

    @property
    def kept_dims(self) -> set[int | None]:
        """The dimensions of draws and rows."""
        return {frame.dim for frame in self.row_frames} | {self.dim}


def draw(
    model: Callable,
    guide: Callable,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    num_samples: int,
    max_plate_nesting: int = 1,
) -> Draws:
    """Draw all latents from the guide `num_samples` times at once, and run the model with them.

    Raises:
        ValueError: model and guide have other latents, or there is no plate that all their sites lie in.
    """
    dim = -1 - max_plate_nesting
    scales = _SharedScales()
    with pyro.plate(_SAMPLES, num_samples, dim=dim):
        guide_trace, model_trace = traces(scales(model), guide, args, kwargs)
    frames = _row_frames(sample_sites(guide_trace) + sample_sites(model_trace))
    weight: float | Tensor = prod((frame.full_size or frame.size) / frame.size for frame in frames)
    for scale in scales.of_rows({frame.dim for frame in frames}):
        weight = weight * scale
    return Draws(guide_trace, model_trace, frames, dim, weight)


def log_weights(model: Callable, guide: Callable, *args: Any, num_samples: int, **kwargs: Any) -> Tensor:
    """log p(x, z) − log q(z | x) at draws z ~ q(z | x), for each sample and each row.

    It takes any Pyro model and guide whose sites all lie in one row plate at dim -1. Scales (of a subsampled plate, of a
    KL weight) do not enter; masks do. All samples are one vectorised pass.

    Arguments:
        model: the Pyro model.
        guide: the Pyro guide.
        *args: passed to both.
        **kwargs: passed to both.
        num_samples: the number S of draws for each row.

    Returns:
        Log-weights in nats, `(S, B)`.

    Raises:
        ValueError: a site lies outside the row plate; the densities are others in the next call or in evaluation mode.
    """
    check_deterministic(model, guide, args, kwargs)
    return draw(model, guide, args, kwargs, num_samples).log_weights()


def log_mean_exp(log_values: Tensor, dim: int = 0) -> Tensor:
    """log of the mean of exp(log_values) along `dim`: of log-weights `(S, B)` the importance-weighted bound L_S, `(B,)`."""
    return log_values.logsumexp(dim) - math.log(log_values.shape[dim])


def log_mean_exp_variance(log_values: Tensor) -> Tensor:
    """Monte Carlo variance of `log_mean_exp` over S independent draws, for each row, by leaving out one draw at a time.

    (S − 1) / S Σ_s (L_s − L̄)², where L_s is the log of the mean of all draws except s, and L̄ the mean of these. Its
    expectation is at least the variance for S − 1 draws, however heavy the tail; that of the delta method is at most 1.

    References:
        The jackknife estimate of variance, Efron and Stein, 1981.

    Arguments:
        log_values: log-weights in nats, `(S, B)`.

    Returns:
        In nats², `(B,)`; infinite for one draw, and where all draws but one have weight 0.
    """
    total = log_values.logsumexp(0)
    largest = log_values.argmax(0, keepdim=True)
    # The share of the largest draw may round to 1: what remains without it is the sum of the others.
    others = log_values.scatter(0, largest, -math.inf).logsumexp(0, keepdim=True) - total
    remaining = torch.log1p(-(log_values - total).exp()).scatter(0, largest, others)
    variance = (len(log_values) - 1) * remaining.var(0, correction=0)
    return variance.masked_fill(others[0] == -math.inf, math.inf)
