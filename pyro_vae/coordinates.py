"""Coordinates: all latents as one real vector, in which the draws of a guide have mean 0 and variance 1."""

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Transform, biject_to
from torch.distributions.constraints import Constraint

from pyro_vae.importance import RowPlate


class _Latent(NamedTuple):
    """One latent site: its map from the real numbers, and the shape of its real numbers for one row."""

    name: str
    transform: Transform
    shape: torch.Size


class Coordinates:
    """w with z = T(loc + scale · w): T maps real numbers to each latent's support, loc and scale are a guide's.

    Where the guide is close to the posterior, w is close to a standard normal under it: one step size suits all.

    Arguments:
        draws: values of each latent from the guide, `(S, plates, event)`, or `(S, *shape)` without rows.
        supports: what values each latent can have.
        plate: the plate of the rows, which stay apart; without one all latents together are one vector.

    Raises:
        ValueError: a latent is discrete.
    """

    def __init__(
        self, draws: Mapping[str, Tensor], supports: Mapping[str, Constraint], plate: RowPlate | None = None
    ) -> None:
        self.plate, self._latents = plate, []
        for name, values in draws.items():
            if supports[name].is_discrete:
                raise ValueError(f"'guide' must have continuous latents for HMC, but '{name}' is discrete.")
            transform = biject_to(supports[name])
            self._latents.append(
                _Latent(name, transform, self._arranged(transform.inv(values)).shape[self._num_lead :])
            )
        real = self._real(draws)
        self.loc, spread = real.mean(0), real.std(0)
        self.scale = torch.where(spread > 0, spread, 1.0)  # a point mass says nothing of the scale

    @property
    def names(self) -> list[str]:
        """The latents, in their order."""
        return [latent.name for latent in self._latents]

    def values(self, white: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Latents by name, `(C, plates, event)`, from w, `(C, B, D)`, and log |dT / du| of each row, in nats, `(C, B)`.

        Without rows: `(C, *shape)` from `(C, D)`, and `(C,)`.
        """
        real, latents = self.loc + self.scale * white, {}
        log_det = torch.zeros_like(real[..., 0])
        sizes = [prod(latent.shape) for latent in self._latents]
        for latent, part in zip(self._latents, real.split(sizes, dim=-1), strict=True):
            u = part.reshape(*part.shape[:-1], *latent.shape)
            u = u if self.plate is None else self.plate.rows_in_place(u)
            value = latent.transform(u)
            latents[latent.name] = value
            log_det = log_det + self._flat(self._arranged(latent.transform.log_abs_det_jacobian(u, value))).sum(-1)
        return latents, log_det

    def white(self, latents: Mapping[str, Tensor]) -> Tensor:
        """w, `(C, B, D)`, of latents by name, each `(C, plates, event)`; without rows `(C, D)` of `(C, *shape)`."""
        return (self._real(latents) - self.loc) / self.scale

    def _real(self, latents: Mapping[str, Tensor]) -> Tensor:
        parts = [latent.transform.inv(latents[latent.name]) for latent in self._latents]
        return torch.cat([self._flat(self._arranged(part)) for part in parts], dim=-1)

    @property
    def _num_lead(self) -> int:
        """How many dimensions stay apart: draws, and rows where there are rows."""
        return 1 if self.plate is None else 2

    def _arranged(self, values: Tensor) -> Tensor:
        return values if self.plate is None else self.plate.rows_second(values)

    def _flat(self, arranged: Tensor) -> Tensor:
        return arranged.reshape(*arranged.shape[: self._num_lead], -1)
