"""Importance weights by row, which log p(x), bounds and diagnostics share."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_vae.inference.arguments import check_tensor, takes_programs
from pyro_vae.inference.determinism import check_deterministic
from pyro_vae.inference.programs import Programs
from pyro_vae.support.checks import whole


@takes_programs
def log_weights(
    model: Callable, guide: Callable, *args: Any, num_samples: int, **kwargs: Any
) -> Tensor:
    """Return log p(x, z) − log q(z | x) at draws z ~ q(z | x), for each sample and each row.

    Any Pyro model and guide will do if all their sites lie in one row plate at dim -1. Scales (of a
    subsampled plate, of a KL weight) are ignored; masks count. One vectorised pass takes all
    samples.

    Arguments:
        model: the Pyro model.
        guide: the Pyro guide.
        *args: passed to both.
        **kwargs: passed to both. A model with a keyword whose name is taken here, such as
            `num_samples`, is called through `functools.partial`.
        num_samples: the number S of draws for each row.

    Returns:
        Log-weights in nats, `(S, B)`.

    Raises:
        ValueError: if a site lies outside the row plate, or if the densities change in the next
            call or in evaluation mode.
    """
    whole(num_samples, "num_samples")
    programs = Programs(model, guide, args, kwargs)
    check_deterministic(programs)
    return programs.draw(num_samples).log_weights()


def log_mean_exp(log_values: Tensor, dim: int = 0) -> Tensor:
    """Return the log of the mean of exp(log_values) along `dim`.

    For log-weights, `(S, B)`, it is the importance-weighted bound L_S, `(B,)`.
    """
    _check(log_values)
    return log_values.logsumexp(dim) - math.log(log_values.shape[dim])


def log_mean_exp_variance(log_values: Tensor) -> Tensor:
    """Return the jackknife variance of `log_mean_exp` over S independent draws, for each row.

    It is (S − 1) / S Σ_s (L_s − L̄)². L_s is the log of the mean of all draws except s, and L̄ is
    the mean of the L_s. Its expectation is at least the variance for S − 1 draws, however heavy the
    tail. The variance of the delta method is at most 1.

    References:
        The jackknife estimate of variance, Efron and Stein, 1981.

    Arguments:
        log_values: log-weights in nats, `(S, B)`.

    Returns:
        In nats², `(B,)`; infinite for one draw, or if all draws except one have weight 0.
    """
    _check(log_values)
    total = log_values.logsumexp(0)
    largest = log_values.argmax(0, keepdim=True)
    # The share of the largest draw may round to 1. So the remainder without it is computed as the
    # sum of the others.
    others = log_values.scatter(0, largest, -math.inf).logsumexp(0, keepdim=True) - total
    remaining = torch.log1p(-(log_values - total).exp()).scatter(0, largest, others)
    variance = (len(log_values) - 1) * remaining.var(0, correction=0)
    return variance.masked_fill(others[0] == -math.inf, math.inf)


def _check(log_values: Tensor) -> None:
    check_tensor(log_values, "log_values")
    if not log_values.dim() or not log_values.numel():
        raise ValueError(
            "'log_values' must have the shape (draws, ...) with at least one draw, got "
            f"{tuple(log_values.shape)}."
        )
