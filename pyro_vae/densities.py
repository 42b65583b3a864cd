"""Densities by row: log p(x, z) and log q(z | x) as functions of latents in a guide's coordinates."""

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions.constraints import Constraint, MixtureSameFamilyConstraint

from pyro_vae.coordinates import Coordinates
from pyro_vae.importance import log_density, row_plate, sample_sites, traces
from pyro_vae.store import store_as_found

# Draws of the guide from which its mean and scale in each row are taken.
SCALE_DRAWS = 200


class RowDensities:
    """log p(x, z) and log q(z | x) of a model and a guide, at latents given in the guide's coordinates w, row by row.

    Both are densities of w: the Jacobian of its map to z is part of them, but for a constant that they share.

    Arguments:
        model: the Pyro model.
        guide: the Pyro guide; both as for `importance_sample`, but with continuous latents.
        args: passed to both.
        kwargs: passed to both.

    Raises:
        ValueError: a latent is discrete; the density differs from call to call; what `importance_sample` refuses.
    """

    def __init__(self, model: Callable, guide: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.model, self.guide, self.args, self.kwargs = model, guide, args, kwargs
        self.plate = row_plate(model, guide, args, kwargs)
        supports, draws = latent_supports(model, guide, args, kwargs), self._draws(SCALE_DRAWS)
        self.coordinates = Coordinates(draws, supports, self.plate)
        self._shapes = {name: values.shape[1:] for name, values in draws.items()}
        self._check_fixed()

    @property
    def names(self) -> list[str]:
        """The latents."""
        return self.coordinates.names

    def log_joint(self, white: Tensor) -> Tensor:
        """log p(x, z) + log |dz/dw|, in nats, `(C, B)` for w of shape `(C, B, D)`."""
        return self._log_density(self.model, white)

    def log_guide(self, white: Tensor) -> Tensor:
        """log q(z | x) + log |dz/dw|, in nats, `(C, B)` for w of shape `(C, B, D)`."""
        return self._log_density(self.guide, white)

    def start(self, num_chains: int) -> Tensor:
        """w of fresh draws from the guide, `(C, B, D)`."""
        return self.coordinates.white(self._draws(num_chains))

    def latents(self, white: Tensor) -> dict[str, Tensor]:
        """The latents by name, `(C, B, ...)`, at w of shape `(C, B, D)`."""
        values, _ = self.coordinates.values(white)
        return {name: self.plate.rows_second(value) for name, value in values.items()}

    def place(self, latents: dict[str, Tensor]) -> Tensor:
        """w of given latents by name, one value for each row as a trace of the model has them, `(1, B, D)`.

        Raises:
            ValueError: a latent of another shape.
        """
        for name, shape in self._shapes.items():
            value = latents[name]
            if value.numel() != shape.numel() or value.shape != shape[-value.dim() :]:
                raise ValueError(f"'{name}' must have the shape {tuple(shape)}, got {tuple(value.shape)}.")
        # A trace has no dimensions for plates outside the row plate that a latent does not lie in.
        return self.coordinates.white({name: latents[name].reshape(1, *shape) for name, shape in self._shapes.items()})

    @torch.no_grad()
    def _draws(self, count: int) -> dict[str, Tensor]:
        with pyro.plate("pyro_vae.draws", count, dim=-1 - self.plate.max_plate_nesting):
            return guide_latents(self.guide, self.args, self.kwargs)

    @torch.no_grad()
    def _check_fixed(self) -> None:
        """A density that differs from call to call, as under dropout, is that of no chain."""
        place = self.coordinates.white(self._draws(1))
        first, second = (self.log_joint(place) for _ in range(2))
        if not torch.allclose(first.nan_to_num(), second.nan_to_num(), rtol=1e-3, atol=1e-3):
            raise ValueError(
                "'model' must give the same density whenever it is asked, but does not: is it in training mode with dropout?"
            )

    def _log_density(self, program: Callable, white: Tensor) -> Tensor:
        values, log_det = self.coordinates.values(white)
        with pyro.validation_enabled(False):  # a trajectory may leave the numbers: it is rejected, and no error
            return log_density(program, values, self.args, self.kwargs, self.plate) + log_det


def guide_latents(guide: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """One draw of all of the model's latents from the guide, by name."""
    with store_as_found():
        sites = sample_sites(poutine.trace(guide).get_trace(*args, **kwargs))
    return {site["name"]: site["value"] for site in sites if not site["infer"].get("is_auxiliary")}


@torch.no_grad()
def latent_supports(
    model: Callable, guide: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Constraint]:
    """What values the model gives to each of the guide's latents, by name.

    Raises:
        ValueError: model and guide have other latents.
    """
    sites = sample_sites(traces(model, guide, args, kwargs)[1])
    return {site["name"]: _support(site["fn"]) for site in sites if not site["is_observed"]}


def _support(distribution: Any) -> Constraint:
    """Where the density is; of a mixture, where that of its components is."""
    support = distribution.support
    return support.base_constraint if isinstance(support, MixtureSameFamilyConstraint) else support
