"""log p(x) from below and from above: annealed importance sampling from the guide to the posterior,
and back.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.engine.program import Program
from pyro_vae.inference.determinism import check_deterministic
from pyro_vae.inference.hamiltonian import Point, hmc_transition
from pyro_vae.inference.programs import Programs
from pyro_vae.inference.row_densities import RowDensities
from pyro_vae.inference.sites import Site, is_auxiliary, refuse_points
from pyro_vae.inference.weights import log_mean_exp, log_mean_exp_variance
from pyro_vae.support.checks import whole

# The share of trajectories that are to be accepted, and how fast the pilot's step size follows.
_TARGET = 0.65
_RATE = 0.2
_FIRST_STEP = 0.3
# How close to 0 and 1 the sigmoid schedule begins and ends: half its width.
_HALF_WIDTH = 4.0


class Sandwich(NamedTuple):
    """Bounds on log p(x) of each row, in nats.

    Arguments:
        lower: by the forward chains, `(B,)`; at most log p(x) in expectation.
        upper: by the reverse chains, `(B,)`; at least log p(x) in expectation. None without exact
            posterior draws.
        lower_error: the Monte Carlo error of `lower` from the spread of the chains, `(B,)`; right
            in the mean square over rows with 4 chains or more, and infinite with one.
        upper_error: the same of `upper`, or None; too small with few temperatures, since all chains
            of a row start from the same exact draw.
        acceptance: the mean probability with which trajectories were accepted, `(B,)`; NaN where
            there are none, with one temperature.
    """

    lower: Tensor
    upper: Tensor | None
    lower_error: Tensor
    upper_error: Tensor | None
    acceptance: Tensor

    @property
    def width(self) -> Tensor:
        """The upper bound less the lower one, `(B,)`: by how much log p(x) is not known.

        Raises:
            ValueError: there is no upper bound.
        """
        if self.upper is None:
            raise ValueError("'exact' must have been given for bounds to have a width, got none.")
        return self.upper - self.lower


@torch.no_grad()
def sandwich(
    model: Callable,
    guide: Callable,
    *args: Any,
    exact: dict[str, Tensor] | None = None,
    num_temperatures: int = 200,
    num_chains: int = 8,
    num_steps: int = 5,
    **kwargs: Any,
) -> Sandwich:
    """Annealed importance sampling of log p(x) for each row, and its reverse where an exact
    posterior draw is known.

    The path of densities is q(z | x)^(1 − β) p(x, z)^β for β from 0 to 1, with a step of
    Hamiltonian Monte Carlo at each β. A forward chain starts at a draw of the guide; the mean of
    its weights over chains is unbiased for p(x), so its log is a lower bound in expectation. A
    reverse chain starts at a draw of the posterior: rows that were simulated from the model have
    one, the z that made them, and 1 over the mean of 1 over the weights is an upper bound in the
    same sense. Step sizes are found in a pilot run of their own and then fixed, without which the
    weights would not be unbiased.

    References:
        Annealed importance sampling, Neal, 2001. Deviation: the path starts at the guide, not at
        the prior. Sandwiching the marginal likelihood using bidirectional Monte Carlo, Grosse,
        Ghahramani and Adams, 2015. On the quantitative analysis of decoder-based generative models,
        Wu, Burda, Salakhutdinov and Grosse, 2017.

    Arguments:
        model: the Pyro model; any that `importance_sample` takes, with continuous latents; a VAE
            with dropout or batch normalisation must be in evaluation mode.
        guide: the Pyro guide.
        *args: passed to both.
        exact: one exact draw of each latent for each row, by name, in the shape that a trace of the
            model has it.
        num_temperatures: the number of steps from β = 0 to 1; the bounds close as it grows.
        num_chains: the number C of chains for each row.
        num_steps: leapfrog steps in a trajectory.
        **kwargs: passed to both. A model with a keyword whose name is taken here, such as
            `num_chains`, is called through `functools.partial`.

    Raises:
        ValueError: a site lies outside the row plate; a latent is discrete, or its support is of
            another kind in each run; the guide has no density of the latents alone, or draws
            outside a support; densities are others in the next call or in evaluation mode; `exact`
            lacks a latent or has one of another shape; a count is too small.

    Example:
        >>> from pyro_vae.diagnostics import sandwich
        >>> sandwich(vae.model, vae.guide, vae.sample(3), num_temperatures=5).lower.shape
        torch.Size([3])
    """
    whole(num_temperatures, "num_temperatures")
    whole(num_chains, "num_chains")
    whole(num_steps, "num_steps")
    programs = Programs(model, guide, args, kwargs)
    check_deterministic(programs)
    _refuse_without_density(programs.guide_sites())
    densities = RowDensities(programs)
    exact_start = None if exact is None else _exact_start(densities, exact, num_chains)
    calls = 3 * num_temperatures * (num_steps + 1)
    path = _Path(
        Program(annealed(densities), calls=[model, guide], name="The path", num_calls=calls),
        num_steps,
    )
    betas = _schedule(num_temperatures).to(densities.coordinates.loc)
    step_sizes = path.pilot(densities.start(num_chains), betas)
    forward, acceptance = path.run(densities.start(num_chains), betas, step_sizes)
    if exact_start is None:
        return Sandwich(log_mean_exp(forward), None, _error(forward), None, acceptance)
    reverse, _ = path.run(exact_start, betas.flip(0), step_sizes.flip(0))
    return Sandwich(
        log_mean_exp(forward), -log_mean_exp(reverse), _error(forward), _error(reverse), acceptance
    )


def annealed(densities: RowDensities) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """At w and β: (1 − β) log q + β log p of each row, its gradient, and log p − log q."""

    def evaluate(white: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            white = white.detach().requires_grad_()
            log_q, log_p = densities.log_guide_and_joint(white)
            value = (1 - beta) * log_q + beta * log_p
            (gradient,) = torch.autograd.grad(value.sum(), white)
        return value.detach(), gradient, (log_p - log_q).detach()

    return evaluate


class _Path:
    """The way from one end of the path of densities to the other, for all chains and rows."""

    def __init__(self, program: Program, num_steps: int) -> None:
        self.program = program
        self.num_steps = num_steps

    def pilot(self, white: Tensor, betas: Tensor) -> Tensor:
        """The step size at each β between the ends for each row, `(T − 1, B)`: it follows what
        share is accepted.
        """
        log_size = torch.full_like(white[0, :, 0], _FIRST_STEP).log()
        found = []
        for beta in betas[1:-1]:
            white, probability = self._move(white, beta, self.program(white, beta), log_size.exp())
            log_size = log_size + _RATE * (probability.mean(0) - _TARGET)
            found.append(log_size.exp())
        return torch.stack(found) if found else log_size.new_empty(0, len(log_size))

    def run(self, white: Tensor, betas: Tensor, step_sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Log-weights Σ (β_t − β_{t−1}) (log p − log q)(w_{t−1}), `(C, B)`, and the mean
        acceptance, `(B,)`.
        """
        log_weights = torch.zeros_like(white[..., 0], dtype=torch.float64)
        acceptance = torch.zeros_like(step_sizes)
        for number, (before, beta) in enumerate(pairwise(betas)):
            evaluated = self.program(white, beta)
            log_weights += (beta - before).double() * evaluated[2].double()
            if number < len(step_sizes):
                white, probability = self._move(white, beta, evaluated, step_sizes[number])
                acceptance[number] = probability.mean(0)
        return log_weights, acceptance.mean(0)

    def _move(
        self,
        white: Tensor,
        beta: Tensor,
        evaluated: tuple[Tensor, Tensor, Tensor],
        step_size: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """A transition at β from w, where the program has been evaluated already."""

        def evaluate(place: Tensor) -> Point:
            return Point(place, *self.program(place, beta)[:2])

        start = Point(white, *evaluated[:2])
        point, probability = hmc_transition(
            evaluate, start, step_size.unsqueeze(-1), self.num_steps
        )
        return point.white, probability


def _refuse_without_density(sites: list[Site]) -> None:
    """Refuse a guide that has no density of the model's latents alone."""
    for site in sites:
        if is_auxiliary(site):
            raise ValueError(
                f"'guide' must have a density of the model's latents, without auxiliary sites, got '{site['name']}'."
            )
    refuse_points(sites)


def _exact_start(densities: RowDensities, exact: dict[str, Tensor], num_chains: int) -> Tensor:
    missing = [name for name in densities.names if name not in exact]
    if missing:
        raise ValueError(
            f"'exact' must have a draw of each latent, got none of {', '.join(missing)}."
        )
    # From one draw all chains of a row start: their weights depend on each other, and their mean is
    # still unbiased.
    return densities.place(exact).repeat(num_chains, 1, 1)


def _schedule(num_temperatures: int) -> Tensor:
    """β from 0 to 1 along a sigmoid, `(T + 1,)`: close together where the densities change fast."""
    curve = torch.sigmoid(
        torch.linspace(-_HALF_WIDTH, _HALF_WIDTH, num_temperatures + 1, dtype=torch.float64)
    )
    return (curve - curve[0]) / (curve[-1] - curve[0])


def _error(log_weights: Tensor) -> Tensor:
    """The standard error of the log of the mean weight, `(B,)`."""
    return log_mean_exp_variance(log_weights).sqrt()
