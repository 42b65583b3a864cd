"""Importance weights by row: the one estimator that log p(x), bounds and diagnostics share."""

import math
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyro_vae.store import store_as_found


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
        ValueError: a site lies outside the row plate.
    """
    with store_as_found(), pyro.plate("pyro_vae.samples", num_samples, dim=-2):
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    return _log_prob_by_row(model_trace) - _log_prob_by_row(guide_trace)


def log_mean_exp(log_values: Tensor, dim: int = 0) -> Tensor:
    """log of the mean of exp(log_values) along `dim`: of log-weights `(S, B)` the importance-weighted bound L_S, `(B,)`."""
    return log_values.logsumexp(dim) - math.log(log_values.shape[dim])


def _log_prob_by_row(trace: poutine.Trace) -> Tensor:
    total = torch.zeros(())
    for name, site in poutine.util.prune_subsample_sites(trace).nodes.items():
        if site["type"] == "sample":
            if not any(frame.dim == -1 for frame in site["cond_indep_stack"]):
                raise ValueError(
                    f"'model' and 'guide' must have all sample sites in a row plate at dim -1, but '{name}' is not."
                )
            distribution: Any = site["fn"]
            total = total + scale_and_mask(distribution.log_prob(site["value"]), mask=site["mask"])
    return total
