"""Densities that torch and Pyro lack or compute inaccurately."""

from collections.abc import Iterator, Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

# Below this |logit| the closed forms cancel; five terms of each series then leave errors below 1e-11.
_SERIES_LOGIT = 0.5
# Below this |logit| a draw is its first-order expansion around the uniform one, to single precision.
_FLAT_LOGIT = 1e-4


def _log_normaliser_shape(logits: Tensor) -> Tensor:
    """log(u / sinh u) with u = logits / 2: even, 0 at 0, and -|logits| / 2 + log|logits| far out."""
    near = logits.abs() < _SERIES_LOGIT
    size = torch.where(near, 1.0, logits).abs()
    far = size.log() - size / 2 - torch.log(-torch.expm1(-size))
    square = torch.where(near, logits / 2, 0.0) ** 2
    series = square * (-1 / 6 + square * (1 / 180 + square * (-1 / 2835 + square * (1 / 37800 - square / 467775))))
    return torch.where(near, series, far)


class ContinuousBernoulli(TorchDistribution):
    """p(x) ∝ λ^x (1 − λ)^(1 − x) on [0, 1] with logits l = log λ − log(1 − λ), finite and exact for every l.

    log p(x) = (x − ½) l + log(u / sinh u) with u = l / 2, in nats. torch's own class works with λ,
    and in single precision is wrong where λ rounds to 0 or 1 (|l| > 16).

    References:
        The continuous Bernoulli: fixing a pervasive error in variational autoencoders, Loaiza-Ganem and Cunningham, 2019.

    Arguments:
        logits: any shape; the batch shape.

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
        """Draws by the inverse distribution function, taken at −|l| where nothing overflows, and mirrored for l > 0."""
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
        slope = 1 / 12 + square * (-1 / 720 + square * (1 / 30240 + square * (-1 / 1209600 + square / 47900160)))
        return torch.where(near, 0.5 + self.logits * slope, torch.where(self.logits > 0, far, 1 - far))

    @property
    def variance(self) -> Tensor:
        near = self.logits.abs() < _SERIES_LOGIT
        size = torch.where(near, 1.0, self.logits).abs()
        decay = torch.exp(-size)
        far = 1 / size**2 - decay / torch.expm1(-size) ** 2
        square = torch.where(near, self.logits, 0.0) ** 2
        series = 1 / 12 + square * (-1 / 240 + square * (1 / 6048 + square * (-1 / 172800 + square / 5322240)))
        return torch.where(near, series, far)


class DiscretizedLogistic(TorchDistribution):
    """A logistic rounded to the whole levels 0 … num_levels − 1; what lies beyond the ends counts to the end levels.

    P(k) = σ(b) − σ(a) with b = (k + ½ − loc) / scale and a = (k − ½ − loc) / scale, and σ(b) and 1 − σ(a) at the ends. It
    is computed as log P(k) = log σ(b) + log σ(−a) + log(1 − exp(−1 / scale)), in nats, which is finite and exact where the
    difference of two σ underflows.

    References:
        PixelCNN++: improving the PixelCNN with discretized logistic mixture likelihood and other modifications, Salimans et
        al., 2017.

    Arguments:
        loc: the location of the logistic, in levels.
        scale: its scale, in levels, greater than 0; broadcasts with loc to the batch shape.
        num_levels: how many levels there are.

    Example:
        >>> p_x = DiscretizedLogistic(loc=torch.tensor(1.5), scale=torch.tensor(1.0), num_levels=4)
        >>> p_x.log_prob(torch.arange(4)).exp()
        tensor([0.2689, 0.2311, 0.2311, 0.2689])
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012

    def __init__(self, loc: Tensor, scale: Tensor, num_levels: int, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        self.num_levels = num_levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.num_levels - 1)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "DiscretizedLogistic":
        validate_args = self.__dict__.get("_validate_args")
        loc, scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        return DiscretizedLogistic(loc, scale, self.num_levels, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        is_lowest, is_highest = value == 0, value == self.num_levels - 1
        below_upper = torch.where(is_highest, 0.0, logsigmoid((value + 0.5 - self.loc) / self.scale))
        above_lower = torch.where(is_lowest, 0.0, logsigmoid((self.loc - (value - 0.5)) / self.scale))
        width = torch.log(-torch.expm1(-1 / self.scale))
        return below_upper + above_lower + torch.where(is_lowest | is_highest, 0.0, width)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Draws by the inverse distribution function of the logistic, rounded."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            return (self.loc + self.scale * uniform.logit()).round().clamp(0, self.num_levels - 1)

    @property
    def mean(self) -> Tensor:
        return self._nearest + sum(side * tail for side, _, tail in self._tails())

    @property
    def variance(self) -> Tensor:
        first = second = torch.zeros_like(self.loc)
        for side, distance, tail in self._tails():
            first, second = first + side * tail, second + 2 * distance * tail
        return second - first**2

    @property
    def _nearest(self) -> Tensor:
        return self.loc.detach().round().clamp(0, self.num_levels - 1)

    def _tails(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each edge between two levels: its side (±1) of the level nearest to loc, its distance, and P(beyond it).

        Σ side · P and Σ 2 distance · P are the exact first two moments around that level. An edge at a time, so that the
        memory does not grow with the number of levels.
        """
        nearest = self._nearest
        for level in range(1, self.num_levels):
            offset = level - 0.5 - nearest
            side = offset.sign()
            yield side, offset.abs(), torch.sigmoid((self.loc - (level - 0.5)) / self.scale * side)


class _ConcatenatedConstraint(constraints.Constraint):
    """Each constraint on its own numbers of the last axis; discrete where all of them are."""

    event_dim = 1

    def __init__(self, parts: Sequence[constraints.Constraint], sizes: Sequence[int]) -> None:
        super().__init__()
        self.parts, self.sizes = parts, list(sizes)
        self.is_discrete = all(part.is_discrete for part in parts)

    def check(self, value: Tensor) -> Tensor:
        checks = [part.check(numbers) for part, numbers in zip(self.parts, value.split(self.sizes, -1), strict=True)]
        return torch.stack(checks).all(0)


class Concatenation(TorchDistribution):
    """p(x) = Π_j p_j(x_j), where x_j are some of the numbers of a vector x that stand side by side.

    Arguments:
        parts: distributions with event shapes `(n_j,)` and the same batch shape, from left to right.

    Raises:
        ValueError: a part of another shape.

    Example:
        >>> grey = ContinuousBernoulli(torch.zeros(5, 2)).to_event(1)
        >>> levels = DiscretizedLogistic(torch.zeros(5, 3), torch.ones(5, 3), num_levels=16).to_event(1)
        >>> Concatenation([grey, levels]).sample().shape
        torch.Size([5, 5])
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, parts: Sequence[TorchDistribution], validate_args: bool | None = None) -> None:
        shapes = [(tuple(part.batch_shape), tuple(part.event_shape)) for part in parts]
        if len({batch_shape for batch_shape, _ in shapes}) != 1 or {len(event_shape) for _, event_shape in shapes} != {
            1
        }:
            raise ValueError(f"'parts' must have one batch shape and event shapes of one number, got {shapes}.")
        self.parts = list(parts)
        self.has_rsample = all(part.has_rsample for part in parts)
        self._sizes = [event_shape[0] for _, event_shape in shapes]
        super().__init__(parts[0].batch_shape, torch.Size([sum(self._sizes)]), validate_args=validate_args)

    @constraints.dependent_property(event_dim=1)
    def support(self) -> constraints.Constraint:
        return _ConcatenatedConstraint([part.support for part in self.parts], self._sizes)  # type: ignore[misc]

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "Concatenation":
        validate_args = self.__dict__.get("_validate_args")
        return Concatenation([part.expand(torch.Size(batch_shape)) for part in self.parts], validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        numbers = value.split(self._sizes, dim=-1)
        return torch.stack([part.log_prob(x) for part, x in zip(self.parts, numbers, strict=True)]).sum(0)

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
