"""Correction by row: draws from a guide with the weights that make them draws from the posterior."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.inference.determinism import check_deterministic, random_state_kept
from pyro_vae.inference.given_latents import check_draws_apart
from pyro_vae.inference.programs import Programs
from pyro_vae.inference.psis import pareto_smooth
from pyro_vae.inference.row_plate import RowPlate
from pyro_vae.inference.sites import is_auxiliary, refuse_points
from pyro_vae.inference.weights import log_mean_exp
from pyro_vae.support.checks import whole
from pyro_vae.support.chunks import chunk_size

# Rows times draws that pass through model and guide at once: bounds the memory.
_CHUNK = 20_000


class WeightedDraws(NamedTuple):
    """Draws of all latents from q(z | x), weighted towards p(z | x); each row on its own.

    Arguments:
        latents: the values of each latent site by name, `(S, B, ...)`; plates inside the rows come
            next, of size 1 where the site lies in none.
        log_weights: log p(x, z) − log q(z | x) of each draw, in nats, `(S, B)`.
        weights: the same normalised over the draws of a row, their largest ones smoothed, `(S, B)`.
        khat: Pareto k̂, `(B,)`: above 0.7 this row's weights are not to be trusted.
    """

    latents: dict[str, Tensor]
    log_weights: Tensor
    weights: Tensor
    khat: Tensor

    @property
    def ess(self) -> Tensor:
        """The effective sample size 1 / Σ_s v_s² of each row, `(B,)`: how many exact draws these
        are worth, if k̂ is low.
        """
        return 1 / (self.weights**2).sum(0)

    @property
    def log_marginal(self) -> Tensor:
        """log p(x) by the mean of the raw weights, in nats, `(B,)`; a lower bound in expectation."""
        return log_mean_exp(self.log_weights)

    def expectation(self, values: Tensor) -> Tensor:
        """Σ_s v_s f(z_s) for values of f, `(S, B, ...)`; approximates E[f(z) | x], `(B, ...)`, a
        probability for truths.
        """
        weights, values = self._aligned(values)
        return (weights * values).sum(0)

    def standard_error(self, values: Tensor) -> Tensor:
        """The Monte Carlo error of `expectation` by the delta method, √(Σ_s v_s² (f(z_s) − mean)²),
        `(B, ...)`.
        """
        weights, values = self._aligned(values)
        return ((weights * (values - (weights * values).sum(0))) ** 2).sum(0).sqrt()

    def resample(self, num_draws: int) -> dict[str, Tensor]:
        """Draws by weight, with replacement, each `(num_draws, B, ...)`; by torch's default
        generator.
        """
        whole(num_draws, "num_draws")
        index = torch.multinomial(self.weights.T, num_draws, replacement=True).T
        rows = torch.arange(index.shape[1], device=index.device)
        return {name: values[index, rows] for name, values in self.latents.items()}

    def _aligned(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The weights with as many dimensions as values, and these as real numbers."""
        if values.shape[:2] != self.weights.shape:
            raise ValueError(
                f"'values' must have the shape (draws, rows, ...) = {(*self.weights.shape, '...')}, got "
                f"{tuple(values.shape)}."
            )
        values = values if values.is_floating_point() else values.to(self.log_weights.dtype)
        return self.weights.to(values).reshape(
            self.weights.shape + (1,) * (values.dim() - 2)
        ), values


@torch.no_grad()
def importance_sample(
    model: Callable, guide: Callable, *args: Any, num_samples: int, **kwargs: Any
) -> WeightedDraws:
    """Draw all latents from the guide, and weigh the draws of each row by p(x, z) / q(z | x).

    It takes any Pyro model and guide whose latents all lie in one row plate, whatever its name and
    dimension, with further plates inside it or without, if they broadcast over a further dimension
    of draws on the left. Globals must be given, as by `poutine.condition`; they are then no part of
    the weights. Scales (of a subsampled plate, a KL weight) do not enter; masks do. Model and guide
    run a few times to be looked at, and then on as many draws of all rows at a time as bounded
    memory holds, at least one. Draws are of torch's default generator.

    References:
        Yes, but did it work?: evaluating variational inference, Yao, Vehtari, Simpson and Gelman,
        2018; here for each row.

    Arguments:
        model: the Pyro model; a VAE with dropout or batch normalisation must be in evaluation mode.
        guide: the Pyro guide.
        *args: passed to both.
        **kwargs: passed to both. A model with a keyword whose name is taken here, such as
            `num_samples`, is called through `functools.partial`.
        num_samples: the number S of draws for each row; k̂ needs 25 or more, and is of use from
            some hundreds on.

    Raises:
        ValueError: a site lies outside the row plate; a plate takes other rows in each run; model
            and guide have other latents; a latent is a point; weights are NaN, or 0 for all draws
            of a row; the densities are others in the next call, in evaluation mode (dropout, batch
            normalisation), or beside other draws.

    Example:
        >>> draws = importance_sample(vae.model, vae.guide, vae.sample(3), num_samples=100)
        >>> draws.expectation(draws.latents["z"]).shape, draws.khat.shape
        (torch.Size([3, 2]), torch.Size([3]))
    """
    whole(num_samples, "num_samples")
    programs = Programs(model, guide, args, kwargs)
    check_deterministic(programs)
    plate = programs.row_plate()
    programs = programs.of_rows(plate)
    _check_draws_apart(programs, plate)
    size = chunk_size(_CHUNK, plate.size)
    starts = range(0, num_samples, size)
    parts = [_weighted(programs, plate, min(size, num_samples - start)) for start in starts]
    log_weights = torch.cat([weights for weights, _ in parts])
    latents = {name: torch.cat([values[name] for _, values in parts]) for name in parts[0][1]}
    smoothed = pareto_smooth(log_weights)
    return WeightedDraws(latents, log_weights, smoothed.log_weights.exp(), smoothed.khat)


def _check_draws_apart(programs: Programs, plate: RowPlate) -> None:
    with random_state_kept():
        two = programs.draw(2, plate.max_plate_nesting)
    latents = {site["name"]: site["value"] for site in two.latents if not is_auxiliary(site)}
    check_draws_apart(programs.bound_model, latents, plate)


def _weighted(
    programs: Programs,
    plate: RowPlate,
    num_samples: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-weights `(S, B)` and latents `(S, B, ...)` of one pass."""
    draws = programs.draw(num_samples, plate.max_plate_nesting)
    log_weights = draws.log_weights().reshape(num_samples, plate.size)
    latents = [site for site in draws.latents if not is_auxiliary(site)]
    if len(latents) == len(draws.latents):
        refuse_points(latents)
    return log_weights, {site["name"]: plate.rows_second(site["value"]) for site in latents}
