"""KL divergences in closed form; those that torch and Pyro lack are registered with torch."""

from typing import Any

from torch import Tensor
from torch.distributions import Independent, LowRankMultivariateNormal, MultivariateNormal, Normal
from torch.distributions.kl import kl_divergence, register_kl


def _kl_full_normal(q_z: MultivariateNormal, p_z: Independent) -> Tensor:
    half_log_det = q_z._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return _kl_from_product(q_z, p_z, half_log_det)


def _kl_low_rank_normal(q_z: LowRankMultivariateNormal, p_z: Independent) -> Tensor:
    # det(W Wᵀ + diag d) = det(I + Wᵀ diag(1/d) W) Π d
    log_det_inner = q_z._capacitance_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    half_log_det = log_det_inner + 0.5 * q_z._unbroadcasted_cov_diag.log().sum(-1)
    return _kl_from_product(q_z, p_z, half_log_det)


def _kl_from_product(
    q_z: MultivariateNormal | LowRankMultivariateNormal, p_z: Independent, half_log_det: Tensor
) -> Tensor:
    """Return KL(q ‖ Π p_d) = Σ KL(q_d ‖ p_d) + TC(q), for normal q with marginals q_d.

    Each KL(q_d ‖ p_d) must have a closed form. The total correlation of a normal is
    Σ log σ_d − ½ log det Σ.
    """
    if p_z.reinterpreted_batch_ndims != 1 or p_z.event_shape != q_z.event_shape:
        raise NotImplementedError
    scale = q_z.variance.sqrt()
    marginal_kl = kl_divergence(Normal(q_z.loc, scale, validate_args=False), p_z.base_dist).sum(-1)
    return marginal_kl + scale.log().sum(-1) - half_log_det


register_kl(MultivariateNormal, Independent)(_kl_full_normal)
register_kl(LowRankMultivariateNormal, Independent)(_kl_low_rank_normal)


def closed_kl(q_z: Any, p_z: Any) -> Tensor | None:
    """Return KL(q(z | x) ‖ p(z)) in nats if a closed form is registered, and None if not."""
    try:
        return kl_divergence(q_z, p_z)
    except NotImplementedError:
        return None


def kl_or_draws(q_z: Any, p_z: Any, z: Tensor) -> Tensor:
    """Return KL(q(z | x) ‖ p(z)) in nats, or log q(z | x) − log p(z) without a closed form."""
    kl = closed_kl(q_z, p_z)
    return q_z.log_prob(z) - p_z.log_prob(z) if kl is None else kl


def closed_kl_by_dim(q_z: Any, p_z: Any) -> Tensor | None:
    """Return the KL of each latent dimension, `(*, D)`, in nats.

    It is None unless both are products over the dimensions with a closed form.
    """
    for part in (q_z, p_z):
        if not isinstance(part, Independent) or part.base_dist.event_dim != 0:
            return None
    return closed_kl(q_z.base_dist, p_z.base_dist)
