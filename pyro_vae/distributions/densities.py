"""Densities that torch and Pyro lack or compute inaccurately."""

from collections.abc import Iterator, Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

from pyro_vae.support.chunks import chunk_size

# Below this |logit| terms of the closed forms cancel; five terms of each series have errors below
# 1e-11.
_SERIES_LOGIT = 0.5
# Below this |logit| the first-order expansion of a draw around a uniform one has single precision.
_FLAT_LOGIT = 1e-4
# Numbers that are in memory at once.
_CHUNK = 1_000_000
# Edges between levels at once in an exported graph.
_EXPORTED_EDGES = 16


def _log_normaliser_shape(logits: Tensor) -> Tensor:
    """Return log(u / sinh u) with u = logits / 2.

    It is even, and 0 at 0. Far out it is close to −|logits| / 2 + log|logits|.
    """
    near = logits.abs() < _SERIES_LOGIT
    size = torch.where(near, 1.0, logits).abs()
    far = size.log() - size / 2 - torch.log(-torch.expm1(-size))
    square = torch.where(near, logits / 2, 0.0) ** 2
    series = square * (
        -1 / 6 + square * (1 / 180 + square * (-1 / 2835 + square * (1 / 37800 - square / 467775)))
    )
    return torch.where(near, series, far)


class ContinuousBernoulli(TorchDistribution):
    """p(x) ∝ λ^x (1 − λ)^(1 − x) on [0, 1], finite and exact for all logits.

    With logits l = log λ − log(1 − λ) and u = l / 2, log p(x) = (x − ½) l + log(u / sinh u), in
    nats. torch's own class works with λ. In single precision it is wrong if λ rounds to 0 or 1
    (|l| > 16).

    References:
        The continuous Bernoulli: fixing a pervasive error in variational autoencoders, Loaiza-Ganem
            and Cunningham, 2019.

    Arguments:
        logits: the logits l; their shape is the batch shape.

    Example:
        >>> ContinuousBernoulli(logits=torch.zeros(3)).log_prob(torch.full((3,), 0.8))
        tensor([0., 0., 0.])
    """

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "ContinuousBernoulli":
        validate_args = self.__dict__.get("_validate_args")
        return ContinuousBernoulli(self.logits.expand(batch_shape), validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return (value - 0.5) * self.logits + _log_normaliser_shape(self.logits)

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Draw by the inverse distribution function at −|l|, which never overflows.

        A draw is mirrored for l > 0.
        """
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        near = self.logits.abs() < _FLAT_LOGIT
        size = torch.where(near, 1.0, self.logits).abs()
        falling = -torch.log1p(uniform * torch.expm1(-size)) / size
        far = torch.where(self.logits > 0, 1 - falling, falling)
        return torch.where(near, uniform + self.logits * uniform * (1 - uniform) / 2, far)

    @property
    def mean(self) -> Tensor:
        near = self.logits.abs() < _SERIES_LOGIT
        size = torch.where(near, 1.0, self.logits).abs()
        far = -1 / torch.expm1(-size) - 1 / size
        square = torch.where(near, self.logits, 0.0) ** 2
        slope = 1 / 12 + square * (
            -1 / 720 + square * (1 / 30240 + square * (-1 / 1209600 + square / 47900160))
        )
        signed = torch.where(self.logits > 0, far, 1 - far)
        return torch.where(near, 0.5 + self.logits * slope, signed)

    @property
    def variance(self) -> Tensor:
        near = self.logits.abs() < _SERIES_LOGIT
        size = torch.where(near, 1.0, self.logits).abs()
        decay = torch.exp(-size)
        far = 1 / size**2 - decay / torch.expm1(-size) ** 2
        square = torch.where(near, self.logits, 0.0) ** 2
        series = 1 / 12 + square * (
            -1 / 240 + square * (1 / 6048 + square * (-1 / 172800 + square / 5322240))
        )
        return torch.where(near, series, far)


class DiscretizedLogistic(TorchDistribution):
    """Logistic rounded to the whole levels 0 … num_levels − 1.

    The end levels also have the probability beyond them.
    P(k) = σ(b) − σ(a) with b = (k + ½ − loc) / scale and a = (k − ½ − loc) / scale; at the ends it
    is σ(b) and 1 − σ(a). It is computed in nats as
    log P(k) = log σ(b) + log σ(−a) + log(1 − exp(−1 / scale)).
    This is finite and exact even if the difference of two σ underflows.

    References:
        PixelCNN++: improving the PixelCNN with discretized logistic mixture likelihood and other
            modifications, Salimans et al., 2017.

    Arguments:
        loc: the location of the logistic, in levels.
        scale: its scale, in levels, greater than 0; broadcasts with loc to the batch shape.
        num_levels: the number of levels.

    Example:
        >>> p_x = DiscretizedLogistic(loc=torch.tensor(1.5), scale=torch.tensor(1.0), num_levels=4)
        >>> p_x.log_prob(torch.arange(4)).exp()
        tensor([0.2689, 0.2311, 0.2311, 0.2689])
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012

    def __init__(
        self, loc: Tensor, scale: Tensor, num_levels: int, validate_args: bool | None = None
    ) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        self.num_levels = num_levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.num_levels - 1)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "DiscretizedLogistic":
        validate_args = self.__dict__.get("_validate_args")
        loc = self.loc.expand(batch_shape)
        scale = self.scale.expand(batch_shape)
        return DiscretizedLogistic(loc, scale, self.num_levels, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        is_lowest = value == 0
        is_highest = value == self.num_levels - 1
        log_below = logsigmoid((value + 0.5 - self.loc) / self.scale)
        log_below = torch.where(is_highest, 0.0, log_below)
        log_above = logsigmoid((self.loc - (value - 0.5)) / self.scale)
        log_above = torch.where(is_lowest, 0.0, log_above)
        width = torch.log(-torch.expm1(-1 / self.scale))
        return log_below + log_above + torch.where(is_lowest | is_highest, 0.0, width)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Draw by the inverse distribution function of the logistic, and round."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            return (self.loc + self.scale * uniform.logit()).round().clamp(0, self.num_levels - 1)

    @property
    def mean(self) -> Tensor:
        return self._nearest + sum((side * tail).sum(0) for side, _, tail in self._tails())

    @property
    def variance(self) -> Tensor:
        first = second = torch.zeros_like(self.loc)
        for side, distance, tail in self._tails():
            first = first + (side * tail).sum(0)
            second = second + (2 * distance * tail).sum(0)
        return second - first**2

    def _num_edges(self) -> int:
        """Return the number of edges that are worked on at once."""
        numel = self.loc.numel()
        if isinstance(numel, torch.SymInt):  # an exported graph does not know the number of rows
            return _EXPORTED_EDGES
        return chunk_size(_CHUNK, max(1, numel))

    @property
    def _nearest(self) -> Tensor:
        return self.loc.detach().round().clamp(0, self.num_levels - 1)

    def _tails(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield for the edges between two levels their side, their distance and P(beyond them).

        Side (±1) and distance are relative to the level nearest to loc. Σ side · P and
        Σ 2 distance · P are the exact first two moments around that level. Some edges at a time,
        along the first axis, keep the memory independent of the number of levels.
        """
        nearest = self._nearest
        edges = torch.arange(1, self.num_levels, dtype=self.loc.dtype, device=self.loc.device) - 0.5
        for some in edges.split(self._num_edges()):
            edge = some.reshape(-1, *[1] * self.loc.dim())
            offset = edge - nearest
            side = offset.sign()
            tail = torch.sigmoid((self.loc - edge) / self.scale * side)
            yield side, offset.abs(), tail


class _ConcatenatedConstraint(constraints.Constraint):
    """Constraints on adjacent numbers of the last axis, discrete if all of them are."""

    event_dim = 1

    def __init__(self, parts: Sequence[constraints.Constraint], sizes: Sequence[int]) -> None:
        super().__init__()
        self.parts = parts
        self.sizes = list(sizes)
        self.is_discrete = all(part.is_discrete for part in parts)

    def check(self, value: Tensor) -> Tensor:
        pairs = zip(self.parts, value.split(self.sizes, -1), strict=True)
        checks = [part.check(numbers) for part, numbers in pairs]
        return torch.stack(checks).all(0)


class Concatenation(TorchDistribution):
    """p(x) = Π_j p_j(x_j), where x_j are adjacent numbers of a vector x.

    Arguments:
        parts: distributions with event shapes `(n_j,)` and the same batch shape, from left to
            right.

    Raises:
        ValueError: if the batch shapes differ, or an event shape has not one size.

    Example:
        >>> grey = ContinuousBernoulli(torch.zeros(5, 2)).to_event(1)
        >>> levels = DiscretizedLogistic(torch.zeros(5, 3), torch.ones(5, 3), num_levels=16)
        >>> Concatenation([grey, levels.to_event(1)]).sample().shape
        torch.Size([5, 5])
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(
        self, parts: Sequence[TorchDistribution], validate_args: bool | None = None
    ) -> None:
        shapes = [(tuple(part.batch_shape), tuple(part.event_shape)) for part in parts]
        batch_shapes = {batch_shape for batch_shape, _ in shapes}
        event_dims = {len(event_shape) for _, event_shape in shapes}
        if len(batch_shapes) != 1 or event_dims != {1}:
            raise ValueError(
                f"'parts' must have one batch shape and event shapes of one number, got {shapes}."
            )
        self.parts = list(parts)
        self.has_rsample = all(part.has_rsample for part in parts)
        self._sizes = [event_shape[0] for _, event_shape in shapes]
        event_shape = torch.Size([sum(self._sizes)])
        super().__init__(parts[0].batch_shape, event_shape, validate_args=validate_args)

    @constraints.dependent_property(event_dim=1)
    def support(self) -> constraints.Constraint:
        supports = [part.support for part in self.parts]
        return _ConcatenatedConstraint(supports, self._sizes)  # type: ignore[arg-type]

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "Concatenation":
        validate_args = self.__dict__.get("_validate_args")
        parts = [part.expand(torch.Size(batch_shape)) for part in self.parts]
        return Concatenation(parts, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        pairs = zip(self.parts, value.split(self._sizes, dim=-1), strict=True)
        return torch.stack([part.log_prob(numbers) for part, numbers in pairs]).sum(0)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        return torch.cat([part.sample(torch.Size(sample_shape)) for part in self.parts], dim=-1)

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        return torch.cat([part.rsample(torch.Size(sample_shape)) for part in self.parts], dim=-1)

    @property
    def mean(self) -> Tensor:
        return torch.cat([part.mean for part in self.parts], dim=-1)

    @property
    def variance(self) -> Tensor:
        return torch.cat([part.variance for part in self.parts], dim=-1)
