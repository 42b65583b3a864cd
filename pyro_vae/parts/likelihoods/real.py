"""Likelihoods of real numbers."""

import math
from abc import ABC, abstractmethod
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.data.moments import center_and_unit
from pyro_vae.distributions.gamma_family import StudentT
from pyro_vae.parts.contracts import Likelihood, Network
from pyro_vae.parts.likelihoods.links import fill_in_buffers
from pyro_vae.parts.likelihoods.scales import LearnedScale, Scale, as_scale, with_scale
from pyro_vae.support.checks import Shape, as_shape, real

# The floor of a learned scale as a share of the unit of x; for 256 grey levels in [0, 1] this is
# close to one level.
_FLOOR_SHARE = 0.01


class _LocationScaleLikelihood(Likelihood, ABC):
    """p(x | z) = Π f((x_i − loc_i(z)) / scale_i) / scale_i for some density f with mean 0.

    loc = center + unit · raw_loc. These buffers are 0 and 1 until `initialize` sets them to the
    location and the unit of the training rows. A subclass defines `family` and `spread`.

    Arguments:
        network: gives raw_loc, and also log_scale for a `NetworkScale`: `(N, D)` to
            `(N, 1 or 2, *x_shape)`.
        x_shape: the shape of one row of data.
        scale: a number (fixed), or a `Scale`; a `LearnedScale` for each element when omitted.
    """

    center: Tensor
    unit: Tensor

    def __init__(
        self, network: Network, x_shape: Shape, scale: float | Scale | None = None
    ) -> None:
        shape = as_shape(x_shape, "x_shape")
        scale = LearnedScale(shape) if scale is None else as_scale(scale, "scale")
        super().__init__(network, x_shape, out_shape=(1 + scale.num_outputs, *shape))
        self.scale = scale
        self.context_dim = with_scale(self.context_dim, scale, "scale")
        self.register_buffer("center", torch.zeros(shape))
        self.register_buffer("unit", torch.ones(shape))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        fill_in_buffers(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    @abstractmethod
    def spread(self) -> float:
        """Standard deviation of the density f, whose scale is 1."""

    @abstractmethod
    def family(self, loc: Tensor, scale: Tensor | float) -> dist.TorchDistribution:
        """Return the distribution of each element, with mean loc, batch shape `(*, *x_shape)`."""

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        raw_loc, *log_scale = self.call_network(z, y).unbind(-1 - len(self.x_shape))
        scale = self.scale.at([log + self.unit.log() for log in log_scale], y)
        return self.family(self.center + self.unit * raw_loc, scale).to_event(len(self.x_shape))

    def link(self, mean: Tensor) -> Tensor:
        return torch.cat([((mean - self.center) / self.unit).unsqueeze(0), self.scale.start(mean)])

    @torch.no_grad()
    def initialize(self, mean: Tensor, std: Tensor) -> None:
        _, unit = center_and_unit(mean.double(), std.double())
        self.center.copy_(mean)
        self.unit.copy_(unit)
        self.scale.initialize(std / self.spread, _FLOOR_SHARE * self.unit)


class NormalLikelihood(_LocationScaleLikelihood):
    """p(x | z) = Π N(x_i; loc_i(z), scale_i²) for real x.

    Arguments:
        network: gives raw_loc, and also log_scale for a `NetworkScale`: `(N, D)` to
            `(N, 1 or 2, *x_shape)`.
        x_shape: the shape of one row of data.
        scale: a number (fixed), a `LearnedScale` (one for all, or one for each element) or a
            `NetworkScale` (a function of z), in the units of x. When omitted, one is learned for
            each element.

    Example:
        >>> p_x = NormalLikelihood(nn.Linear(2, 64), x_shape=64, scale=0.1)(torch.zeros(5, 2))
        >>> p_x.log_prob(torch.ones(5, 64)).shape
        torch.Size([5])
    """

    spread = 1.0

    def family(self, loc: Tensor, scale: Tensor | float) -> dist.TorchDistribution:
        return dist.Normal(loc, scale)


class LaplaceLikelihood(_LocationScaleLikelihood):
    """p(x | z) = Π exp(−|x_i − loc_i(z)| / scale_i) / (2 scale_i) for real x.

    It penalises absolute errors, where a Normal penalises squared errors.

    Arguments:
        network: gives raw_loc, and also log_scale for a `NetworkScale`: `(N, D)` to
            `(N, 1 or 2, *x_shape)`.
        x_shape: the shape of one row of data.
        scale: a number (fixed), a `LearnedScale` (one for all, or one for each element) or a
            `NetworkScale` (a function of z), in the units of x. When omitted, one is learned for
            each element. The standard deviation is √2 times the scale.

    Example:
        >>> p_x = LaplaceLikelihood(nn.Linear(2, 64), x_shape=64, scale=0.1)(torch.zeros(5, 2))
        >>> p_x.variance.max()
        tensor(0.0200)
    """

    spread = 2**0.5

    def family(self, loc: Tensor, scale: Tensor | float) -> dist.TorchDistribution:
        return dist.Laplace(loc, scale)


class StudentTLikelihood(_LocationScaleLikelihood):
    """p(x | z) = Π t(x_i; df, loc_i(z), scale_i) for real x with outliers.

    The density falls only as |x_i|^(−df − 1). With e_i = (x_i − loc_i) / scale_i, in nats,
    log p = Σ log Γ((df + 1) / 2) − log Γ(df / 2) − ½ log(π df) − log scale_i
    − ½ (df + 1) log(1 + e_i² / df).
    The mean is loc. The variance is scale_i² df / (df − 2), infinite for df ≤ 2.

    References:
        Student-t variational autoencoder for robust density estimation, Takahashi et al., 2018.
            Deviation: df is given, not learned.

    Arguments:
        network: gives raw_loc, and also log_scale for a `NetworkScale`: `(N, D)` to
            `(N, 1 or 2, *x_shape)`.
        x_shape: the shape of one row of data.
        scale: a number (fixed), a `LearnedScale` (one for all, or one for each element) or a
            `NetworkScale` (a function of z), in the units of x. When omitted, one is learned for
            each element.
        df: the degrees of freedom, greater than 1, so that the mean exists; fewer degrees make
            heavier tails.

    Raises:
        ValueError: if `df` is not greater than 1.

    Example:
        >>> likelihood = StudentTLikelihood(nn.Linear(2, 64), x_shape=64, scale=0.1, df=3.0)
        >>> likelihood(torch.zeros(5, 2)).batch_shape
        torch.Size([5])
    """

    def __init__(
        self, network: Network, x_shape: Shape, scale: float | Scale | None = None, df: float = 4.0
    ) -> None:
        super().__init__(network, x_shape, scale)
        self.df = real(
            df,
            "df",
            of=self,
            holds=lambda number: 1 < number < math.inf,
            accepted="be greater than 1, where the mean exists, and finite",
        )

    @property
    def spread(self) -> float:
        """Standard deviation at scale 1 for df > 2; 1 if the variance is infinite."""
        return (self.df / (self.df - 2)) ** 0.5 if self.df > 2 else 1.0

    def family(self, loc: Tensor, scale: Tensor | float) -> dist.TorchDistribution:
        return StudentT(self.df, loc, scale)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, df={self.df}"
