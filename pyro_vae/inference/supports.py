"""Supports of latents, with maps from real numbers, found from the distribution in each run."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple

import torch
from pyro.distributions import ExpandedDistribution, MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    ComposeTransform,
    Independent,
    IndependentTransform,
    MixtureSameFamily,
    Transform,
    TransformedDistribution,
    biject_to,
    constraints,
)
from torch.distributions.constraints import Constraint

from pyro_vae.inference.programs import Programs
from pyro_vae.inference.refusals import check_observed
from pyro_vae.inference.sites import sample_sites


class Support(NamedTuple):
    """Support of a distribution: the image of a constraint under transforms.

    Arguments:
        constraint: the set of values that are transformed.
        transforms: applied one after the other; usually none.
    """

    constraint: Constraint
    transforms: tuple[Transform, ...] = ()

    @classmethod
    def of(cls, distribution: Any) -> "Support":
        """Return the support of a distribution.

        Raises:
            NotImplementedError: if the distribution does not state it, or is a mixture whose
                components have their own bounds.
        """
        if isinstance(distribution, MaskedDistribution | ExpandedDistribution):
            return cls.of(distribution.base_dist)
        if isinstance(distribution, Independent):
            return cls.of(distribution.base_dist)._to_event(distribution.reinterpreted_batch_ndims)
        if isinstance(distribution, MixtureSameFamily):
            return cls.of(distribution.component_distribution)._of_each_component()
        if type(distribution).support is TransformedDistribution.support:
            return cls.of(distribution.base_dist)._transformed(distribution)
        return cls(distribution.support)

    def bijection(self) -> Transform:
        """Return the map from real numbers onto the support.

        Raises:
            NotImplementedError: if there is none for this constraint.
        """
        first = biject_to(self.constraint)
        return ComposeTransform([first, *self.transforms]) if self.transforms else first

    def contains(self, values: Tensor) -> bool:
        """Return True if all values lie in the support."""
        for transform in reversed(self.transforms):
            values = transform.inv(values)
        return bool(self.constraint.check(values).all())

    def _to_event(self, num_dims: int) -> "Support":
        if num_dims == 0:
            return self
        transforms = tuple(
            IndependentTransform(transform, num_dims) for transform in self.transforms
        )
        return Support(constraints.independent(self.constraint, num_dims), transforms)

    def _of_each_component(self) -> "Support":
        # Bounds that are tensors have a dimension for the components; a value has none.
        bounds = vars(_elementwise(self.constraint)).values()
        if self.transforms or any(isinstance(bound, Tensor) and bound.dim() for bound in bounds):
            raise NotImplementedError("components with bounds of their own")
        return self

    def _transformed(self, distribution: TransformedDistribution) -> "Support":
        # torch takes the codomain of the last transform. That is right only if each transform
        # receives all of its domain: a Gamma plus 1 does not reach all real numbers.
        reached = self.constraint
        for transform in distribution.transforms:
            if self.transforms or _elementwise(transform.domain) is not _elementwise(reached):
                return Support(self.constraint, (*self.transforms, *distribution.transforms))
            reached = transform.codomain
        return Support(distribution.support)


class Kind(NamedTuple):
    """Properties of a latent that every run must share, so that its real numbers stay the same.

    Arguments:
        steps: the classes of the transforms from real numbers, except shifts and scales.
        event_shape: the event shape of the distribution.
        plates: the name and size of each plate that the latent lies in.
        distribution: the class of the distribution, for messages.
    """

    steps: tuple[str, ...]
    event_shape: torch.Size
    plates: tuple[tuple[str, int], ...]
    distribution: str

    def __str__(self) -> str:
        plates = ", ".join(f"'{name}' of {size}" for name, size in self.plates)
        shape = tuple(self.event_shape)
        return f"{self.distribution} of the event shape {shape} in {plates or 'no plate'}"


class Kinds:
    """The kind of each latent, taken from the first run."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind] = {}

    def support(self, site: Any) -> Support:
        """Return the support that a latent has in this run.

        Raises:
            ValueError: if the latent is discrete, has no map from real numbers, or had another kind
                in the first run.
        """
        name = str(site["name"])
        distribution = site["fn"]
        plates = tuple((frame.name, frame.size) for frame in site["cond_indep_stack"])
        family = _family(distribution)
        try:
            support = Support.of(distribution)
            if support.constraint.is_discrete:
                raise ValueError(
                    f"'guide' must have continuous latents for HMC, but '{name}' is discrete."
                )
            kind = Kind(_steps(support.bijection()), distribution.event_shape, plates, family)
        except NotImplementedError as error:
            raise ValueError(
                f"'model' must give '{name}' a support onto which real numbers can be mapped, got "
                f"that of {family}."
            ) from error
        first = self._kinds.setdefault(name, kind)
        if kind[:-1] != first[:-1]:
            raise ValueError(
                f"'model' must give '{name}' a support of one kind and shape in every run, got "
                f"{kind} after {first}."
            )
        return support


@torch.no_grad()
def latent_kinds(programs: Programs) -> Kinds:
    """Return the kind of each latent of the model, from a run of guide and model.

    Raises:
        ValueError: if model and guide have different latents, or if a latent is discrete. If an
            observed value lies outside its support.
    """
    kinds = Kinds()
    _, model_trace = programs.traces()
    for site in sample_sites(model_trace):
        if not site["is_observed"]:
            kinds.support(site)
    check_observed(model_trace)
    return kinds


class _AtLatents(Messenger, ABC):
    """Gives each latent a value in place of a draw.

    Arguments:
        names: the names of the latents.
        kinds: the kinds of the latents in all runs.
    """

    def __init__(self, names: Iterable[str], kinds: Kinds) -> None:
        super().__init__()
        self.kinds = kinds
        self.names = frozenset(names)
        self._met: set[str] = set()

    @abstractmethod
    def value(self, name: str, support: Support) -> Tensor:
        """Return the value of a latent from the support that it has in this run."""

    def _pyro_sample(self, msg: Message) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        name = str(msg["name"])
        distribution = msg["fn"]
        if name not in self.names:
            raise ValueError(
                f"'model' must have the same latents in every run, got '{name}' in one of them "
                "only."
            )
        self._met.add(name)
        value = self.value(name, self.kinds.support(msg))
        _check_shape(name, distribution, value)
        msg["value"] = value
        msg["is_observed"] = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        if error is None and self._met != self.names:
            missing = ", ".join(sorted(self.names - self._met))
            raise ValueError(
                f"'model' must have the same latents in every run, got none of {missing} in one of "
                "them."
            )


class ToSupport(_AtLatents):
    """Gives each latent z = T(u), where T maps real numbers onto its support in this run.

    T depends on the earlier latents if the distribution does. log |dz/du| of all latents is the sum
    over them, since no latent depends on later real numbers.

    Arguments:
        real: the real numbers u by name.
        kinds: the kinds of the latents in all runs.
    """

    def __init__(self, real: Mapping[str, Tensor], kinds: Kinds) -> None:
        super().__init__(real, kinds)
        self.real = real
        self.values: dict[str, Tensor] = {}
        self.log_dets: dict[str, Tensor] = {}

    def value(self, name: str, support: Support) -> Tensor:
        bijection = support.bijection()
        real = self.real[name]
        self.values[name] = bijection(real)
        self.log_dets[name] = bijection.log_abs_det_jacobian(real, self.values[name])
        return self.values[name]


class ToReal(_AtLatents):
    """Gives each latent its value z, and keeps u with z = T(u), where T is as in `ToSupport`.

    Arguments:
        values: the values z by name.
        kinds: the kinds of the latents in all runs.
        source: the argument that the values come from, for messages.
    """

    def __init__(self, values: Mapping[str, Tensor], kinds: Kinds, source: str = "guide") -> None:
        super().__init__(values, kinds)
        self.values = values
        self.source = source
        self.real: dict[str, Tensor] = {}

    def value(self, name: str, support: Support) -> Tensor:
        values = self.values[name]
        real = support.bijection().inv(values)
        if not (support.contains(values) and real.isfinite().all()):
            raise ValueError(
                f"'{self.source}' must have each '{name}' inside the support that the model gives "
                "it after the latents before it, got a value outside or at its edge."
            )
        self.real[name] = real
        return values


class _LastLatent(BaseException):
    """Signal that ends a run; no `Exception`, so that the user's code does not catch it."""


class _StopAfter(Messenger):
    """Ends a run when the last of these latents has its value."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.left = set(names)

    def _pyro_post_sample(self, msg: Message) -> None:
        self.left.discard(str(msg["name"]))
        if not self.left:
            raise _LastLatent


def run_to_last_latent(at: _AtLatents, program: Callable[[], Any]) -> None:
    """Run a program up to its last latent, so that nothing is decoded or scored."""
    with suppress(_LastLatent):
        _StopAfter(at.names)(at(program))()


def _check_shape(name: str, distribution: Any, value: Tensor) -> None:
    shape = distribution.shape()
    fits = len(shape) <= value.dim() and all(
        own in (1, given)
        for own, given in zip(reversed(shape), reversed(value.shape), strict=False)
    )
    if not fits:
        raise ValueError(
            f"'guide' must draw '{name}' in the plates and with the shape that the model gives it, "
            f"{tuple(shape)}, got {tuple(value.shape)}."
        )


def _elementwise(constraint: Any) -> Any:
    """Return the constraint on each number or smallest event."""
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return constraint


def _steps(transform: Transform) -> tuple[str, ...]:
    if isinstance(transform, ComposeTransform):
        return tuple(step for part in transform.parts for step in _steps(part))
    if isinstance(transform, IndependentTransform):
        return _steps(transform.base_transform)
    return () if isinstance(transform, AffineTransform) else (type(transform).__name__,)


def _family(distribution: Any) -> str:
    while isinstance(distribution, MaskedDistribution | ExpandedDistribution | Independent):
        distribution = distribution.base_dist
    return type(distribution).__name__
