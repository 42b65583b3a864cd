"""Likelihood of tables whose columns are of different kinds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.distributions.densities import Concatenation
from pyro_vae.parts.contracts import EncoderInputFactory, Likelihood, LikelihoodFactory, Network
from pyro_vae.parts.encoder_inputs import ByColumn, Standardized
from pyro_vae.support.checks import Shape, as_shape, described, made_by, whole


@dataclass(frozen=True)
class Columns:
    """Adjacent columns of a table that have the same kind.

    Arguments:
        size: the number of these columns.
        likelihood: p of these columns given z, a Likelihood class.

    Example:
        >>> Columns(3, NormalLikelihood).size
        3
    """

    size: int
    likelihood: LikelihoodFactory

    def __post_init__(self) -> None:
        whole(self.size, "size")

    def factor(self) -> Likelihood:
        """Return the likelihood of these columns; its inputs are its network's outputs.

        Raises:
            ValueError: if it is no likelihood that needs only a network and a shape.
        """
        accepted = (
            "a class that makes a Likelihood from 'network' and 'x_shape', with other arguments "
            "by functools.partial"
        )
        factor: Likelihood = made_by(
            self.likelihood,
            Likelihood,
            "likelihood",
            accepted,
            network=nn.Identity(),
            x_shape=self.size,
        )
        if factor.offset_dim:
            raise ValueError(
                "'likelihood' of Columns must be one without a library size, got "
                f"{type(factor).__name__} with library_size=True."
            )
        return factor


class ProductLikelihood(Likelihood):
    """p(x | z) = Π_j p_j(x_j | z) for rows of a table, where x_j are adjacent columns.

    Each factor p_j is a likelihood of any family. One network gives the outputs for all factors.

    References:
        Handling incomplete heterogeneous data using VAEs, Nazábal et al., 2018. Deviation: no
            factor is scaled.

    Arguments:
        network: gives the outputs for the factors one after the other: `(N, D)` to
            `(N, their number)`.
        x_shape: the number of columns.
        columns: the size and the likelihood of each group of columns, from left to right.

    Raises:
        ValueError: if the sizes do not add up to `x_shape`.

    Example:
        >>> columns = [Columns(3, NormalLikelihood), Columns(2, BernoulliLikelihood)]
        >>> likelihood = ProductLikelihood(nn.Linear(2, 5), x_shape=5, columns=columns)
        >>> likelihood(torch.zeros(4, 2)).log_prob(torch.ones(4, 5)).shape
        torch.Size([4])
    """

    factors: Sequence[Likelihood]

    def __init__(self, network: Network, x_shape: Shape, columns: Sequence[Columns]) -> None:
        _check_columns(columns)
        sizes = [group.size for group in columns]
        row_shape = as_shape(x_shape, "x_shape")
        if row_shape != (sum(sizes),):
            raise ValueError(
                f"'columns' must have sizes that add up to x_shape = {tuple(row_shape)}, got "
                f"{sizes}."
            )
        factors = [group.factor() for group in columns]
        num_outputs = sum(factor.out_shape.numel() for factor in factors)
        super().__init__(network, x_shape, out_shape=num_outputs)
        self.factors = nn.ModuleList(factors)  # type: ignore[assignment]
        self.context_dim = max(self.context_dim, *(factor.context_dim for factor in factors))

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        sizes = [factor.out_shape.numel() for factor in self.factors]
        pairs = zip(self.factors, self.call_network(z, y).split(sizes, dim=-1), strict=True)
        return Concatenation([factor(outputs, y) for factor, outputs in pairs])

    @property
    def encoder_input(self) -> EncoderInputFactory:
        """Inputs that suit the factors, column by column."""
        sizes = [factor.x_shape.numel() for factor in self.factors]
        groups = [factor.encoder_input or Standardized for factor in self.factors]
        return partial(ByColumn, sizes=sizes, groups=groups)

    @property
    def filler(self) -> Tensor:
        """Fillers of the factors, side by side."""
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

    @property
    def mean_bounds(self) -> tuple[Tensor, Tensor]:
        return _joined(self.factors, 0), _joined(self.factors, 1)

    def link(self, mean: Tensor) -> Tensor:
        return torch.cat([factor.link(values).flatten() for factor, values in self._groups(mean)])

    def initialize(self, mean: Tensor, std: Tensor) -> None:
        pairs = zip(self._groups(mean), self._groups(std), strict=True)
        for (factor, mean_part), (_, std_part) in pairs:
            factor.initialize(mean_part, std_part)

    def _groups(self, x: Tensor) -> Iterator[tuple[Likelihood, Tensor]]:
        """Pair each factor with its own columns of x."""
        sizes = [factor.x_shape.numel() for factor in self.factors]
        return zip(self.factors, x.split(sizes, dim=-1), strict=True)


def _check_columns(columns: Sequence[Columns]) -> None:
    is_list = isinstance(columns, Sequence) and not isinstance(columns, str)
    groups = columns if is_list else [columns]
    others = [group for group in groups if not isinstance(group, Columns)]
    if others or not is_list:
        raise ValueError(
            "'columns' must be a list of Columns(size, likelihood), got "
            f"{described(others[0] if is_list else columns)}."
        )


def _joined(factors: Sequence[Likelihood], end: int) -> Tensor:
    """Return the lowest or highest mean of each column."""
    return torch.cat(
        [torch.as_tensor(factor.mean_bounds[end]).expand(factor.x_shape) for factor in factors]
    )
