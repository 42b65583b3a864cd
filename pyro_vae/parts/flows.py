"""zuko's normalizing flows as Pyro distributions."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pyro.contrib.zuko import ZukoToPyro
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from pyro_vae.support.checks import as_shape, whole


class FlowDistribution(ZukoToPyro):
    """A flow of zuko's as a Pyro distribution that can also be drawn from outside `pyro.sample`.

    A draw comes with its log-density, which is kept: where one direction of a flow is slow, its own draws never take it.

    Arguments:
        dist: a distribution of zuko's.
    """

    support = constraints.real_vector

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        return self(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        kept: Tensor | None = self.cache.get(value)
        # What was kept under no_grad has no gradients to give.
        if kept is not None and (kept.requires_grad or not torch.is_grad_enabled()):
            return kept
        return self.dist.log_prob(value)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "FlowDistribution":
        return FlowDistribution(self.dist.expand(torch.Size(batch_shape)))


def flow_distribution(transform: Any, base: Distribution) -> FlowDistribution:
    """The distribution of z where transform(z) has the distribution `base`."""
    with validation_restored():
        from zuko.distributions import NormalizingFlow

    return FlowDistribution(NormalizingFlow(transform, base))


class Flow(ABC):
    """The invertible transforms of a flow, but for its dimensions and its context, which come from where it is used.

    A subclass defines `transforms`.

    Arguments:
        num_transforms: how many transforms follow one another.
        hidden: the widths of the network that each of them has.
    """

    def __init__(self, num_transforms: int = 3, hidden: Sequence[int] = (64, 64)) -> None:
        self.num_transforms = whole(num_transforms, "num_transforms")
        self.hidden = tuple(as_shape(hidden, "hidden"))

    @abstractmethod
    def transforms(self, dim: int, context_dim: int = 0) -> nn.Module:
        """zuko's module that gives the transforms of `dim` dimensions, conditioned by `context_dim` numbers."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_transforms={self.num_transforms}, hidden={self.hidden})"


class AffineFlow(Flow):
    """Autoregressive affine transforms, in turns from the first and from the last dimension: D passes in one direction.

    References:
        Masked autoregressive flow for density estimation, Papamakarios et al., 2017.

    Arguments:
        num_transforms: how many transforms follow one another.
        hidden: the widths of the masked network that each of them has.

    Example:
        >>> AffineFlow(num_transforms=2, hidden=[32])
        AffineFlow(num_transforms=2, hidden=(32,))
    """

    def transforms(self, dim: int, context_dim: int = 0) -> nn.Module:
        with validation_restored():
            from zuko.flows import MAF
        return MAF(dim, context_dim, transforms=self.num_transforms, hidden_features=self.hidden).transform


class SplineFlow(Flow):
    """Monotonic rational-quadratic splines on [−5, 5] for one half of the dimensions given the other, in turns.

    They are the identity outside, and both directions cost a few passes of a network.

    References:
        Neural spline flows, Durkan et al., 2019.

    Arguments:
        num_transforms: how many transforms follow one another.
        hidden: the widths of the network that each of them has.

    Example:
        >>> SplineFlow(num_transforms=2, hidden=[32])
        SplineFlow(num_transforms=2, hidden=(32,))
    """

    def transforms(self, dim: int, context_dim: int = 0) -> nn.Module:
        with validation_restored():
            from zuko.flows import NSF
        flow = NSF(dim, context_dim, transforms=self.num_transforms, hidden_features=self.hidden, passes=2)
        return flow.transform


@contextmanager
def validation_restored() -> Iterator[None]:
    """Importing zuko turns the validation of every distribution off: it is turned back."""
    before = Distribution._validate_args
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)
