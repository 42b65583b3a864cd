"""The aggregated posterior q(z) = (1 / N) Σ_n q(z | x_n), exactly and by a fitted mixture.

It shows where the codes of the data lie.
"""

import math
from collections.abc import Iterator, Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.data.rows import Data
from pyro_vae.distributions.means import distribution_mean
from pyro_vae.evaluation.vae_rows import VAERows, rows_for
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import whole
from pyro_vae.support.modules import evaluating, tensor_like
from pyro_vae.support.streams import stream, stream_seed
from pyro_vae.vae import VAE

# Rows that are encoded at once, to bound the memory.
_CHUNK = 1_000


@arguments_checked
class AggregatedPosterior(TorchDistribution):
    """q(z) = (1 / N) Σ_n q(z | x_n) over given rows: a mixture with a component for each row.

    A draw encodes a random row. A log-density encodes all rows; a random transform then gives the
    same x each time. The VAE is used in evaluation mode.

    References:
        ELBO surgery: yet another way to carve up the variational evidence lower bound, Hoffman and
            Johnson, 2016.

    Arguments:
        vae: the VAE.
        data: the rows, `(N, *x_shape)`; for a conditional VAE a pair (x, y), or rows with labels.

    Raises:
        ValueError: if rows have another shape, or lack the context that the VAE takes.

    Example:
        >>> AggregatedPosterior(vae, vae.sample(50)).sample([5]).shape
        torch.Size([5, 2])
    """

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real_vector

    def __init__(self, vae: VAE, data: Data | VAERows, batch_shape: Sequence[int] = ()) -> None:
        self.vae = vae
        self.rows = rows_for(vae, data)
        super().__init__(torch.Size(batch_shape), torch.Size([vae.latent_dim]), validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "AggregatedPosterior":
        return AggregatedPosterior(self.vae, self.rows, batch_shape)

    def encode(self, index: Tensor | slice) -> TorchDistribution:
        """Return q(z | x) of the rows at `index`."""
        batch = self.rows.batch(index)
        with evaluating(self.vae):
            return self.vae.encode(*batch)

    def _components(self) -> Iterator[TorchDistribution]:
        """Yield q(z | x) of all rows, block by block, apart from the caller's random state."""
        device = tensor_like(self.vae).device
        for block in self.rows.rows.blocks(_CHUNK):
            with stream(0, block.start, device=device):
                yield self.encode(block)

    @arguments_checked
    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        index = torch.randint(len(self.rows), (shape.numel(),))
        draws = [self.encode(part).sample() for part in index.split(_CHUNK)]
        return torch.cat(draws).reshape(*shape, *self.event_shape)

    @arguments_checked
    @torch.no_grad()
    def log_prob(self, value: Tensor) -> Tensor:
        if value.shape[-1:] != self.event_shape:
            raise ValueError(
                f"'value' must have the shape (*, {self.vae.latent_dim}), got {tuple(value.shape)}."
            )
        parts = [q_z.log_prob(value.unsqueeze(-2)) for q_z in self._components()]
        return torch.cat(parts, dim=-1).logsumexp(-1) - math.log(len(self.rows))

    @property
    @torch.no_grad()
    def mean(self) -> Tensor:
        means = [distribution_mean(q_z) for q_z in self._components()]
        return torch.cat(means).mean(0).expand(*self.batch_shape, *self.event_shape)


@arguments_checked
def gaussian_mixture(
    vae: VAE, data: Data, *, num_components: int = 10, seed: int = 0
) -> dist.MixtureSameFamily:
    """Fit a mixture of normals with full covariances to one draw of z for each row.

    The fit is by expectation maximisation. The mixture can replace the prior in sampling:
    `vae.sample(16, latent=gaussian_mixture(vae, x))`.

    References:
        From variational to deterministic autoencoders, Ghosh et al., 2019.

    Arguments:
        vae: the VAE.
        data: the rows, `(N, *x_shape)`; for a conditional VAE a pair (x, y), or rows with labels.
        num_components: the number K of normals.
        seed: names the random stream.

    Raises:
        ValueError: if there are fewer rows than components, or the rows do not fit the VAE.
    """
    from sklearn.mixture import GaussianMixture

    count = whole(num_components, "num_components")
    aggregated = AggregatedPosterior(vae, data)
    if len(aggregated.rows) < max(2, count):
        raise ValueError(
            f"'data' must have at least {max(2, count)} rows for {count} components, got "
            f"{len(aggregated.rows)}."
        )
    reference = tensor_like(vae)
    with stream(seed, device=reference.device), torch.no_grad():
        blocks = aggregated.rows.rows.blocks(_CHUNK)
        z = torch.cat([aggregated.encode(block).sample() for block in blocks])
    mixture = GaussianMixture(count, random_state=stream_seed(seed) % 2**32)
    mixture.fit(z.double().cpu().numpy())
    weights = torch.from_numpy(mixture.weights_).to(reference)
    loc = torch.from_numpy(mixture.means_).to(reference)
    covariance = torch.from_numpy(mixture.covariances_).to(reference)
    return dist.MixtureSameFamily(
        dist.Categorical(weights),
        dist.MultivariateNormal(loc, covariance),
    )
