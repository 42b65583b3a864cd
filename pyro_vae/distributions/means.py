"""Means of distributions, drawn where they have no closed form."""

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor


def distribution_mean(distribution: TorchDistribution, num_samples: int = 100) -> Tensor:
    """The mean, or the average of `num_samples` draws where the family has no closed one."""
    try:
        return distribution.mean
    except NotImplementedError:
        return distribution.sample(torch.Size([num_samples])).mean(0)
