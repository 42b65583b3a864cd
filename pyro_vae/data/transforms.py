"""Transforms from the stored levels of a batch to the x of the model, such as binarisation."""

import math
from abc import ABC, abstractmethod
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from pyro_vae.support.checks import as_real, described, exactly, real, whole
from pyro_vae.support.methods_of_users import called, returned, wrong_result
from pyro_vae.support.streams import stream_seed

# Rows that are drawn at once, to bound the memory. Draws may depend on it.
_BLOCK_ROWS = 4096
# Levels outside of [0, 1] by at most this were moved out by rounding or by interpolation.
_OVERSHOOT = 0.1


class Transform(ABC):
    """Transform from stored levels to x.

    A subclass defines `__call__`. It defines `prepare` if something is done once, when `Rows` are
    made, and `augment` if training sees more than the rows as they are. It receives 0 for a missing
    level, except in `augment`; its output there is replaced by NaN.
    """

    @abstractmethod
    def __call__(self, levels: Tensor, max_level: float) -> Tensor:
        """Return x from levels of the same shape in 0 … max_level.

        Random draws come from torch's default generator.
        """

    def check(self, levels: Tensor, max_level: float) -> None:
        """Refuse levels outside 0 … max_level.

        Raises:
            ValueError: if a level lies outside, in one sentence.
        """
        # As Python numbers, since torch compares whole numbers in float32.
        lowest = levels.min().item()
        highest = levels.max().item()
        if lowest < 0 or highest > max_level:
            raise ValueError(
                f"'data' must lie in 0 ... {max_level:g} for the transform {self!r}, got values "
                f"from {exactly(lowest)} to {exactly(highest)}{_way_out(levels, max_level)}."
            )

    def mean(self, levels: Tensor, max_level: float) -> Tensor:
        """Return E[x] given the levels; a random transform must define it."""
        return self(levels, max_level)

    def variance(self, levels: Tensor, max_level: float) -> Tensor:
        """Return Var[x] given the levels, or an unbiased estimate from one random draw."""
        return (self(levels, max_level) - self.mean(levels, max_level)) ** 2

    def prepare(self, levels: Tensor, max_level: float, part: int) -> tuple[Tensor, float]:
        """Return the levels to store instead, and their highest; by default those given.

        Arguments:
            levels: the levels, `(N, *x_shape)`.
            max_level: their highest possible level.
            part: 0 for training, 1 for validation and 2 for test rows.
        """
        return levels, max_level

    def augment(self, levels: Tensor) -> Tensor:
        """Return levels changed at random, for one step of training; by default those given.

        `fit` calls it in every step. Evaluation sees the rows as they are.

        Arguments:
            levels: the stored levels of a batch, `(B, *x_shape)`; a missing one is NaN.
        """
        return levels

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


class Identity(Transform):
    """Stored levels as they are: whole numbers for a Binomial, real numbers for a Normal."""

    def check(self, levels: Tensor, max_level: float) -> None:
        """Accept any levels."""

    def __call__(self, levels: Tensor, max_level: float) -> Tensor:
        return levels


class UnitInterval(Transform):
    """Grey levels in [0, 1]: x = level / max_level."""

    def __call__(self, levels: Tensor, max_level: float) -> Tensor:
        return levels / max_level


class OpenUnitInterval(Transform):
    """Whole levels moved into (0, 1), without the ends: x = (level + ½) / (max_level + 1)."""

    def check(self, levels: Tensor, max_level: float) -> None:
        super().check(levels, max_level)
        if levels.is_floating_point() and not (levels == levels.round()).all():
            raise ValueError(
                "'data' must hold whole levels for the transform OpenUnitInterval, got fractions."
            )

    def __call__(self, levels: Tensor, max_level: float) -> Tensor:
        return (levels + 0.5) / (max_level + 1)


class Threshold(Transform):
    """Binary x: 1 for a grey level greater than a threshold, and 0 if not.

    Arguments:
        threshold: the threshold as a share of `max_level`, in [0, 1).

    Raises:
        ValueError: if the threshold is not in [0, 1).
    """

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = real(
            threshold,
            "threshold",
            holds=lambda number: 0 <= number < 1,
            accepted="lie in [0, 1)",
        )

    def __call__(self, levels: Tensor, max_level: float) -> Tensor:
        return (levels > self.threshold * max_level).to(levels.dtype)


class FixedDraw(Transform):
    """Binary x, drawn once with the grey levels as probabilities.

    Training, validation and test rows have random streams of their own.

    Arguments:
        seed: names the random streams.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = whole(seed, "seed", least=0)

    def __call__(self, levels: Tensor, max_level: float) -> Tensor:
        return levels

    def prepare(self, levels: Tensor, max_level: float, part: int) -> tuple[Tensor, float]:
        generator = torch.Generator().manual_seed(stream_seed(self.seed, part))
        drawn = []
        for block in levels.split(_BLOCK_ROWS):
            x = torch.bernoulli(block.float() / max_level, generator=generator)
            drawn.append(x.to(torch.bool))  # one byte, and the dtype shows that it is 0 or 1
        return torch.cat(drawn), 1.0


class DynamicDraw(Transform):
    """Binary x, drawn anew in each batch with the grey levels as probabilities.

    References:
        On the quantitative analysis of deep belief networks, Salakhutdinov and Murray, 2008.
    """

    def __call__(self, levels: Tensor, max_level: float) -> Tensor:
        return torch.bernoulli(levels / max_level)

    def mean(self, levels: Tensor, max_level: float) -> Tensor:
        return levels / max_level

    def variance(self, levels: Tensor, max_level: float) -> Tensor:
        mean = self.mean(levels, max_level)
        return mean * (1 - mean)


def prepared_by(
    transform: Transform, levels: Tensor, max_level: float, part: int
) -> tuple[Tensor, float]:
    """Return the levels that a transform checks and prepares, and their highest.

    Raises:
        ValueError: if the transform refuses the levels, or its `check` or `prepare` returns what it
            must not.
    """
    accepted = "None, and raise a ValueError for levels that it refuses"
    returned(called(transform, "check", levels, max_level), NoneType, transform, "check", accepted)
    result = called(transform, "prepare", levels, max_level, part)
    accepted = "the levels to store and their highest, a tensor and a number above 0"
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise wrong_result(transform, "prepare", accepted, described(result))
    stored = returned(result[0], Tensor, transform, "prepare", accepted)
    highest = as_real(result[1])
    if highest is None or not 0 < highest < math.inf:
        raise wrong_result(transform, "prepare", accepted, f"{described(result[1])} as the highest")
    if stored.shape[:1] != levels.shape[:1] or stored.dim() < 2:
        accepted = f"one row of levels for each of the {len(levels)} rows"
        raise wrong_result(transform, "prepare", accepted, f"the shape {tuple(stored.shape)}")
    if stored is not levels and not stored.isfinite().all():
        raise wrong_result(transform, "prepare", "finite levels", "NaN or infinity")
    return stored, highest


def checked_result(transform: Transform, method: str, values: Any, levels: Tensor) -> Tensor:
    """Return the result of a method of a transform.

    Raises:
        ValueError: if it is no tensor of the shape of the levels.
    """
    accepted = f"a tensor of the shape of its levels, {tuple(levels.shape)}"
    returned(values, Tensor, transform, method, accepted)
    if values.shape != levels.shape:
        raise wrong_result(transform, method, accepted, f"the shape {tuple(values.shape)}")
    return values


def _way_out(levels: Tensor, max_level: float) -> str:
    """Return advice on real numbers outside of [0, 1], the range of levels by default."""
    if not levels.is_floating_point() or max_level != 1:
        return ""
    if levels.min() >= -_OVERSHOOT and levels.max() <= 1 + _OVERSHOOT:
        return ": clip them, by x.clamp(0, 1)"
    if levels.min() < 0:
        return ": rescale them, or keep them as they are by the transform Identity"
    kind = "whole levels" if (levels == levels.round()).all() else "levels"
    return (
        f", which look like {kind} stored as real numbers: give their highest as 'max_level', "
        "255 for 8 bits"
    )
