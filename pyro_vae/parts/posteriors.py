"""Amortised posteriors q(z | x)."""

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.parts.contracts import Network, Posterior
from pyro_vae.parts.finite import HIGHEST_LOG, held
from pyro_vae.parts.flows import AffineFlow, Flow, flow_distribution, transforms_of
from pyro_vae.support.checks import Shape, not_negative, whole

# Factor on the network's correlation outputs, so that q starts close to a diagonal normal.
_SMALL = 0.1
# Bound on the entries of a column of W: beyond it, single precision cannot factorise I + Wᵀ W.
_LONGEST = 1e3


class DiagNormalPosterior(Posterior):
    """q(z | x) = N(z; loc(x), diag scale(x)²), with scale = min_scale + exp(log_scale).

    References:
        Auto-encoding variational Bayes, Kingma and Welling, 2013.

    Arguments:
        network: gives loc and log_scale for each row of x: `(N, *x_shape)` to `(N, 2, D)`.
        x_shape: the shape of one row of data.
        latent_dim: the number D of latent dimensions.
        min_scale: the floor of the scale; without it exp can underflow to 0, which no normal
            distribution allows.

    Example:
        >>> q_z = DiagNormalPosterior(nn.Linear(64, 4), x_shape=64, latent_dim=2)
        >>> q_z(torch.zeros(5, 64))
        Independent(Normal(loc: torch.Size([5, 2]), scale: torch.Size([5, 2])), 1)
    """

    def __init__(
        self, network: Network, x_shape: Shape, latent_dim: int, min_scale: float = 1e-6
    ) -> None:
        super().__init__(network, x_shape, latent_dim, out_shape=(2, latent_dim))
        self.min_scale = not_negative(min_scale, "min_scale")

    def forward(self, x: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        loc, log_scale = self.call_network(x, y).unbind(-2)
        return dist.Normal(loc, self.min_scale + held(log_scale, HIGHEST_LOG).exp()).to_event(1)


class FullNormalPosterior(Posterior):
    """q(z | x) = N(z; loc(x), L(x) L(x)ᵀ), a normal with full covariance.

    L = diag scale (I + S / (10 D)), with S strictly lower triangular and
    scale = min_scale + exp(log_scale). So S need not shrink with the scale. The factor 1 / D is
    for optimisers that move all outputs equally far: without it, the noise of up to D
    correlations would drown a dimension.

    References:
        Variational inference with normalizing flows, Rezende and Mohamed, 2015: why the diagonal
            is not enough.

    Arguments:
        network: gives loc, log_scale and the entries of S for each row of x: `(N, *x_shape)` to
            `(N, D (D + 3) / 2)`.
        x_shape: the shape of one row of data.
        latent_dim: the number D of latent dimensions.
        min_scale: the floor of the scale.

    Example:
        >>> q_z = FullNormalPosterior(nn.Linear(64, 5), x_shape=64, latent_dim=2)
        >>> q_z(torch.zeros(5, 64)).covariance_matrix.shape
        torch.Size([5, 2, 2])
    """

    positions: Tensor

    def __init__(
        self, network: Network, x_shape: Shape, latent_dim: int, min_scale: float = 1e-6
    ) -> None:
        dim = whole(latent_dim, "latent_dim")
        super().__init__(network, x_shape, dim, out_shape=dim * (dim + 3) // 2)
        self.min_scale = not_negative(min_scale, "min_scale")
        rows, columns = torch.tril_indices(dim, dim, offset=-1)
        self.register_buffer("positions", dim * rows + columns, persistent=False)

    def forward(self, x: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        dim = self.latent_dim
        sizes = [dim, dim, dim * (dim - 1) // 2]
        loc, log_scale, below = self.call_network(x, y).split(sizes, dim=-1)
        zeros = loc.new_zeros(*loc.shape[:-1], dim * dim)
        strict = zeros.index_copy(-1, self.positions, _SMALL * below / dim)
        scale = self.min_scale + held(log_scale, HIGHEST_LOG).exp()
        scale_tril = scale.unsqueeze(-1) * strict.reshape(*loc.shape, dim) + torch.diag_embed(scale)
        return dist.MultivariateNormal(loc, scale_tril=scale_tril)


class LowRankNormalPosterior(Posterior):
    """q(z | x) = N(z; loc(x), diag scale (I + W Wᵀ) diag scale), low rank plus diagonal.

    scale = min_scale + exp(log_scale). W has R columns. They are a tenth of the network's outputs,
    so that q starts near the diagonal normal. The family lies between the diagonal normal (R = 0)
    and the full normal (R = D), and its cost grows with D R.

    Arguments:
        network: gives loc, log_scale and R columns for each row of x: `(N, *x_shape)` to
            `(N, 2 + R, D)`.
        x_shape: the shape of one row of data.
        latent_dim: the number D of latent dimensions.
        rank: the number R of columns.
        min_scale: the floor of the scale.

    Example:
        >>> q_z = LowRankNormalPosterior(nn.Linear(64, 12), x_shape=64, latent_dim=4, rank=1)
        >>> q_z(torch.zeros(5, 64)).cov_factor.shape
        torch.Size([5, 4, 1])
    """

    def __init__(
        self,
        network: Network,
        x_shape: Shape,
        latent_dim: int,
        rank: int = 2,
        min_scale: float = 1e-3,
    ) -> None:
        columns = whole(rank, "rank")
        super().__init__(network, x_shape, latent_dim, out_shape=(2 + columns, latent_dim))
        self.rank = columns
        self.min_scale = not_negative(min_scale, "min_scale")

    def forward(self, x: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        loc, log_scale, *columns = self.call_network(x, y).unbind(-2)
        scale = self.min_scale + held(log_scale, HIGHEST_LOG).exp()
        stacked = held(torch.stack(columns, dim=-1), _LONGEST, -_LONGEST)
        factor = _SMALL * scale.unsqueeze(-1) * stacked
        return dist.LowRankMultivariateNormal(loc, factor, scale**2)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}"


class FlowPosterior(Posterior):
    """q(z | x) of z = f(ε; h(x)), with ε ~ N(loc(x), diag scale(x)²) and an invertible flow f.

    With an `AffineFlow` it is the inverse autoregressive flow. Scoring its own draws is then free;
    scoring another z costs D passes of f's networks. With a `SplineFlow` both are fast.

    References:
        Improved variational inference with inverse autoregressive flow, Kingma et al., 2016.

    Arguments:
        network: gives loc, log_scale and h for each row of x: `(N, *x_shape)` to
            `(N, 2 D + num_features)`.
        x_shape: the shape of one row of data.
        latent_dim: the number D of latent dimensions.
        flow: the transforms; an `AffineFlow` when omitted.
        num_features: the size of h, which conditions the transforms.
        min_scale: the floor of the base's scale.

    Example:
        >>> network = nn.Linear(64, 2 * 2 + 16)
        >>> q_z = FlowPosterior(network, 64, latent_dim=2, flow=SplineFlow(), num_features=16)
        >>> q_z(torch.zeros(5, 64)).rsample().shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        network: Network,
        x_shape: Shape,
        latent_dim: int,
        flow: Flow | None = None,
        num_features: int = 32,
        min_scale: float = 1e-6,
    ) -> None:
        dim = whole(latent_dim, "latent_dim")
        features = whole(num_features, "num_features")
        super().__init__(network, x_shape, dim, out_shape=2 * dim + features)
        self.num_features = features
        self.min_scale = not_negative(min_scale, "min_scale")
        self.transforms = transforms_of(flow, AffineFlow, dim, features)

    def forward(self, x: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        sizes = [self.latent_dim, self.latent_dim, self.num_features]
        loc, log_scale, features = self.call_network(x, y).split(sizes, dim=-1)
        base = dist.Normal(loc, self.min_scale + held(log_scale, HIGHEST_LOG).exp()).to_event(1)
        return flow_distribution(self.transforms(features).inv, base)
