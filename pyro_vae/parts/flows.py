"""Normalizing flows of zuko as Pyro distributions."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from pyro.contrib.zuko import ZukoToPyro
from torch import Tensor, nn
from torch.distributions import Distribution, Transform, constraints

from pyro_vae.support.checks import (
    as_shape,
    described,
    instance,
    one_line,
    whole,
    with_article,
)
from pyro_vae.support.modules import tensor_like


class FlowDistribution(ZukoToPyro):
    """Flow of zuko as a Pyro distribution that can also be drawn from outside `pyro.sample`.

    The log-density of a draw is kept with it. So scoring a flow's own draws never takes the slow
    direction of the flow.

    Arguments:
        dist: a distribution of zuko.
    """

    support = constraints.real_vector

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        return self(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        kept: Tensor | None = self.cache.get(value)
        # A value that was kept under no_grad has no gradient.
        if kept is not None and (kept.requires_grad or not torch.is_grad_enabled()):
            return kept
        return self.dist.log_prob(value)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "FlowDistribution":
        return FlowDistribution(self.dist.expand(torch.Size(batch_shape)))


def flow_distribution(transform: Any, base: Distribution) -> FlowDistribution:
    """Return the distribution of z for which transform(z) has the distribution `base`."""
    with validation_restored():
        from zuko.distributions import NormalizingFlow

    return FlowDistribution(NormalizingFlow(transform, base))


class Flow(ABC):
    """Settings of a flow's invertible transforms; its user gives dimension and context size.

    A subclass defines `transforms`.

    Arguments:
        num_transforms: the number of transforms in a row.
        hidden: the hidden widths of the network of each transform.
    """

    def __init__(self, num_transforms: int = 3, hidden: Sequence[int] = (64, 64)) -> None:
        self.num_transforms = whole(num_transforms, "num_transforms")
        self.hidden = tuple(as_shape(hidden, "hidden"))

    @abstractmethod
    def transforms(self, dim: int, context_dim: int = 0) -> nn.Module:
        """Return zuko's module of the transforms.

        Arguments:
            dim: the number of dimensions.
            context_dim: the number of context numbers that condition the transforms.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_transforms={self.num_transforms}, hidden={self.hidden})"


def transforms_of(
    flow: Flow | None, default: type[Flow], dim: int, context_dim: int = 0
) -> nn.Module:
    """Return the transforms of a flow, or of one of the default class for None.

    Raises:
        ValueError: if it is no flow, or its module gives no transform of a vector.
    """
    flow = default() if flow is None else instance(flow, Flow, "flow", "SplineFlow()")
    try:
        signature(flow.transforms).bind(dim, context_dim)
    except TypeError as error:
        raise ValueError(
            f"{type(flow).__name__} must define transforms(self, dim, context_dim=0), but "
            f"{one_line(error)}."
        ) from None
    module = flow.transforms(dim, context_dim)
    if isinstance(module, nn.Module):  # not described: the repr of zuko's draws random numbers
        problem = _problem_of(module, dim, context_dim)
        if problem is None:
            return module
        received = f"{with_article(type(module).__name__)}, {problem}"
    else:
        received = described(module)
    raise ValueError(
        f"'transforms' of {type(flow).__name__} must return a module that gives a transform of "
        f"vectors of {dim}, as zuko.flows.MAF(...).transform does, got {received}."
    )


@torch.no_grad()
def _problem_of(module: nn.Module, dim: int, context_dim: int) -> str | None:
    """Return in words why a module gives no transform of vectors, or None."""
    context = (tensor_like(module).new_zeros(2, context_dim),) if context_dim else ()
    try:
        transform = module(*context)
        if not isinstance(transform, Transform):
            return f"which gives {described(transform)}"
        z = tensor_like(module).new_zeros(2, dim)
        shapes = transform(z).shape, transform.log_abs_det_jacobian(z, transform(z)).shape
    except Exception as error:  # whatever a class of the user raises
        return f"which fails: {one_line(error)}"
    return None if shapes == (z.shape, z.shape[:1]) else "which gives one of another shape"


class AffineFlow(Flow):
    """Autoregressive affine transforms, which take D passes in one direction.

    The order of the dimensions is reversed from each transform to the next.

    References:
        Masked autoregressive flow for density estimation, Papamakarios et al., 2017.

    Arguments:
        num_transforms: the number of transforms in a row.
        hidden: the hidden widths of the masked network of each transform.

    Example:
        >>> AffineFlow(num_transforms=2, hidden=[32])
        AffineFlow(num_transforms=2, hidden=(32,))
    """

    def transforms(self, dim: int, context_dim: int = 0) -> nn.Module:
        with validation_restored():
            from zuko.flows import MAF
        flow = MAF(dim, context_dim, transforms=self.num_transforms, hidden_features=self.hidden)
        return flow.transform


class SplineFlow(Flow):
    """Monotonic rational-quadratic splines on [−5, 5], the identity outside.

    They transform one half of the dimensions given the other, in turns. Each direction takes a few
    passes of a network.

    References:
        Neural spline flows, Durkan et al., 2019.

    Arguments:
        num_transforms: the number of transforms in a row.
        hidden: the hidden widths of the network of each transform.

    Example:
        >>> SplineFlow(num_transforms=2, hidden=[32])
        SplineFlow(num_transforms=2, hidden=(32,))
    """

    def transforms(self, dim: int, context_dim: int = 0) -> nn.Module:
        with validation_restored():
            from zuko.flows import NSF
        flow = NSF(
            dim, context_dim, transforms=self.num_transforms, hidden_features=self.hidden, passes=2
        )
        return flow.transform


@contextmanager
def validation_restored() -> Iterator[None]:
    """Restore the default validation of distributions, which importing zuko turns off."""
    before = Distribution._validate_args
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)
