"""Soundness of a step: a finite loss, finite gradients, and each value inside its support."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pyro.distributions import Independent, MaskedDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.densities import Concatenation

# Steps per read on an accelerator, where each read waits for all work in progress.
_READ_EVERY = 50


class UnsoundStepError(ValueError):
    """A step with an invalid loss, gradient or value; its gradients were not used.

    Arguments:
        step: the number of the step, from 1.
        what: the fault, as the beginning of a sentence.
        is_outside: True if a value was outside its support.
    """

    def __init__(self, step: int, what: str, is_outside: bool = False) -> None:
        advice = "look at its data" + (
            "" if is_outside else ", or try a lower learning rate or clipping"
        )
        super().__init__(
            f"{what} in step {step}, and the gradients of this step were not used: {advice}."
        )
        self.step = step
        self.what = what
        self.is_outside = is_outside


class Supports(Messenger):
    """Effect handler that finds values outside the support of the distribution that scores them.

    It checks the sites that Pyro's validation has checked before. These were scored with validation
    on, as in the first steps, by a distribution without `validate_args=False`. Masked elements are
    not scored. Draws of latents are checked number by number only, since rounding decides whether a
    vector sums to one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.checked: dict[str, None] = {}
        self._parts: set[tuple[str, int]] = set()
        self._outside: list[Tensor] = []

    def __enter__(self) -> Any:
        self._outside.clear()
        return super().__enter__()

    def outside(self, like: Tensor) -> Tensor:
        """Return zero if each value of the last run was inside its support, else another number.

        It has the dtype and device of `like`.
        """
        if not self._outside:
            return like.new_zeros(())
        outside = [sign.to(like) for sign in self._outside]
        self._outside.clear()
        return outside[0] if len(outside) == 1 else torch.stack(outside).amax()

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        for number, (fn, value, mask) in enumerate(scored(msg["fn"], msg["value"], msg["mask"])):
            part = msg["name"], number
            support = _support(fn)
            is_vector = support is not None and support.event_dim > 0
            if (
                support is None
                or not isinstance(value, Tensor)
                or (is_vector and not msg["is_observed"])
            ):
                continue
            if fn._validate_args:
                self._parts.add(part)
                self.checked[msg["name"]] = None
            if part in self._parts and value.numel():
                self._outside.append(_outside(support, value, mask))


class Watch:
    """Reader of the steps' signs: after each step on a CPU, after 50 steps on an accelerator."""

    def __init__(self, supports: Supports) -> None:
        self.supports = supports
        self._num_steps = 0
        self._unread: list[Tensor] = []

    def note(self, signs: Tensor) -> None:
        """Store the signs of one more step.

        Raises:
            UnsoundStepError: if a step that was read was not sound.
        """
        self._num_steps += 1
        self._unread.append(signs)
        if signs.device.type == "cpu" or len(self._unread) == _READ_EVERY:
            self.read()

    def read(self) -> None:
        """Read the signs of all unread steps.

        Raises:
            UnsoundStepError: if one of these steps was not sound; it names the first.
        """
        if not self._unread:
            return
        first = self._num_steps - len(self._unread) + 1
        unread = (
            [self._unread[0].tolist()]
            if first == self._num_steps
            else torch.stack(self._unread).tolist()
        )
        self._unread.clear()
        for step, (loss, gradient, outside) in enumerate(unread, start=first):
            if outside != 0:
                sites = ", ".join(map(repr, self.supports.checked))
                what = f"A value was outside the support of its distribution (checked at {sites})"
                raise UnsoundStepError(step, what, is_outside=True)
            if not (math.isfinite(loss) and math.isfinite(gradient)):
                what = "A gradient" if math.isfinite(loss) else "The loss"
                raise UnsoundStepError(step, f"{what} became NaN or infinite")


def signs_of(loss: Tensor, gradients: Sequence[Tensor | None], outside: Tensor) -> Tensor:
    """Return the loss, the norm of all gradients together, and `outside`, as one tensor.

    A sound step has two finite numbers and a zero. A gradient also counts as infinite if its square
    is infinite, as for Adam: in single precision from 2e19.
    """
    received = [g.float() if g.dtype == torch.float16 else g for g in gradients if g is not None]
    # One operation for all gradients: many small ones would take long one by one.
    norms = torch._foreach_norm(received, 2) if received else [outside]
    norm = torch.stack([norm.to(outside) for norm in norms]).sum()
    return torch.stack([loss if loss.dim() == 0 else loss.sum(), norm, outside])


def harmless(gradients: Sequence[Tensor | None], signs: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients, or zeros if the step was not sound, without a read by the host."""
    is_sound = signs.isfinite().all() & (signs[2] == 0)
    return tuple(
        None if gradient is None else torch.where(is_sound, gradient, 0) for gradient in gradients
    )


def scored(fn: Any, value: Any, mask: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield each distribution that scores a part of the value, with this part and its mask."""
    if mask is False:
        return
    if mask is True:
        mask = None
    if isinstance(fn, MaskedDistribution):
        own = None if fn._mask is True else fn._mask
        both = mask if own is None else own if mask is None or own is False else mask & own
        yield from scored(fn.base_dist, value, both)
    elif isinstance(fn, torch.distributions.Independent | Independent):
        wide = (
            mask if mask is None else mask.reshape(mask.shape + (1,) * fn.reinterpreted_batch_ndims)
        )
        yield from scored(fn.base_dist, value, wide)
    elif isinstance(fn, ExpandedDistribution):
        yield from scored(fn.base_dist, value, mask)
    elif isinstance(fn, Concatenation):
        for part, numbers in zip(fn.parts, value.split(fn._sizes, dim=-1), strict=True):
            yield from scored(part, numbers, mask)
    else:
        yield fn, value, mask


def _outside(support: Any, value: Tensor, mask: Tensor | None) -> Tensor:
    """Return zero if each value that is not masked is inside the support."""
    if isinstance(support, type(constraints.boolean)) and value.is_floating_point():
        distance = (value * value - value).abs()  # a third of the time of two comparisons
        return (distance if mask is None else torch.where(mask, distance, 0)).amax()
    inside = support.check(value)
    inside = inside if mask is None else inside | ~mask
    # The minimum of bytes takes a tenth of the time of `all`.
    return 1 - inside.contiguous().view(torch.uint8).amin().to(torch.int8)


def _support(fn: Any) -> Any:
    """Return the support if it has limits, else None.

    Real numbers need no check, since a NaN among them makes the loss NaN.
    """
    try:
        support = fn.support
    except NotImplementedError:
        return None
    if constraints.is_dependent(support):
        return None
    base = support
    while isinstance(base, constraints.independent):
        base = base.base_constraint
    return None if isinstance(base, type(constraints.real)) else support
