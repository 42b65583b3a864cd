"""Transforms: what turns the stored levels of a batch into the x that the model sees, binarisation included."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from pyro_vae.support.streams import stream_seed


class Transform(ABC):
    """What turns stored levels into x.

    A subclass defines `__call__`, and `prepare` where something is done once, when `Rows` are made. Where a level is
    missing it is shown 0, and what it makes of that is left out.
    """

    @abstractmethod
    def __call__(self, levels: Tensor, max_level: float) -> Tensor:
        """x from levels of the same shape in 0 … max_level; random draws come from torch's default generator."""

    def check(self, levels: Tensor, max_level: float) -> None:
        """Raise a `ValueError` of one sentence when levels lie outside 0 … max_level."""
        lowest, highest = levels.min().item(), levels.max().item()  # torch compares whole numbers in float32
        if lowest < 0 or highest > max_level:
            raise ValueError(
                f"'data' must lie in 0 ... {max_level:g} for the transform {self!r}, got values from "
                f"{lowest:g} to {highest:g}{_way_out(levels, max_level)}."
            )

    def mean(self, levels: Tensor, max_level: float) -> Tensor:
        """E[x] given the levels; a transform that draws x defines it."""
        return self(levels, max_level)

    def variance(self, levels: Tensor, max_level: float) -> Tensor:
        """Var[x] given the levels; of a transform that draws x, an unbiased estimate from one draw."""
        return (self(levels, max_level) - self.mean(levels, max_level)) ** 2

    def prepare(self, levels: Tensor, max_level: float, part: int) -> tuple[Tensor, float]:
        """The levels to store instead, and their highest; `part` numbers the training, validation and test rows 0, 1, 2.

        Levels that are prepared already stay as they are.
        """
        return levels, max_level

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


class Identity(Transform):
    """The stored levels as they are: whole numbers for a Binomial, real numbers for a Normal."""

    def check(self, levels: Tensor, max_level: float) -> None:
        """Any levels will do."""

    def __call__(self, levels: Tensor, max_level: float) -> Tensor:
        return levels


class UnitInterval(Transform):
    """Grey levels in [0, 1]: levels divided by the highest."""

    def __call__(self, levels: Tensor, max_level: float) -> Tensor:
        return levels / max_level


class OpenUnitInterval(Transform):
    """Whole levels inside (0, 1), for likelihoods without the ends: x = (level + ½) / (max_level + 1)."""

    def check(self, levels: Tensor, max_level: float) -> None:
        super().check(levels, max_level)
        if levels.is_floating_point() and not (levels == levels.round()).all():
            raise ValueError("'data' must hold whole levels for the transform OpenUnitInterval, got fractions.")

    def __call__(self, levels: Tensor, max_level: float) -> Tensor:
        return (levels + 0.5) / (max_level + 1)


class Threshold(Transform):
    """Binary x: 1 where the grey level is greater than a threshold.

    Arguments:
        threshold: in [0, 1).
    """

    def __init__(self, threshold: float = 0.5) -> None:
        if not 0 <= threshold < 1:
            raise ValueError(f"'threshold' must lie in [0, 1), got {threshold}.")
        self.threshold = threshold

    def __call__(self, levels: Tensor, max_level: float) -> Tensor:
        return (levels > self.threshold * max_level).to(levels.dtype)


class FixedDraw(Transform):
    """Binary x, drawn once with the grey levels as probabilities; the test rows have a random stream of their own.

    Arguments:
        seed: the draw.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, levels: Tensor, max_level: float) -> Tensor:
        return levels

    def prepare(self, levels: Tensor, max_level: float, part: int) -> tuple[Tensor, float]:
        generator = torch.Generator().manual_seed(stream_seed(self.seed, part))
        drawn = [
            torch.bernoulli(block.float() / max_level, generator=generator).to(torch.bool)
            for block in levels.split(4096)
        ]
        return torch.cat(drawn), 1.0  # a byte each, and known to be 0 or 1 by the dtype


class DynamicDraw(Transform):
    """Binary x, drawn afresh in every batch with the grey levels as probabilities.

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


def _way_out(levels: Tensor, max_level: float) -> str:
    """Advice on real numbers above 1, their highest level by default."""
    if not levels.is_floating_point() or max_level != 1 or levels.min() < 0:
        return ""
    kind = "whole levels" if (levels == levels.round()).all() else "levels"
    return f", which look like {kind} stored as real numbers: give their highest as 'max_level', 255 for 8 bits"
