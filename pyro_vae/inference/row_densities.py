"""log p(x, z) and log q(z | x) by row, as functions of latents in a guide's coordinates."""

import pyro
import torch
from torch import Tensor

from pyro_vae.inference.arguments import check_tensor
from pyro_vae.inference.coordinates import Coordinates
from pyro_vae.inference.given_latents import check_draws_apart, given_density, log_density
from pyro_vae.inference.programs import Programs
from pyro_vae.inference.row_plate import samples_plate
from pyro_vae.inference.supports import ToReal, ToSupport, latent_kinds, run_to_last_latent
from pyro_vae.support.store import store_as_found
from pyro_vae.support.validation import validating

# The number of guide draws that give its mean and scale in each row.
SCALE_DRAWS = 200


class RowDensities:
    """log p(x, z) and log q(z | x) by row, at latents given in the guide's coordinates w.

    Both are densities of w: they include the Jacobian of the map from w to z, except for a constant
    that they share. The map is built site by site while the model runs. So the support of a latent
    may depend on the latents before it.

    Arguments:
        programs: model and guide as for `importance_sample`, with continuous latents.

    Raises:
        ValueError: if a latent is discrete, or the kind of its support changes between runs. If the
            guide draws outside the support. If the density depends on the other draws. If no single
            row plate holds all latents, as for `importance_sample`.
    """

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.plate = programs.row_plate()
        self._kinds = latent_kinds(programs)
        draws = self._draws(SCALE_DRAWS)
        self.coordinates = Coordinates(self._real(draws), self.plate)
        self._shapes = {name: values.shape[1:] for name, values in draws.items()}
        two = {name: torch.cat([other, draws[name][:1]]) for name, other in self._draws(1).items()}
        check_draws_apart(programs.bound_model, two, self.plate)

    @property
    def names(self) -> list[str]:
        """The names of the latents."""
        return self.coordinates.names

    def log_joint(self, white: Tensor) -> Tensor:
        """log p(x, z) + log |dz/dw|, in nats, `(C, B)` for w of shape `(C, B, D)`."""
        return self._joint_at(white)[0]

    def log_guide(self, white: Tensor) -> Tensor:
        """log q(z | x) + log |dz/dw|, in nats, `(C, B)` for w of shape `(C, B, D)`."""
        return self.log_guide_and_joint(white)[0]

    def log_guide_and_joint(self, white: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `log_guide` and `log_joint` return, from one run of the model."""
        log_joint, at = self._joint_at(white)
        with validating(False):
            log_guide = log_density(self.programs.bound_guide, at.values, self.plate)
        return log_guide + self.coordinates.total(at.log_dets), log_joint

    def start(self, num_chains: int) -> Tensor:
        """Return w, `(C, B, D)`, of fresh draws from the guide."""
        return self._white(self._draws(num_chains))

    @torch.no_grad()
    def latents(self, white: Tensor) -> dict[str, Tensor]:
        """Return the latents by name, `(C, B, ...)`, at w of shape `(C, B, D)`."""
        at = ToSupport(self.coordinates.real(white), self._kinds)
        self._run_to_last_latent(at, len(white))
        return {name: self.plate.rows_second(at.values[name]) for name in self.names}

    def place(self, latents: dict[str, Tensor]) -> Tensor:
        """Return w, `(1, B, D)`, of latents with one value for each row, shaped as in a trace.

        Raises:
            ValueError: if a latent has another shape, or lies outside its support.
        """
        for name, shape in self._shapes.items():
            value = latents[name]
            check_tensor(value, name)
            if value.numel() != shape.numel() or value.shape != shape[-value.dim() :]:
                found = tuple(value.shape)
                raise ValueError(f"'{name}' must have the shape {tuple(shape)}, got {found}.")
        # In a trace, a latent lacks the dimensions of those plates outside the row plate that it
        # does not lie in.
        draws = {
            name: latents[name].to(self.coordinates.loc).reshape(1, *shape)
            for name, shape in self._shapes.items()
        }
        return self._white(draws, source="exact")

    def _joint_at(self, white: Tensor) -> tuple[Tensor, ToSupport]:
        at = ToSupport(self.coordinates.real(white), self._kinds)
        model = at(self.programs.bound_model)
        # A trajectory may become infinite or NaN: it is then rejected, which is no error.
        with validating(False):
            log_joint = given_density(model, len(white), self.plate)
        return log_joint + self.coordinates.total(at.log_dets), at

    def _white(self, draws: dict[str, Tensor], source: str = "guide") -> Tensor:
        return self.coordinates.white(self._real(draws, source))

    @torch.no_grad()
    def _real(self, draws: dict[str, Tensor], source: str = "guide") -> dict[str, Tensor]:
        at = ToReal(draws, self._kinds, source)
        self._run_to_last_latent(at, len(next(iter(draws.values()))))
        return {name: at.real[name] for name in draws}

    def _run_to_last_latent(self, at: ToReal | ToSupport, num_samples: int) -> None:
        with store_as_found(), validating(False), self._samples_plate(num_samples):
            run_to_last_latent(at, self.programs.bound_model)

    @torch.no_grad()
    def _draws(self, num_samples: int) -> dict[str, Tensor]:
        with self._samples_plate(num_samples):
            return self.programs.guide_latents()

    def _samples_plate(self, num_samples: int) -> pyro.plate:
        return samples_plate(num_samples, self.plate.max_plate_nesting)
