"""Likelihoods of real numbers."""

from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.gamma_distributions import StudentT
from pyro_vae.likelihoods.scales import Scale, as_scale
from pyro_vae.parts import Likelihood, Network, Shape, as_shape


class _LocationScaleLikelihood(Likelihood, ABC):
    """p(x | z) = Π f((x_i − loc_i(z)) / scale_i) / scale_i for some density f with mean 0.

    A subclass defines `family`.

    Arguments:
        network: gives loc, and log_scale where `scale` asks for it: `(N, D)` to `(N, 1 or 2, *x_shape)`.
        x_shape: the shape of one row of data.
        scale: a number (fixed), or a `Scale`.
    """

    def __init__(self, network: Network, x_shape: Shape, scale: float | Scale = 1.0) -> None:
        scale = as_scale(scale)
        super().__init__(network, x_shape, out_shape=(1 + scale.num_outputs, *as_shape(x_shape, "x_shape")))
        self.scale = scale

    @abstractmethod
    def family(self, loc: Tensor, scale: Tensor | float) -> dist.TorchDistribution:
        """The distribution of each element, with mean loc and with batch shape `(*, *x_shape)`."""

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        loc, *raw_scale = self.call_network(z, y).unbind(-1 - len(self.x_shape))
        return self.family(loc, self.scale(*raw_scale)).to_event(len(self.x_shape))

    def link(self, mean: Tensor) -> Tensor:
        return torch.cat([mean.unsqueeze(0), self.scale.start(mean)])


class NormalLikelihood(_LocationScaleLikelihood):
    """p(x | z) = Π N(x_i; loc_i(z), scale_i²) for real x.

    Arguments:
        network: gives loc, and log_scale where `scale` asks for it: `(N, D)` to `(N, 1 or 2, *x_shape)`.
        x_shape: the shape of one row of data.
        scale: a number (fixed), `LearnedScale` (one for all, or one an element) or `NetworkScale` (a function of z).

    Example:
        >>> p_x = NormalLikelihood(nn.Linear(2, 64), x_shape=64, scale=0.1)(torch.zeros(5, 2))
        >>> p_x.log_prob(torch.ones(5, 64)).shape
        torch.Size([5])
    """

    def family(self, loc: Tensor, scale: Tensor | float) -> dist.TorchDistribution:
        return dist.Normal(loc, scale)


class LaplaceLikelihood(_LocationScaleLikelihood):
    """p(x | z) = Π exp(−|x_i − loc_i(z)| / scale_i) / (2 scale_i) for real x: absolute errors, where a Normal squares them.

    Arguments:
        network: gives loc, and log_scale where `scale` asks for it: `(N, D)` to `(N, 1 or 2, *x_shape)`.
        x_shape: the shape of one row of data.
        scale: a number (fixed), `LearnedScale` (one for all, or one an element) or `NetworkScale` (a function of z), in
            the units of x; the standard deviation is √2 times the scale.

    Example:
        >>> LaplaceLikelihood(nn.Linear(2, 64), x_shape=64, scale=0.1)(torch.zeros(5, 2)).variance.max()
        tensor(0.0200)
    """

    def family(self, loc: Tensor, scale: Tensor | float) -> dist.TorchDistribution:
        return dist.Laplace(loc, scale)


class StudentTLikelihood(_LocationScaleLikelihood):
    """p(x | z) = Π t(x_i; df, loc_i(z), scale_i) for real x with outliers, since the density falls as |x_i|^(−df − 1).

    log p = Σ log Γ((df + 1) / 2) − log Γ(df / 2) − ½ log(π df) − log scale_i − ½ (df + 1) log(1 + e_i² / df), in nats, with
    e_i = (x_i − loc_i) / scale_i. The mean is loc; the variance is scale_i² df / (df − 2), infinite for df ≤ 2.

    References:
        Student-t variational autoencoder for robust density estimation, Takahashi et al., 2018. Deviation: df is given, not
        learned.

    Arguments:
        network: gives loc, and log_scale where `scale` asks for it: `(N, D)` to `(N, 1 or 2, *x_shape)`.
        x_shape: the shape of one row of data.
        scale: a number (fixed), `LearnedScale` (one for all, or one an element) or `NetworkScale` (a function of z), in
            the units of x.
        df: the degrees of freedom, greater than 1, so that there is a mean; the fewer, the heavier the tails.

    Example:
        >>> StudentTLikelihood(nn.Linear(2, 64), x_shape=64, scale=0.1, df=3.0)(torch.zeros(5, 2)).batch_shape
        torch.Size([5])
    """

    def __init__(self, network: Network, x_shape: Shape, scale: float | Scale = 1.0, df: float = 4.0) -> None:
        super().__init__(network, x_shape, scale)
        if not df > 1:
            raise ValueError(f"'df' of StudentTLikelihood must be greater than 1, where the mean exists, got {df}.")
        self.df = df

    def family(self, loc: Tensor, scale: Tensor | float) -> dist.TorchDistribution:
        return StudentT(self.df, loc, scale)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, df={self.df}"
