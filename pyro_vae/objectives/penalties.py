"""Objectives that treat the rate KL(q(z | x) ‖ p(z)) otherwise than the ELBO does."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Independent

from pyro_vae.divergences import closed_kl, closed_kl_by_dim
from pyro_vae.importance import Draws, Site, log_mean_exp, log_prob
from pyro_vae.objectives.bounds import RowELBO


class FreeBitsELBO(RowELBO):
    """−E_q[log p(x | z)] + Σ_d max(λ, mean over rows of KL_d): a rate below λ in a dimension costs nothing.

    So no dimension is driven to its prior. Posterior and prior must be products over the dimensions with a KL in closed
    form. KL_d is averaged over the rows of the batch, as in the paper.

    References:
        Improved variational inference with inverse autoregressive flow, Kingma et al., 2016.

    Arguments:
        free_nats: λ, in nats for each dimension.
        num_particles: the number of draws of z that the first term averages.
        max_plate_nesting: how many plates deep model and guide go.

    Raises:
        ValueError: posterior or prior are no products over the dimensions.

    Example:
        >>> FreeBitsELBO(free_nats=0.5).loss(vae.model, vae.guide, vae.sample(3)) > 0
        True
    """

    def __init__(self, free_nats: float = 0.25, num_particles: int = 1, max_plate_nesting: int = 1) -> None:
        super().__init__(num_particles, max_plate_nesting)
        if not free_nats >= 0:
            raise ValueError(f"'free_nats' must be 0 or more, got {free_nats}.")
        self.free_nats = free_nats

    def differentiable_loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Tensor:
        draws = _unmasked(self.draw(model, guide, args, kwargs))
        loss = -draws.row_scale * _reconstruction(draws).sum()
        for site in draws.latents:
            prior = draws.prior(site)
            kl = closed_kl_by_dim(site["fn"], prior["fn"])
            if kl is None:
                raise ValueError(
                    f"'{site['name']}' must have a posterior and a prior that are products over dimensions, with a KL in "
                    f"closed form, for FreeBitsELBO, got {_family(site['fn'])} and {_family(prior['fn'])}."
                )
            rows = kl.reshape(-1, kl.shape[-1])
            num_rows = len(rows) / self.num_particles
            scale = torch.as_tensor(site["scale"]).mean()  # where rows have weights of their own
            loss = loss + scale * num_rows * rows.mean(0).clamp(min=self.free_nats).sum()
        return loss


class CapacityELBO(RowELBO):
    """−E_q[log p(x | z)] + γ |mean over rows of KL − C|: the rate is held at a capacity C, which training lets grow.

    C is the argument `kl_capacity` of a step, which `fit` passes by the schedule `LinearCapacity`; γ takes the place of a KL
    weight, which has no effect here.

    References:
        Understanding disentangling in β-VAE, Burgess et al., 2018.

    Arguments:
        gamma: the weight γ of the difference.
        num_particles: the number of draws of z that are averaged.
        max_plate_nesting: how many plates deep model and guide go.

    Example:
        >>> CapacityELBO(gamma=100.0).loss(vae.model, vae.guide, vae.sample(3), kl_capacity=5.0) > 0
        True
    """

    def __init__(self, gamma: float = 100.0, num_particles: int = 1, max_plate_nesting: int = 1) -> None:
        super().__init__(num_particles, max_plate_nesting)
        if not gamma > 0:
            raise ValueError(f"'gamma' must be greater than 0, got {gamma}.")
        self.gamma = gamma

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, kl_capacity: float | Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        if kl_capacity is None:
            raise ValueError("'kl_capacity' must be given to CapacityELBO, in nats per row, got none.")
        draws = _unmasked(self.draw(model, guide, args, kwargs))
        rate = draws.by_row((site, _kl(draws, site)) for site in draws.latents).mean(draws.dim)
        excess = rate.numel() * (rate.mean() - kl_capacity).abs()
        return draws.row_scale * (self.gamma * excess - _reconstruction(draws).sum())


class RateTerms(NamedTuple):
    """The rate in three parts, as means over rows in nats; their sum is the rate.

    Arguments:
        mutual_information: I(x; z) = KL(q(z, x) ‖ q(z) q(x)), what the code tells of the row.
        total_correlation: KL(q(z) ‖ Π_d q(z_d)), how much the dimensions depend on one another.
        dimension_kl: Σ_d KL(q(z_d) ‖ p(z_d)), how far each is from its prior.
    """

    mutual_information: Tensor
    total_correlation: Tensor
    dimension_kl: Tensor


class TotalCorrelationELBO(RowELBO):
    """−E_q[log p(x | z)] + I(x; z) + β TC(z) + Σ_d KL(q(z_d) ‖ p(z_d)): the β-TCVAE, which asks for independent dimensions.

    The aggregated posterior q(z) and its marginals are those of the batch, q(z_i) = (1 / M) Σ_j q(z_i | x_j) over M rows:
    minibatch-weighted sampling but for a constant, which has no gradient. So I(x; z) is at most log M here, and the terms
    of a small batch are biased.

    References:
        Isolating sources of disentanglement in variational autoencoders, Chen et al., 2018 (minibatch-weighted sampling).

    Arguments:
        beta: the weight β of the total correlation; 1 gives the ELBO.
        num_particles: the number of draws of z that are averaged.

    Raises:
        ValueError: the posterior is no product over the dimensions, or there is more than one latent site.

    Example:
        >>> TotalCorrelationELBO(beta=4.0).terms(vae.model, vae.guide, vae.sample(3))._fields
        ('mutual_information', 'total_correlation', 'dimension_kl')
    """

    def __init__(self, beta: float = 4.0, num_particles: int = 1) -> None:
        super().__init__(num_particles)
        if not beta > 0:
            raise ValueError(f"'beta' must be greater than 0, got {beta}.")
        self.beta = beta

    @torch.no_grad()
    def terms(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> RateTerms:
        """The three parts of the rate on this batch."""
        return RateTerms(*(term.mean() for term in self._terms(_unmasked(self.draw(model, guide, args, kwargs)))))

    def differentiable_loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Tensor:
        draws = _unmasked(self.draw(model, guide, args, kwargs))
        information, correlation, dimension_kl = self._terms(draws)
        scale = draws.latents[0]["scale"]
        rate = scale * (information + self.beta * correlation + dimension_kl).mean(draws.dim)
        return rate.sum() - draws.row_scale * _reconstruction(draws).sum()

    def _terms(self, draws: Draws) -> RateTerms:
        """Each of shape `(S, B)`."""
        if len(draws.latents) != 1 or len(draws.row_frames) != 1 or not _is_product(draws.latents[0]["fn"]):
            found = ", ".join(f"{site['name']}: {_family(site['fn'])}" for site in draws.latents)
            raise ValueError(
                "'guide' must have one latent site in one row plate, a product over dimensions, for TotalCorrelationELBO, "
                f"got {found or 'none'}."
            )
        (site,) = draws.latents
        z, q_z = site["value"], site["fn"].base_dist
        # log q(z_i | x_j) in each dimension, (i, S, j, D).
        pairs = q_z.log_prob(z.movedim(1, 0).unsqueeze(2))
        log_q_z = log_mean_exp(pairs.sum(-1), -1).T
        log_q_z_dims = log_mean_exp(pairs, -2).sum(-1).T
        log_p_z = log_prob(draws.prior(site))
        return RateTerms(log_prob(site) - log_q_z, log_q_z - log_q_z_dims, log_q_z_dims - log_p_z)


def _unmasked(draws: Draws) -> Draws:
    """The draws, unless their KL cannot be averaged over all rows."""
    for site in draws.latents:
        if site["mask"] is not None:
            raise ValueError(f"'{site['name']}' must not be masked for an objective that averages the KL over rows.")
    return draws


def _reconstruction(draws: Draws) -> Tensor:
    """E_q[log p(x | z)] of each row."""
    terms = ((site, draws.inner_scale(site) * log_prob(site)) for site in draws.observations)
    return draws.by_row(terms).mean(draws.dim)


def _kl(draws: Draws, site: Site) -> Tensor:
    """KL(q(z | x) ‖ p(z)) of each row, in closed form or by the draws."""
    prior = draws.prior(site)
    kl = closed_kl(site["fn"], prior["fn"])
    return log_prob(site) - log_prob(prior) if kl is None else kl


def _is_product(q_z: Any) -> bool:
    return isinstance(q_z, Independent) and q_z.reinterpreted_batch_ndims == len(q_z.event_shape) == 1


def _family(distribution: Any) -> str:
    inner = getattr(distribution, "base_dist", None)
    return type(distribution).__name__ + (f"({_family(inner)})" if inner is not None else "")
