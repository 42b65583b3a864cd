"""Coordinates: all latents as one real vector, in which the draws of a guide have mean 0 and
variance 1.
"""

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from pyro_vae.inference.row_plate import RowPlate


class Coordinates:
    """w with u = loc + scale · w, where u are the real numbers of all latents, and loc and scale
    are a guide's.

    Where the guide is close to the posterior, w is close to a standard normal under it: one step
    size suits all.

    Arguments:
        draws: real numbers of each latent, from draws of the guide: `(S, plates, ...)`, or `(S,
            ...)` without rows.
        plate: the plate of the rows, which stay apart; without one all latents together are one
            vector.
    """

    def __init__(self, draws: Mapping[str, Tensor], plate: RowPlate | None = None) -> None:
        self.plate = plate
        self._shapes = {
            name: self._arranged(real).shape[self._num_lead :] for name, real in draws.items()
        }
        flat = self._joined(draws)
        self.loc = flat.mean(0)
        spread = flat.std(0)
        self.scale = torch.where(spread > 0, spread, 1.0)  # a point mass says nothing of the scale

    @property
    def names(self) -> list[str]:
        """The latents, in their order."""
        return list(self._shapes)

    def real(self, white: Tensor) -> dict[str, Tensor]:
        """Real numbers by name, `(C, plates, ...)`, of w, `(C, B, D)`; without rows `(*, ...)` of
        `(*, D)`.
        """
        parts = (self.loc + self.scale * white).split(
            [prod(shape) for shape in self._shapes.values()], dim=-1
        )
        arranged = {
            name: part.reshape((*part.shape[:-1], *shape))
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
        if self.plate is None:
            return arranged
        return {name: self.plate.rows_in_place(real) for name, real in arranged.items()}

    def white(self, real: Mapping[str, Tensor]) -> Tensor:
        """w, `(C, B, D)`, of real numbers by name, each `(C, plates, ...)`; without rows `(C, D)`
        of `(C, ...)`.
        """
        return (self._joined(real) - self.loc) / self.scale

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Σ of the latents' terms for each draw and row, `(C, B)`, from `(C, plates)`; without rows
        `(C,)`.
        """
        return sum(
            (self._flat(self._arranged(terms[name])).sum(-1) for name in self._shapes),
            torch.zeros(()),
        )

    def _joined(self, real: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([self._flat(self._arranged(real[name])) for name in self._shapes], dim=-1)

    @property
    def _num_lead(self) -> int:
        """The number of dimensions that stay apart: draws, and rows where there are rows."""
        return 1 if self.plate is None else 2

    def _arranged(self, values: Tensor) -> Tensor:
        return values if self.plate is None else self.plate.rows_second(values)

    def _flat(self, arranged: Tensor) -> Tensor:
        return arranged.reshape(*arranged.shape[: self._num_lead], -1)
