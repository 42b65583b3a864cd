"""Densities that torch and Pyro lack or compute inaccurately."""

from collections.abc import Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

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
