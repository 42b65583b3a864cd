"""The likelihood of tables whose columns are of different kinds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.distributions.densities import Concatenation
from pyro_vae.parts.contracts import EncoderInputFactory, Likelihood, LikelihoodFactory, Network
from pyro_vae.parts.encoder_inputs import ByColumn, Standardized
from pyro_vae.support.checks import Shape, as_shape, whole


@dataclass(frozen=True)
class Columns:
    """Columns of a table that stand side by side and are of one kind.

    Arguments:
        size: how many they are.
        likelihood: p of these columns given z, a Likelihood class.

    Example:
        >>> Columns(3, NormalLikelihood).size
        3
    """

    size: int
    likelihood: LikelihoodFactory

    def __post_init__(self) -> None:
        whole(self.size, "size")


class ProductLikelihood(Likelihood):
    """p(x | z) = Π_j p_j(x_j | z) for rows of a table, where x_j are some columns that stand side by side.

    Each factor p_j is a likelihood of its own, whatever its family; one network gives the numbers of all.

    References:
        Handling incomplete heterogeneous data using VAEs, Nazábal et al., 2018. Deviation: no factor is scaled.

    Arguments:
        network: gives the numbers of the factors one after the other: `(N, D)` to `(N, their sum)`.
        x_shape: the number of columns.
        columns: the size and the likelihood of each group of columns, from left to right.

    Raises:
        ValueError: sizes that do not add up to `x_shape`.

    Example:
        >>> columns = [Columns(3, NormalLikelihood), Columns(2, BernoulliLikelihood)]
        >>> p_x = ProductLikelihood(nn.Linear(2, 5), x_shape=5, columns=columns)(torch.zeros(4, 2))
        >>> p_x.log_prob(torch.ones(4, 5)).shape
        torch.Size([4])
    """

    factors: Sequence[Likelihood]

    def __init__(self, network: Network, x_shape: Shape, columns: Sequence[Columns]) -> None:
        sizes, row_shape = [group.size for group in columns], as_shape(x_shape, "x_shape")
        if row_shape != (sum(sizes),):
            raise ValueError(f"'columns' must have sizes that add up to x_shape = {tuple(row_shape)}, got {sizes}.")
        factors = [group.likelihood(network=nn.Identity(), x_shape=group.size) for group in columns]
        super().__init__(network, x_shape, out_shape=sum(factor.out_shape.numel() for factor in factors))
        self.factors = nn.ModuleList(factors)  # type: ignore[assignment]
        self.context_dim = max(self.context_dim, *(factor.context_dim for factor in factors))

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        outputs = self.call_network(z, y).split([factor.out_shape.numel() for factor in self.factors], dim=-1)
        return Concatenation([factor(numbers, y) for factor, numbers in zip(self.factors, outputs, strict=True)])

    @property
    def encoder_input(self) -> EncoderInputFactory:
        """Inputs that suit the factors, column by column."""
        sizes = [factor.x_shape.numel() for factor in self.factors]
        return partial(ByColumn, sizes=sizes, groups=[factor.encoder_input or Standardized for factor in self.factors])

    @property
    def filler(self) -> Tensor:
        """Those of the factors, side by side."""
        return torch.cat([torch.zeros(factor.x_shape) + factor.filler for factor in self.factors])

    def check(self, x: Tensor) -> None:
        start = 0
        for factor, values in self._groups(x):
            end = start + values.shape[-1]
            try:
                factor.check(values)
            except ValueError as error:
                where = f"column {start}" if end == start + 1 else f"columns {start} to {end - 1}"
                raise ValueError(f"In {where}, {error}") from error
            start = end

    def link(self, mean: Tensor) -> Tensor:
        return torch.cat([factor.link(values).flatten() for factor, values in self._groups(mean)])

    def initialize(self, mean: Tensor, std: Tensor) -> None:
        for (factor, mean_part), (_, std_part) in zip(self._groups(mean), self._groups(std), strict=True):
            factor.initialize(mean_part, std_part)

    def _groups(self, x: Tensor) -> Iterator[tuple[Likelihood, Tensor]]:
        """Each factor with its own columns of x."""
        return zip(self.factors, x.split([factor.x_shape.numel() for factor in self.factors], dim=-1), strict=True)
