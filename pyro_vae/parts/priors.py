"""Priors p(z)."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.data.arrays import as_tensor
from pyro_vae.data.missing import filled
from pyro_vae.parts.checks import check_shape
from pyro_vae.parts.contracts import (
    NetworkFactory,
    Posterior,
    Prior,
    as_given,
    as_seen,
    rows_returned,
)
from pyro_vae.parts.flows import Flow, SplineFlow, flow_distribution, transforms_of
from pyro_vae.support.checks import made_by, not_negative, positive, whole
from pyro_vae.support.modules import tensor_like


class StandardNormalPrior(Prior):
    """p(z) = N(z; 0, I), without parameters; it ignores a context.

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
        # The tensor carries device and dtype; it is no state to save.
        self.register_buffer("loc", torch.zeros(self.latent_dim), persistent=False)

    def forward(self, y: Tensor | None = None) -> dist.TorchDistribution:
        return dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)


class LaplacePrior(Prior):
    """p(z) = Π Laplace(z_d; 0, scale), a prior for sparse codes.

    It has heavier tails and a sharper peak than a normal.

    Arguments:
        latent_dim: the number D of latent dimensions.
        scale: the scale b of each dimension, whose variance is 2 b²; √½ gives variance 1.

    Example:
        >>> LaplacePrior(latent_dim=20)().variance[0]
        tensor(1.0000)
    """

    loc: Tensor

    def __init__(self, latent_dim: int, scale: float = 0.5**0.5) -> None:
        super().__init__(latent_dim)
        self.scale = positive(scale, "scale", of=self)
        self.register_buffer("loc", torch.zeros(self.latent_dim), persistent=False)

    def forward(self, y: Tensor | None = None) -> dist.TorchDistribution:
        return dist.Laplace(self.loc, torch.full_like(self.loc, self.scale)).to_event(1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale={self.scale:g}"


class DiagNormalPrior(Prior):
    """p(z) = N(z; loc, diag scale²) with learned loc and scale, from N(0, I) at the start.

    scale = min_scale + exp(log_scale). Encoder and decoder with affine layers at z can learn the
    same effect. It is the baseline for the other learned priors, and useful if another model is
    built on z.

    Arguments:
        latent_dim: the number D of latent dimensions.
        min_scale: the floor of the scale.

    Example:
        >>> DiagNormalPrior(latent_dim=2)().event_shape
        torch.Size([2])
    """

    def __init__(self, latent_dim: int, min_scale: float = 1e-6) -> None:
        super().__init__(latent_dim)
        self.min_scale = not_negative(min_scale, "min_scale")
        self.loc = nn.Parameter(torch.zeros(self.latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(self.latent_dim))

    def forward(self, y: Tensor | None = None) -> dist.TorchDistribution:
        return dist.Normal(self.loc, self.min_scale + self.log_scale.exp()).to_event(1)


class ConditionalNormalPrior(Prior):
    """p(z | y) = N(z; loc(y), diag scale(y)²), a prior for each context y.

    scale = min_scale + exp(log_scale).

    References:
        Learning structured output representation using deep conditional generative models, Sohn et
            al., 2015.

    Arguments:
        latent_dim: the number D of latent dimensions.
        context_dim: the number Y of numbers in a context.
        network: gives loc and log_scale for each context, `(N, Y)` to `(N, 2, D)`: a module, or a
            function that makes one from `in_shape` and `out_shape`; an affine map when omitted.
        min_scale: the floor of the scale.

    Example:
        >>> ConditionalNormalPrior(latent_dim=2, context_dim=10)(torch.eye(10)).batch_shape
        torch.Size([10])
    """

    def __init__(
        self,
        latent_dim: int,
        context_dim: int,
        network: NetworkFactory | nn.Module | None = None,
        min_scale: float = 1e-6,
    ) -> None:
        super().__init__(latent_dim)
        self.context_dim = whole(context_dim, "context_dim")
        if network is None:
            self.network: nn.Module = nn.Linear(self.context_dim, 2 * self.latent_dim)
        elif isinstance(network, nn.Module):
            self.network = network
        else:
            self.network = made_by(
                network,
                nn.Module,
                "network",
                "a torch module, or a function that makes one from in_shape and out_shape",
                in_shape=(self.context_dim,),
                out_shape=(2, self.latent_dim),
            )
        self.min_scale = not_negative(min_scale, "min_scale")

    def forward(self, y: Tensor | None = None) -> dist.TorchDistribution:
        if y is None:
            raise ValueError("'y' must be given to a ConditionalNormalPrior, got none.")
        y = as_tensor(y, "y")
        if y.shape[-1:] != (self.context_dim,):
            raise ValueError(
                f"'y' must have {self.context_dim} numbers a row for this ConditionalNormalPrior, "
                f"got the shape {tuple(y.shape)}."
            )
        contexts = y.reshape(-1, self.context_dim).to(tensor_like(self))
        outputs = self.network(contexts)
        size = 2 * self.latent_dim
        outputs = rows_returned(outputs, self.network, self, len(contexts), size)
        loc, log_scale = outputs.reshape(*y.shape[:-1], 2, self.latent_dim).unbind(-2)
        return dist.Normal(loc, self.min_scale + log_scale.exp()).to_event(1)


class MixtureNormalPrior(Prior):
    """p(z) = Σ_k π_k N(z; loc_k, diag scale_k²) with learned weights, locations and scales.

    References:
        Approximate inference for deep latent Gaussian mixtures, Nalisnick et al., 2016.

    Arguments:
        latent_dim: the number D of latent dimensions.
        num_components: the number K of normals; their locations start as draws from N(0, I).
        min_scale: the floor of the scales.

    Example:
        >>> MixtureNormalPrior(latent_dim=2, num_components=10)().event_shape
        torch.Size([2])
    """

    def __init__(self, latent_dim: int, num_components: int = 10, min_scale: float = 1e-3) -> None:
        super().__init__(latent_dim)
        count = whole(num_components, "num_components")
        self.min_scale = not_negative(min_scale, "min_scale")
        self.logits = nn.Parameter(torch.zeros(count))
        self.loc = nn.Parameter(torch.randn(count, self.latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(count, self.latent_dim))

    def forward(self, y: Tensor | None = None) -> dist.TorchDistribution:
        components = dist.Normal(self.loc, self.min_scale + self.log_scale.exp()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_components={len(self.logits)}"


class VampPrior(Prior):
    """p(z) = (1 / K) Σ_k q(z | u_k), the posterior averaged over K learned pseudo-inputs u_k.

    It shares the posterior of its VAE, of any family, and owns only the pseudo-inputs. If the
    posterior depends on a context, p(z | y) = (1 / K) Σ_k q(z | u_k, y). The pseudo-inputs have the
    shape of x. They have the units that the encoder's network sees, so that they learn equally fast
    at any scale of x.

    References:
        VAE with a VampPrior, Tomczak and Welling, 2018. Deviation: pseudo-inputs are free, not
            squeezed into [0, 1].

    Arguments:
        latent_dim: the number D of latent dimensions.
        num_components: the number K of pseudo-inputs.
        noise: the standard deviation of the pseudo-inputs at the start, in the units that the
            encoder's network sees; see also `initialize`.

    Example:
        >>> VampPrior(latent_dim=2, num_components=500)
        VampPrior(latent_dim=2, num_components=500)
    """

    pseudo_inputs: nn.Parameter

    def __init__(self, latent_dim: int, num_components: int = 500, noise: float = 0.01) -> None:
        super().__init__(latent_dim)
        self.num_components = whole(num_components, "num_components")
        self.num_initial_rows = self.num_components
        self.noise = not_negative(noise, "noise", of=self)
        # In a tuple, since a module would become a submodule, and the state dict would hold its
        # tensors twice.
        self._posterior: tuple[Posterior, ...] = ()

    def attach(self, posterior: Posterior) -> None:
        if self._posterior not in ((), (posterior,)):
            raise ValueError(
                "'prior' must not be the VampPrior of another VAE, since it uses that VAE's "
                "posterior."
            )
        self._posterior = (posterior,)
        self.context_dim = posterior.context_dim
        if "pseudo_inputs" not in self._parameters:
            noise = self.noise * torch.randn(self.num_components, *posterior.x_shape)
            self.pseudo_inputs = nn.Parameter(noise.to(tensor_like(posterior)))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Start the pseudo-inputs at the first K rows of x, `(N, *x_shape)`, plus noise.

        The noise keeps equal rows apart. Start the encoder inputs, such as `Standardized`, before
        this, as the function `initialize` does.

        Raises:
            ValueError: if there are fewer rows than pseudo-inputs, or no VAE has this prior yet.
        """
        posterior = self._require_posterior()
        x = as_tensor(x, "x")
        check_shape(x, posterior.x_shape)
        if len(x) < self.num_components:
            raise ValueError(
                f"'x' must have at least num_components = {self.num_components} rows, got {len(x)}."
            )
        first_rows = x[: self.num_components].to(self.pseudo_inputs)
        rows = filled(as_seen(posterior.network, first_rows), 0.0)
        self.pseudo_inputs.copy_(rows + self.noise * torch.randn_like(rows))

    def forward(self, y: Tensor | None = None) -> dist.TorchDistribution:
        posterior = self._require_posterior()
        inputs = as_given(posterior.network, self.pseudo_inputs)
        if y is None or not posterior.context_dim:
            components = posterior(inputs)
        else:
            inputs = inputs.expand(*y.shape[:-1], *inputs.shape)
            components = posterior(inputs, y.unsqueeze(-2))
        weights = dist.Categorical(logits=self.pseudo_inputs.new_zeros(components.batch_shape))
        return dist.MixtureSameFamily(weights, components)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_components={self.num_components}"

    def _require_posterior(self) -> Posterior:
        if not self._posterior:
            raise ValueError(
                "'prior' must be part of a VAE, whose posterior a VampPrior is made of, got one "
                "without."
            )
        return self._posterior[0]


class FlowPrior(Prior):
    """p(z) = N(f(z); 0, I) |det ∂f/∂z|, a standard normal through a learned invertible flow f.

    With an `AffineFlow` scoring takes one pass and drawing D passes. With a `SplineFlow` both are
    fast.

    References:
        Variational lossy autoencoder, Chen et al., 2016.

    Arguments:
        latent_dim: the number D of latent dimensions.
        flow: the transforms; a `SplineFlow` when omitted.

    Example:
        >>> FlowPrior(latent_dim=2, flow=AffineFlow())().event_shape
        torch.Size([2])
    """

    loc: Tensor

    def __init__(self, latent_dim: int, flow: Flow | None = None) -> None:
        super().__init__(latent_dim)
        self.transforms = transforms_of(flow, SplineFlow, self.latent_dim)
        self.register_buffer("loc", torch.zeros(self.latent_dim), persistent=False)

    def forward(self, y: Tensor | None = None) -> dist.TorchDistribution:
        base = dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)
        return flow_distribution(self.transforms(), base)
