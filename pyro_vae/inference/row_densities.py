"""Densities by row: log p(x, z) and log q(z | x) as functions of latents in a guide's coordinates."""

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.inference.coordinates import Coordinates
from pyro_vae.inference.sites import (
    check_draws_apart,
    given_density,
    log_density,
    row_plate,
    sample_sites,
    samples_plate,
    traces,
)
from pyro_vae.inference.supports import Kinds, ToReal, ToSupport, run_to_last_latent
from pyro_vae.support.store import store_as_found

# Draws of the guide from which its mean and scale in each row are taken.
SCALE_DRAWS = 200


class RowDensities:
    """log p(x, z) and log q(z | x) of a model and a guide, at latents given in the guide's coordinates w, row by row.

    Both are densities of w: the Jacobian of its map to z is part of them, but for a constant that they share. The map is
    made site by site while the model runs, since the support of a latent may depend on the latents before it.

    Arguments:
        model: the Pyro model.
        guide: the Pyro guide; both as for `importance_sample`, but with continuous latents.
        args: passed to both.
        kwargs: passed to both.

    Raises:
        ValueError: a latent is discrete, or its support is of another kind in each run; the guide draws outside the
            support; the density depends on the other draws; no one row plate, as for `importance_sample`.
    """

    def __init__(self, model: Callable, guide: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.model, self.guide, self.args, self.kwargs = model, guide, args, kwargs
        self.plate = row_plate(model, guide, args, kwargs)
        self._kinds = latent_kinds(model, guide, args, kwargs)
        draws = self._draws(SCALE_DRAWS)
        self.coordinates = Coordinates(self._real(draws), self.plate)
        self._shapes = {name: values.shape[1:] for name, values in draws.items()}
        two = {name: torch.cat([other, draws[name][:1]]) for name, other in self._draws(1).items()}
        check_draws_apart(model, two, args, kwargs, self.plate)

    @property
    def names(self) -> list[str]:
        """The latents."""
        return self.coordinates.names

    def log_joint(self, white: Tensor) -> Tensor:
        """log p(x, z) + log |dz/dw|, in nats, `(C, B)` for w of shape `(C, B, D)`."""
        return self._joint_at(white)[0]

    def log_guide(self, white: Tensor) -> Tensor:
        """log q(z | x) + log |dz/dw|, in nats, `(C, B)` for w of shape `(C, B, D)`."""
        return self.log_guide_and_joint(white)[0]

    def log_guide_and_joint(self, white: Tensor) -> tuple[Tensor, Tensor]:
        """Both, from one run of the model."""
        log_joint, at = self._joint_at(white)
        with pyro.validation_enabled(False):
            log_guide = log_density(self.guide, at.values, self.args, self.kwargs, self.plate)
        return log_guide + self.coordinates.total(at.log_dets), log_joint

    def start(self, num_chains: int) -> Tensor:
        """w of fresh draws from the guide, `(C, B, D)`."""
        return self._white(self._draws(num_chains))

    @torch.no_grad()
    def latents(self, white: Tensor) -> dict[str, Tensor]:
        """The latents by name, `(C, B, ...)`, at w of shape `(C, B, D)`."""
        at = ToSupport(self.coordinates.real(white), self._kinds)
        self._run_to_last_latent(at, len(white))
        return {name: self.plate.rows_second(at.values[name]) for name in self.names}

    def place(self, latents: dict[str, Tensor]) -> Tensor:
        """w of given latents by name, one value for each row as a trace of the model has them, `(1, B, D)`.

        Raises:
            ValueError: a latent of another shape, or outside its support.
        """
        for name, shape in self._shapes.items():
            value = latents[name]
            if value.numel() != shape.numel() or value.shape != shape[-value.dim() :]:
                raise ValueError(f"'{name}' must have the shape {tuple(shape)}, got {tuple(value.shape)}.")
        # A trace has no dimensions for plates outside the row plate that a latent does not lie in.
        draws = {name: latents[name].reshape(1, *shape) for name, shape in self._shapes.items()}
        return self._white(draws, source="exact")

    def _joint_at(self, white: Tensor) -> tuple[Tensor, ToSupport]:
        at = ToSupport(self.coordinates.real(white), self._kinds)
        with pyro.validation_enabled(False):  # a trajectory may leave the numbers: it is rejected, and no error
            log_joint = given_density(at(self.model), len(white), self.args, self.kwargs, self.plate)
        return log_joint + self.coordinates.total(at.log_dets), at

    def _white(self, draws: dict[str, Tensor], source: str = "guide") -> Tensor:
        return self.coordinates.white(self._real(draws, source))

    @torch.no_grad()
    def _real(self, draws: dict[str, Tensor], source: str = "guide") -> dict[str, Tensor]:
        at = ToReal(draws, self._kinds, source)
        self._run_to_last_latent(at, len(next(iter(draws.values()))))
        return {name: at.real[name] for name in draws}

    def _run_to_last_latent(self, at: ToReal | ToSupport, count: int) -> None:
        with store_as_found(), pyro.validation_enabled(False), samples_plate(count, self.plate):
            run_to_last_latent(at, self.model, self.args, self.kwargs)

    @torch.no_grad()
    def _draws(self, count: int) -> dict[str, Tensor]:
        with pyro.plate("pyro_vae.draws", count, dim=-1 - self.plate.max_plate_nesting):
            return guide_latents(self.guide, self.args, self.kwargs)


def guide_latents(guide: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """One draw of all of the model's latents from the guide, by name."""
    with store_as_found():
        sites = sample_sites(poutine.trace(guide).get_trace(*args, **kwargs))
    return {site["name"]: site["value"] for site in sites if not site["infer"].get("is_auxiliary")}


@torch.no_grad()
def latent_kinds(model: Callable, guide: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Kinds:
    """The kind of each latent of the model, from a run of guide and model.

    Raises:
        ValueError: model and guide have other latents; a latent is discrete.
    """
    kinds = Kinds()
    for site in sample_sites(traces(model, guide, args, kwargs)[1]):
        if not site["is_observed"]:
            kinds.support(site)
    return kinds
