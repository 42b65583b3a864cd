"""Coordinates: all latents as one real vector, standardised by draws of a guide.

The draws have mean 0 and variance 1 in them.
"""

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from pyro_vae.inference.row_plate import RowPlate


class Coordinates:
    """Coordinates w of all latents, with u = loc + scale · w.

    Here u are the real numbers of all latents, and loc and scale are the mean and the standard
    deviation of u under a guide. If the guide is close to the posterior, w is close to a standard
    normal under the posterior. Then one step size suits all dimensions.

    Arguments:
        draws: real numbers of each latent, from draws of the guide: `(S, plates, ...)`, or `(S,
            ...)` without rows.
        plate: the plate of the rows, each of which has its own vector. Without a plate all latents
            together are one vector.
    """

    def __init__(self, draws: Mapping[str, Tensor], plate: RowPlate | None = None) -> None:
        self.plate = plate
        self._shapes = {
            name: self._arranged(real).shape[self._num_lead :] for name, real in draws.items()
        }
        flat = self._joined(draws)
        self.loc = flat.mean(0)
        spread = flat.std(0)
        self.scale = torch.where(spread > 0, spread, 1.0)  # a point mass has no scale

    @property
    def names(self) -> list[str]:
        """The latents, in their order."""
        return list(self._shapes)

    def real(self, white: Tensor) -> dict[str, Tensor]:
        """Return the real numbers u by name, each `(C, plates, ...)`, at w, `(C, B, D)`.

        Without rows they are `(*, ...)` at w of shape `(*, D)`.
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
        """Return w, `(C, B, D)`, for real numbers u by name, each `(C, plates, ...)`.

        Without rows it is `(C, D)` for real numbers of shape `(C, ...)`.
        """
        return (self._joined(real) - self.loc) / self.scale

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Sum the terms of the latents, each `(C, plates)`, for each draw and row, `(C, B)`.

        Without rows the sum is `(C,)`.
        """
        return sum(
            (self._flat(self._arranged(terms[name])).sum(-1) for name in self._shapes),
            torch.zeros(()),
        )

    def _joined(self, real: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([self._flat(self._arranged(real[name])) for name in self._shapes], dim=-1)

    @property
    def _num_lead(self) -> int:
        """The number of leading dimensions: draws, and rows if there are rows."""
        return 1 if self.plate is None else 2

    def _arranged(self, values: Tensor) -> Tensor:
        return values if self.plate is None else self.plate.rows_second(values)

    def _flat(self, arranged: Tensor) -> Tensor:
        return arranged.reshape(*arranged.shape[: self._num_lead], -1)
