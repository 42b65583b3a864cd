"""Importance sampling by row: draws from a guide, weighted towards the posterior."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.inference.arguments import check_tensor, takes_programs
from pyro_vae.inference.determinism import check_deterministic, random_state_kept
from pyro_vae.inference.given_latents import check_draws_apart
from pyro_vae.inference.programs import Programs
from pyro_vae.inference.psis import pareto_smooth
from pyro_vae.inference.row_plate import RowPlate
from pyro_vae.inference.sites import is_auxiliary, refuse_points
from pyro_vae.inference.weights import log_mean_exp
from pyro_vae.support.checks import whole
from pyro_vae.support.chunks import chunk_size
from pyro_vae.support.tables import shown_in_short

# Rows times draws in one pass of model and guide; it bounds the memory.
_CHUNK = 20_000


@shown_in_short
class WeightedDraws(NamedTuple):
    """Draws of all latents from q(z | x), weighted towards p(z | x) for each row on its own.

    Arguments:
        latents: the values of each latent site by name, `(S, B, ...)`. The plates inside the rows
            come next, with size 1 if the site is not in them.
        log_weights: log p(x, z) − log q(z | x) of each draw, in nats, `(S, B)`.
        weights: the weights v_s, `(S, B)`: the largest are smoothed, and all are normalised over
            the draws of a row.
        khat: Pareto k̂, `(B,)`; above 0.7 the weights of the row are unreliable.
    """

    latents: dict[str, Tensor]
    log_weights: Tensor
    weights: Tensor
    khat: Tensor

    @property
    def ess(self) -> Tensor:
        """The effective sample size 1 / Σ_s v_s² of each row, `(B,)`.

        If k̂ is low, the draws are worth this many exact draws.
        """
        return 1 / (self.weights**2).sum(0)

    @property
    def log_marginal(self) -> Tensor:
        """The log of the mean raw weight, `(B,)`, in nats; in expectation at most log p(x)."""
        return log_mean_exp(self.log_weights)

    def expectation(self, values: Tensor) -> Tensor:
        """Return Σ_s v_s f(z_s), `(B, ...)`, which approximates E[f(z) | x].

        The values of f are `(S, B, ...)`. If they are Booleans, the result is a probability.
        """
        weights, values = self._aligned(values)
        return (weights * values).sum(0)

    def standard_error(self, values: Tensor) -> Tensor:
        """Return the Monte Carlo error of `expectation` by the delta method, `(B, ...)`.

        It is √(Σ_s v_s² (f(z_s) − mean)²).
        """
        weights, values = self._aligned(values)
        return ((weights * (values - (weights * values).sum(0))) ** 2).sum(0).sqrt()

    def resample(self, num_draws: int) -> dict[str, Tensor]:
        """Return draws by weight, with replacement, each `(num_draws, B, ...)`.

        They use torch's default generator.
        """
        whole(num_draws, "num_draws")
        index = torch.multinomial(self.weights.T, num_draws, replacement=True).T
        rows = torch.arange(index.shape[1], device=index.device)
        return {name: values[index, rows] for name, values in self.latents.items()}

    def _aligned(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights with as many dimensions as the values, and the values as floats."""
        check_tensor(values, "values")
        if values.shape[:2] != self.weights.shape:
            raise ValueError(
                "'values' must have the shape (draws, rows, ...) = "
                f"{(*self.weights.shape, '...')}, got {tuple(values.shape)}."
            )
        values = values if values.is_floating_point() else values.to(self.log_weights.dtype)
        shape = self.weights.shape + (1,) * (values.dim() - 2)
        return self.weights.to(values).reshape(shape), values


@takes_programs
@torch.no_grad()
def importance_sample(
    model: Callable, guide: Callable, *args: Any, num_samples: int, **kwargs: Any
) -> WeightedDraws:
    """Draw all latents from the guide, and weight the draws of each row by p(x, z) / q(z | x).

    Any Pyro model and guide will do if all their latents lie in one row plate, of any name and
    dimension. Other plates may lie inside it. Model and guide must broadcast over a further
    dimension of draws on the left.

    Globals must have given values, as by `poutine.condition`; they are then left out of the
    weights. Scales (of a subsampled plate, a KL weight) are ignored; masks count.

    Model and guide run a few times for checks, and then on chunks of draws that bound the memory:
    at least one draw of all rows at a time. Draws use torch's default generator.

    References:
        Yes, but did it work?: evaluating variational inference, Yao, Vehtari, Simpson and Gelman,
        2018. Deviation: each row is judged on its own.

    Arguments:
        model: the Pyro model. A VAE with dropout or batch normalisation must be in evaluation mode.
        guide: the Pyro guide.
        *args: passed to both.
        **kwargs: passed to both. A model with a keyword whose name is taken here, such as
            `num_samples`, is called through `functools.partial`.
        num_samples: the number S of draws for each row; k̂ needs 25 or more, and is useful from some
            hundreds on.

    Raises:
        ValueError: if a site lies outside the row plate. If a plate takes different rows in each
            run. If model and guide have different latents. If a latent is a point. If weights are
            NaN, or 0 for all draws of a row. If the densities change in the next call, in
            evaluation mode (dropout, batch normalisation), or with the other draws.

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
    """Return log-weights, `(S, B)`, and latents, each `(S, B, ...)`, from one pass."""
    draws = programs.draw(num_samples, plate.max_plate_nesting)
    log_weights = draws.log_weights().reshape(num_samples, plate.size)
    latents = [site for site in draws.latents if not is_auxiliary(site)]
    if len(latents) == len(draws.latents):
        refuse_points(latents)
    return log_weights, {site["name"]: plate.rows_second(site["value"]) for site in latents}
