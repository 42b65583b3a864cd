"""Means and standard deviations of distributions, from draws without a closed form."""

from typing import NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_vae.support.tables import shown_in_short

# Draws that are averaged if a family has no mean in closed form.
_NUM_DRAWS = 100


@shown_in_short
class MeanEstimate(NamedTuple):
    """Mean with the variance of its estimate, which is 0 for a closed form."""

    mean: Tensor
    variance: Tensor


def estimated_mean(distribution: TorchDistribution, num_samples: int = _NUM_DRAWS) -> MeanEstimate:
    """Return the mean, or the average of draws if the family has no closed form."""
    try:
        mean = distribution.mean
    except NotImplementedError:
        draws = distribution.sample(torch.Size([num_samples]))
        return MeanEstimate(draws.mean(0), draws.var(0) / num_samples)
    return MeanEstimate(mean, torch.zeros_like(mean))


def distribution_mean(distribution: TorchDistribution, num_samples: int = _NUM_DRAWS) -> Tensor:
    """Return the mean, or the average of `num_samples` draws if there is no closed form."""
    return estimated_mean(distribution, num_samples).mean


def distribution_stddev(distribution: TorchDistribution, num_samples: int = _NUM_DRAWS) -> Tensor:
    """Return the standard deviation, or that of `num_samples` draws if there is no closed form."""
    try:
        return distribution.stddev
    except NotImplementedError:
        return distribution.sample(torch.Size([num_samples])).std(0)
