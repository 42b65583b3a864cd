"""Objectives that treat the rate KL(q(z | x) ‖ p(z)) differently from the ELBO."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions import MaskedDistribution
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Independent

from pyro_vae.distributions.kl import closed_kl_by_dim, kl_or_draws
from pyro_vae.inference.draws import Draws
from pyro_vae.inference.sites import Site, log_prob, weighed
from pyro_vae.objectives.bounds import RowELBO
from pyro_vae.objectives.masks import by_element, kept_elements, without_masks
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import check_finite, not_negative, positive
from pyro_vae.support.tables import shown_in_short


@arguments_checked
class FreeBitsELBO(RowELBO):
    """Negative ELBO in which a rate below λ in a dimension costs nothing.

    The loss is −E_q[log p(x | z)] + Σ_d max(λ, mean over rows of KL_d). It drives no dimension to
    its prior. With λ = 0 it is the negative ELBO.

    Posterior and prior must be products over the dimensions with a KL in closed form. KL_d is
    averaged over the rows of the batch, as in the paper. Each row has its weight in z; a masked row
    or element has none.

    References:
        Improved variational inference with inverse autoregressive flow, Kingma et al., 2016.

    Arguments:
        free_nats: λ, in nats for each dimension.
        num_particles: the number of draws of z that the first term averages.
        max_plate_nesting: the largest depth of nested plates in model and guide.

    Raises:
        ValueError: if posterior or prior is not a product over the dimensions, or if a latent has
            different scales or masks in model and guide.

    Example:
        >>> FreeBitsELBO(free_nats=0.5).loss(vae.model, vae.guide, vae.sample(3)) > 0
        True
    """

    def __init__(
        self, free_nats: float = 0.25, num_particles: int = 1, max_plate_nesting: int = 1
    ) -> None:
        super().__init__(num_particles, max_plate_nesting)
        self.free_nats = not_negative(free_nats, "free_nats")
        check_finite(free_nats, "free_nats")

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        draws = self.draw(model, guide, args, kwargs)
        loss = _distortion(draws)
        for site in draws.latents:
            q_z, _ = without_masks(site["fn"])
            p_z, _ = without_masks(_prior(draws, site)["fn"])
            kl = closed_kl_by_dim(q_z, p_z)
            if kl is None:
                families = f"{_family(site['fn'])} and {_family(draws.prior(site)['fn'])}"
                raise ValueError(
                    f"'{site['name']}' must have a posterior and a prior that are products over "
                    f"dimensions, with a KL in closed form, for FreeBitsELBO, got {families}."
                )
            total = self._sum_by_dim(site, kl)
            weight = self._sum_by_dim(site, torch.ones_like(kl))
            loss = loss + total.clamp(min=self.free_nats * weight).sum()
        return loss

    def _sum_by_dim(self, site: Site, terms: Tensor) -> Tensor:
        """Sum the terms of a latent's elements over rows by their weights, `(D,)`.

        They are averaged over draws.
        """
        return _weighed_elements(site, terms).flatten(0, -2).sum(0) / self.num_particles


@arguments_checked
class CapacityELBO(RowELBO):
    """Objective that holds the rate at a capacity C, which grows during training.

    The loss is −E_q[log p(x | z)] + γ |mean over rows of KL − C|. With C = 0 and γ = 1 it is the
    negative ELBO.

    C is the argument `kl_capacity` of a step; `fit` sets it by the schedule `LinearCapacity`. The
    mean gives each row its weight in z, and a KL weight multiplies γ.

    References:
        Understanding disentangling in β-VAE, Burgess et al., 2018.

    Arguments:
        gamma: the weight γ of the difference.
        num_particles: the number of draws of z that are averaged.
        max_plate_nesting: the largest depth of nested plates in model and guide.

    Raises:
        ValueError: if a latent has different scales or masks in model and guide.

    Example:
        >>> CapacityELBO(gamma=100.0).loss(vae.model, vae.guide, vae.sample(3), kl_capacity=5.0) > 0
        True
    """

    scheduled = "kl_capacity"

    def __init__(
        self, gamma: float = 100.0, num_particles: int = 1, max_plate_nesting: int = 1
    ) -> None:
        super().__init__(num_particles, max_plate_nesting)
        self.gamma = positive(gamma, "gamma")
        check_finite(gamma, "gamma")

    def differentiable_loss(
        self,
        model: Callable,
        guide: Callable,
        *args: Any,
        kl_capacity: float | Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        if kl_capacity is None:
            raise ValueError(
                "'kl_capacity' must be given to CapacityELBO, in nats per row, got none."
            )
        draws = self.draw(model, guide, args, kwargs)
        rate = draws.by_row((site, site["scale"] * _kl(draws, site)) for site in draws.latents)
        # A row has the weight of its latents, and the highest of them if they differ.
        weights = [_row_weight(draws, site).expand_as(rate) for site in draws.latents]
        excess = rate - kl_capacity * torch.stack(weights).amax(0)
        return _distortion(draws) + self.gamma * excess.mean(draws.dim).sum().abs()


@shown_in_short
class RateTerms(NamedTuple):
    """Three parts of the rate, as means over rows by their weights, in nats.

    Their sum is the rate.

    Arguments:
        mutual_information: I(x; z) = KL(q(z, x) ‖ q(z) q(x)), the information of z about its row.
        total_correlation: KL(q(z) ‖ Π_d q(z_d)), the dependence between the dimensions.
        dimension_kl: Σ_d KL(q(z_d) ‖ p(z_d)), the distance of each dimension from its prior.
    """

    mutual_information: Tensor
    total_correlation: Tensor
    dimension_kl: Tensor


@arguments_checked
class TotalCorrelationELBO(RowELBO):
    """Objective of the β-TCVAE, which rewards independent dimensions.

    The loss is −E_q[log p(x | z)] + I(x; z) + β TC(z) + Σ_d KL(q(z_d) ‖ p(z_d)).

    The aggregated posterior q(z) and its marginals are those of the batch:
    q(z_i) = (1 / M) Σ_j q(z_i | x_j) over M rows. This is minibatch-weighted sampling except for a
    constant, which has no gradient. So I(x; z) is at most log M here, and the terms of a small
    batch are biased. All means give each row its weight in z; a masked row has none.

    References:
        Isolating sources of disentanglement in variational autoencoders, Chen et al., 2018
        (minibatch-weighted sampling).

    Arguments:
        beta: the weight β of the total correlation; 1 gives the ELBO.
        num_particles: the number of draws of z that are averaged.

    Raises:
        ValueError: if the posterior is not a product over the dimensions. If there is more than one
            latent site. If single elements of z are masked. If the latent has different scales or
            masks in model and guide.

    Example:
        >>> TotalCorrelationELBO(beta=4.0).terms(vae.model, vae.guide, vae.sample(3))._fields
        ('mutual_information', 'total_correlation', 'dimension_kl')
    """

    def __init__(self, beta: float = 4.0, num_particles: int = 1) -> None:
        super().__init__(num_particles)
        self.beta = positive(beta, "beta")
        check_finite(beta, "beta")

    @torch.no_grad()
    def terms(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> RateTerms:
        """Return the three parts of the rate on this batch."""
        draws = self.draw(model, guide, args, kwargs)
        shares = _row_shares(draws, _one_latent(draws))
        means = [(shares * term.mean(draws.dim)).sum() for term in self._terms(draws)]
        return RateTerms(*means)

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        draws = self.draw(model, guide, args, kwargs)
        information, correlation, dimension_kl = self._terms(draws)
        (site,) = draws.latents
        rate = weighed(site, information + self.beta * correlation + dimension_kl)
        return _distortion(draws) + rate.mean(draws.dim).sum()

    def _terms(self, draws: Draws) -> RateTerms:
        """Return the three parts of the rate for each draw and row, each `(S, B)`."""
        site = _one_latent(draws)
        prior = _prior(draws, site)
        z = site["value"]
        log_shares = _row_shares(draws, site).log()
        q_z = site["fn"].base_dist
        # log q(z_i | x_j) in each dimension, (i, S, j, D).
        pairs = q_z.log_prob(z.movedim(1, 0).unsqueeze(2))
        log_q_z = (pairs.sum(-1) + log_shares).logsumexp(-1).T
        log_q_z_dims = (pairs + log_shares.unsqueeze(-1)).logsumexp(-2).sum(-1).T
        return RateTerms(
            log_prob(site) - log_q_z, log_q_z - log_q_z_dims, log_q_z_dims - log_prob(prior)
        )


def _one_latent(draws: Draws) -> Site:
    """Return the only latent site, which must be a product over dimensions in one row plate."""
    if len(draws.latents) == len(draws.row_frames) == 1 and _is_product(draws.latents[0]["fn"]):
        return draws.latents[0]
    found = ", ".join(f"{site['name']}: {_family(site['fn'])}" for site in draws.latents)
    raise ValueError(
        "'guide' must have one latent site in one row plate, a product over dimensions, for "
        f"TotalCorrelationELBO, got {found or 'none'}."
    )


def _row_shares(draws: Draws, site: Site) -> Tensor:
    """Return the share of each row in the weight of all rows, `(B,)`."""
    weights = _row_weight(draws, site).select(draws.dim, 0)
    return weights / weights.sum()


def _prior(draws: Draws, site: Site) -> Site:
    """Return the prior of a latent, and check that it has the latent's scale and mask.

    The KL between the two has one weight.
    """
    prior = draws.prior(site)
    if poutine.is_validation_enabled():
        pairs = (site["scale"], prior["scale"]), (kept_elements(site), kept_elements(prior))
        if not all(_same(*pair) for pair in pairs):
            raise ValueError(
                f"'{site['name']}' must have the same scale and mask in model and guide, since its "
                "KL has one weight, got others: put poutine.scale and poutine.mask around both."
            )
    return prior


def _distortion(draws: Draws) -> Tensor:
    """Return −E_q[log p(x | z)], summed over the rows by their weights."""
    terms = ((site, site["scale"] * log_prob(site)) for site in draws.observations)
    return -draws.by_row(terms).mean(draws.dim).sum()


def _kl(draws: Draws, site: Site) -> Tensor:
    """Return KL(q(z | x) ‖ p(z)) of each row, in closed form or from the draws."""
    prior = _prior(draws, site)
    return kl_or_draws(site["fn"], prior["fn"], site["value"])


def _weighed_elements(site: Site, terms: Tensor) -> Tensor:
    """Return terms of a latent's elements, such as the KL, times its scale; 0 where masked."""
    return scale_and_mask(
        terms, by_element(site["scale"], site["fn"].event_dim), kept_elements(site)
    )


def _row_weight(draws: Draws, site: Site) -> Tensor:
    """Return the weight of each row in a latent, 0 if the latent is masked in the whole row.

    Draws and rows keep their dimensions.
    """
    weights = _weighed_elements(site, torch.ones_like(site["value"]))
    event_dim = site["fn"].event_dim
    inside = [dim for dim in range(-weights.dim(), 0) if dim + event_dim not in draws.kept_dims]
    highest = weights.amax(inside, keepdim=True) if inside else weights
    return highest.reshape(highest.shape[: highest.dim() - event_dim])


def _same(first: float | Tensor, second: float | Tensor) -> bool:
    return torch.allclose(torch.as_tensor(first).double(), torch.as_tensor(second).double())


def _is_product(q_z: Any) -> bool:
    is_independent = (
        isinstance(q_z, Independent) and q_z.reinterpreted_batch_ndims == len(q_z.event_shape) == 1
    )
    return is_independent and not isinstance(q_z.base_dist, MaskedDistribution)


def _family(distribution: Any) -> str:
    inner = getattr(distribution, "base_dist", None)
    return type(distribution).__name__ + (f"({_family(inner)})" if inner is not None else "")
