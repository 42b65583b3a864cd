"""Priors p(z)."""

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.parts import Prior


class StandardNormalPrior(Prior):
    """p(z) = N(z; 0, I): what the latent looks like before any data; a context leaves it as it is.

    References:
        Auto-encoding variational Bayes, Kingma and Welling, 2013.

    Arguments:
        latent_dim: the number D of latent dimensions.

    Example:
        >>> StandardNormalPrior(latent_dim=20)().event_shape
        torch.Size([20])
    """

    loc: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        # Not data of the model, but the tensor that carries its device and dtype.
        self.register_buffer("loc", torch.zeros(self.latent_dim), persistent=False)

    def forward(self, y: Tensor | None = None) -> dist.TorchDistribution:
        return dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)
