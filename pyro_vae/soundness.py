"""Soundness of a step: is its loss finite, are its gradients, and was every value inside its support?"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pyro.distributions import Independent, MaskedDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions import Concatenation

# On an accelerator a read waits for all work that is under way, so it is done for so many steps at a time.
_READ_EVERY = 50


class UnsoundStepError(ValueError):
    """A step with a loss, a gradient or a value that no step may be made of; its gradients were not used.

    Arguments:
        step: the number of the step, from 1.
        what: what was wrong, as the beginning of a sentence.
        is_outside: whether a value was outside its support.
    """

    def __init__(self, step: int, what: str, is_outside: bool = False) -> None:
        advice = "look at its data" + ("" if is_outside else ", or try a lower learning rate or clipping")
        super().__init__(f"{what} in step {step}, and the gradients of this step were not used: {advice}.")
        self.step, self.what, self.is_outside = step, what, is_outside


class Supports(Messenger):
    """Effect handler that finds values outside the support of the distribution that scores them.

    It checks what Pyro's validation has checked before: a site that was scored with validation on, as it is in the first
    steps, and by a distribution that was not made with `validate_args=False`. Masked elements are not scored. Draws of
    latent variables are checked number by number; rounding alone decides if a vector of them sums to one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.checked: dict[str, None] = {}
        self._parts: set[tuple[str, int]] = set()
        self._inside: list[Tensor] = []

    def __enter__(self) -> Any:
        self._inside.clear()
        return super().__enter__()

    def num_outside(self, like: Tensor) -> Tensor:
        """Zero where each value of the last run was inside its support, else 1; with the dtype and device of `like`."""
        if not self._inside:
            return like.new_zeros(())
        inside = torch.stack([flag.to(like.device) for flag in self._inside])
        self._inside.clear()
        return 1 - inside.amin().to(like.dtype)

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        for number, (fn, value, mask) in enumerate(_scored(msg["fn"], msg["value"], msg["mask"])):
            part = msg["name"], number
            support = _support(fn)
            is_vector = support is not None and support.event_dim > 0
            if support is None or not isinstance(value, Tensor) or (is_vector and not msg["is_observed"]):
                continue
            if fn._validate_args:
                self._parts.add(part)
                self.checked[msg["name"]] = None
            if part in self._parts:
                inside = support.check(value)
                inside = inside if mask is None else inside | ~mask
                if inside.numel():
                    # The minimum of bytes takes a tenth of the time of `all`.
                    self._inside.append(inside.contiguous().view(torch.uint8).amin())


class Watch:
    """The signs of steps, which are read at once where that costs nothing, and now and then on an accelerator."""

    def __init__(self, supports: Supports) -> None:
        self.supports = supports
        self._num_steps = 0
        self._unread: list[Tensor] = []

    def note(self, signs: Tensor) -> None:
        """Take the signs of one more step.

        Raises:
            UnsoundStepError: if a step that was read was not sound.
        """
        self._num_steps += 1
        self._unread.append(signs)
        if signs.device.type == "cpu" or len(self._unread) == _READ_EVERY:
            self.read()

    def read(self) -> None:
        """Read what is unread.

        Raises:
            UnsoundStepError: if one of these steps was not sound; it names the first.
        """
        if not self._unread:
            return
        first = self._num_steps - len(self._unread) + 1
        unread = torch.stack(self._unread).tolist()
        self._unread.clear()
        for step, (loss, gradient, outside) in enumerate(unread, start=first):
            if outside != 0:
                sites = ", ".join(map(repr, self.supports.checked))
                what = f"A value was outside the support of its distribution (checked at {sites})"
                raise UnsoundStepError(step, what, is_outside=True)
            if not loss == gradient == 0:
                what = "A gradient" if loss == 0 else "The loss"
                raise UnsoundStepError(step, f"{what} became NaN or infinite")


def signs_of(loss: Tensor, gradients: Sequence[Tensor | None], outside: Tensor) -> Tensor:
    """Three numbers that are 0 for a sound step: NaN for a loss and for gradients that are not finite, and `outside`.

    A gradient is taken for infinite too where the sum of its numbers overflows.
    """
    sums = [gradient.sum(dtype=_wide(gradient.dtype)).to(outside) for gradient in gradients if gradient is not None]
    total = torch.stack(sums).sum() if sums else outside
    return torch.stack([loss.sum() * 0, total * 0, outside])  # 0 times what is not finite is NaN


def harmless(gradients: Sequence[Tensor | None], signs: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients, or zeros where the signs are not those of a sound step, which no host needs to read."""
    is_sound = (signs == 0).all()
    return tuple(None if gradient is None else torch.where(is_sound, gradient, 0) for gradient in gradients)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _scored(fn: Any, value: Any, mask: Any) -> Iterator[tuple[Any, Any, Any]]:
    """The distributions that score the parts of a value one by one, with their part, and with the mask of its elements."""
    if mask is False:
        return
    if mask is True:
        mask = None
    if isinstance(fn, MaskedDistribution):
        own = None if fn._mask is True else fn._mask
        both = mask if own is None else own if mask is None or own is False else mask & own
        yield from _scored(fn.base_dist, value, both)
    elif isinstance(fn, torch.distributions.Independent | Independent):
        wide = mask if mask is None else mask.reshape(mask.shape + (1,) * fn.reinterpreted_batch_ndims)
        yield from _scored(fn.base_dist, value, wide)
    elif isinstance(fn, ExpandedDistribution):
        yield from _scored(fn.base_dist, value, mask)
    elif isinstance(fn, Concatenation):
        for part, numbers in zip(fn.parts, value.split(fn._sizes, dim=-1), strict=True):
            yield from _scored(part, numbers, mask)
    else:
        yield fn, value, mask


def _support(fn: Any) -> Any:
    """The support, where there is a limit to it: NaN among real numbers makes the loss NaN."""
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
