"""Amortised posteriors q(z | x)."""

import pyro.distributions as dist
from torch import Tensor

from pyro_vae.parts import Network, Posterior, Shape


class DiagNormalPosterior(Posterior):
    """q(z | x) = N(z; loc(x), diag scale(x)²), with scale = min_scale + exp(log_scale).

    References:
        Auto-encoding variational Bayes, Kingma and Welling, 2013.

    Arguments:
        network: gives loc and log_scale for each row of x: `(N, *x_shape)` to `(N, 2, D)`.
        x_shape: the shape of one row of data.
        latent_dim: the number D of latent dimensions.
        min_scale: the floor of the scale; without it exp can underflow to 0, which is no normal distribution.

    Example:
        >>> q_z = DiagNormalPosterior(nn.Linear(64, 4), x_shape=64, latent_dim=2)
        >>> q_z(torch.zeros(5, 64))
        Independent(Normal(loc: torch.Size([5, 2]), scale: torch.Size([5, 2])), 1)
    """

    def __init__(self, network: Network, x_shape: Shape, latent_dim: int, min_scale: float = 1e-6) -> None:
        super().__init__(network, x_shape, latent_dim, out_shape=(2, latent_dim))
        self.min_scale = min_scale

    def forward(self, x: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        loc, log_scale = self.call_network(x, y).unbind(-2)
        return dist.Normal(loc, self.min_scale + log_scale.exp()).to_event(1)
