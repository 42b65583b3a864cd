"""Importance-weighted bounds on log p(x), tighter than the ELBO, with gradient estimators."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer import ELBO
from torch import Tensor

from pyro_vae.inference.draws import Draws
from pyro_vae.inference.programs import Programs
from pyro_vae.inference.surrogates import checked_loss
from pyro_vae.inference.weights import log_mean_exp
from pyro_vae.objectives.masks import by_element, kept_elements
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import whole


@arguments_checked
class RowELBO(ELBO, ABC):
    """A Pyro objective that is computed row by row, from one vectorised pass for all draws.

    Its value is the negative bound, summed over rows by their weights. The weight of a row is the
    number of rows that it stands for. It comes from a subsampled row plate, and from each
    `poutine.scale` around all sites of the model. Other scales, such as a KL weight, act on the
    terms of single sites. A masked row counts as none.

    It works with Pyro's SVI and with ours, plain and traced. A subclass defines
    `differentiable_loss`.

    Arguments:
        num_particles: the number K of draws for each row.
        max_plate_nesting: the largest depth of nested plates in model and guide.
    """

    def __init__(self, num_particles: int = 1, max_plate_nesting: int = 1) -> None:
        whole(num_particles, "num_particles")
        whole(max_plate_nesting, "max_plate_nesting", least=0)
        super().__init__(num_particles, max_plate_nesting)

    @abstractmethod
    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the loss in nats, with the gradient that minimises it.

        The arguments go to model and guide.
        """

    @torch.no_grad()
    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """Return the loss in nats."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        return checked_loss(self, loss).item()

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """Return the loss in nats, and add its gradients to those of the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        checked_loss(self, loss).backward()
        return loss.item()

    def draw(
        self, model: Callable, guide: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Draws:
        """Return K draws of the latents, which must be reparameterised."""
        programs = Programs(model, guide, args, kwargs)
        draws = programs.draw(self.num_particles, self.max_plate_nesting)
        for site in draws.latents:
            if not site["fn"].has_rsample:
                raise ValueError(
                    f"'guide' must draw '{site['name']}' by a distribution with rsample for "
                    f"{type(self).__name__}, got {type(site['fn']).__name__}."
                )
        return draws

    def _get_trace(self, model: Callable, guide: Callable, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError  # Pyro's method for one draw at a time is not used here


class ImportanceWeightedELBO(RowELBO):
    """Importance-weighted bound L_K on log p(x), which rises with K from the ELBO.

    L_K = E[log (1/K) Σ_k w_k] with w_k = p(x, z_k) / q(z_k | x).

    References:
        Importance weighted autoencoders, Burda et al., 2015.

    Arguments:
        num_particles: the number K of draws for each row.
        max_plate_nesting: the largest depth of nested plates in model and guide.

    Example:
        >>> ImportanceWeightedELBO(num_particles=5).loss(vae.model, vae.guide, vae.sample(3)) > 0
        True
    """

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        draws = self.draw(model, guide, args, kwargs)
        return -(draws.row_weight * log_mean_exp(draws.scaled_log_weights(), draws.dim)).sum()


class StickingTheLandingELBO(RowELBO):
    """L_K as in `ImportanceWeightedELBO`, with zero gradient for an exact posterior.

    The guide's parameters get a gradient through z alone. The gradient through the density
    log q(z | x) of a given z (the score) is left out: at K = 1 it has mean zero, but not variance
    zero. At K = 1 the remaining gradient is unbiased; for more draws it is biased.

    References:
        Sticking the landing: simple, lower-variance gradient estimators for variational inference,
        Roeder et al., 2017.

    Arguments:
        num_particles: the number K of draws for each row.
        max_plate_nesting: the largest depth of nested plates in model and guide.

    Example:
        >>> StickingTheLandingELBO().loss(vae.model, vae.guide, vae.sample(3)) > 0
        True
    """

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        draws = self.draw(model, guide, args, kwargs)
        log_weights = draws.scaled_log_weights() + _cancel_score(draws)
        return -(draws.row_weight * log_mean_exp(log_weights, draws.dim)).sum()


class DoublyReparameterizedELBO(RowELBO):
    """L_K as in `ImportanceWeightedELBO`, with an unbiased gradient that stays strong for large K.

    This is about the gradient for the guide: its signal does not fade as K grows. With normalised
    weights v_k = w_k / Σ w, the model's gradient is Σ v_k ∇ log w_k. The guide's is
    Σ v_k² ∇ log w_k through z_k alone. With a KL weight β the factor v_k² becomes
    v_k (1 − β + β v_k), and it becomes v_k if the latent is masked.

    References:
        Doubly reparameterized gradient estimators for Monte Carlo objectives, Tucker et al., 2018.

    Arguments:
        num_particles: the number K of draws for each row.
        max_plate_nesting: the largest depth of nested plates in model and guide.

    Example:
        >>> DoublyReparameterizedELBO(num_particles=5).loss(vae.model, vae.guide, vae.sample(3)) > 0
        True
    """

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        draws = self.draw(model, guide, args, kwargs)
        cancelled = _cancel_score(draws)
        (latent,) = draws.latents
        z = latent["value"]
        # Without the clone, a flow that knows its own draw would compute log q(z | x) without z,
        # and so bypass the hook below.
        latent["value"] = z.clone()
        log_weights = draws.scaled_log_weights() + cancelled
        shares = log_weights.detach().softmax(draws.dim)
        if z.requires_grad:
            event_dim = latent["fn"].event_dim
            shares_of_z = by_element(shares, event_dim)
            kl_weight = scale_and_mask(
                torch.ones_like(shares_of_z),
                by_element(draws.inner_scale(latent), event_dim),
                kept_elements(latent),
            )
            factor = 1 - kl_weight + kl_weight * shares_of_z
            z.register_hook(lambda gradient: factor * gradient)
        bound = log_mean_exp(log_weights, draws.dim).detach()
        surrogate = (shares * log_weights).sum(draws.dim)
        return -(draws.row_weight * (bound + surrogate - surrogate.detach())).sum()


def _cancel_score(draws: Draws) -> Tensor:
    """Return zero, with the gradient that log q(z | x) has for a given z.

    Added to the log-weights, it removes the score from their gradient.
    """
    if len(draws.latents) != 1:
        names = ", ".join(site["name"] for site in draws.latents)
        raise ValueError(
            f"'guide' must draw its latents at one site for this objective, got {names or 'none'}."
        )
    (site,) = draws.latents
    log_q = site["fn"].log_prob(site["value"].detach())
    return draws.by_row([(site, draws.inner_scale(site) * (log_q - log_q.detach()))])
