"""Bounds on log p(x) from both sides, by annealed importance sampling.

The forward chains go from the guide to the posterior, the reverse chains go back.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.engine.program import Program
from pyro_vae.inference.arguments import takes_programs
from pyro_vae.inference.determinism import check_deterministic
from pyro_vae.inference.hamiltonian import Point, hmc_transition, jitter, trajectory_length
from pyro_vae.inference.programs import Programs
from pyro_vae.inference.row_densities import RowDensities
from pyro_vae.inference.sites import Site, is_auxiliary, refuse_points
from pyro_vae.inference.weights import log_mean_exp, log_mean_exp_variance
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import described, nearest, whole
from pyro_vae.support.progress import tracked
from pyro_vae.support.tables import shown_in_short

# The pilot: its target share of accepted trajectories, the rate at which its step size adapts, and
# its first step size.
_TARGET = 0.65
_RATE = 0.2
_FIRST_STEP = 0.3
# Half the width of the sigmoid schedule: it sets how close to 0 and 1 the schedule begins and ends.
_HALF_WIDTH = 4.0


@shown_in_short
class Sandwich(NamedTuple):
    """Bounds on log p(x) of each row, in nats.

    Arguments:
        lower: by the forward chains, `(B,)`; at most log p(x) in expectation.
        upper: by the reverse chains, `(B,)`; at least log p(x) in expectation. None without exact
            posterior draws.
        lower_error: the Monte Carlo error of `lower` from the spread of the chains, `(B,)`. It is
            right in the mean square over rows with 4 chains or more, and infinite with one.
        upper_error: the Monte Carlo error of `upper`, or None. It is too small with few
            temperatures, since all chains of a row start from the same exact draw.
        acceptance: the mean probability of accepting a trajectory, `(B,)`; NaN with one
            temperature, which has no trajectories.
    """

    lower: Tensor
    upper: Tensor | None
    lower_error: Tensor
    upper_error: Tensor | None
    acceptance: Tensor

    @property
    def width(self) -> Tensor:
        """The upper bound minus the lower one, `(B,)`: the uncertainty about log p(x).

        Raises:
            ValueError: if there is no upper bound.
        """
        if self.upper is None:
            raise ValueError("'exact' must have been given for bounds to have a width, got none.")
        return self.upper - self.lower


@takes_programs
@arguments_checked
@torch.no_grad()
def sandwich(
    model: Callable,
    guide: Callable,
    *args: Any,
    exact: dict[str, Tensor] | None = None,
    num_temperatures: int = 200,
    num_chains: int = 8,
    num_steps: int = 6,
    **kwargs: Any,
) -> Sandwich:
    """Bound log p(x) of each row by annealed importance sampling.

    The path of densities is q(z | x)^(1 − β) p(x, z)^β for β from 0 to 1. Each β takes one step of
    Hamiltonian Monte Carlo.

    A forward chain starts at a draw of the guide. The mean of the weights over chains is unbiased
    for p(x), so its log is a lower bound in expectation.

    A reverse chain starts at an exact draw of the posterior. A row that was simulated from the
    model has one: the z that generated it. The log of 1 over the mean of 1 over the weights is an
    upper bound in expectation.

    A separate pilot run finds the step sizes, which are then fixed. Otherwise the weights would be
    biased.

    References:
        Annealed importance sampling, Neal, 2001. Deviation: the path starts at the guide, not at
        the prior. Sandwiching the marginal likelihood using bidirectional Monte Carlo, Grosse,
        Ghahramani and Adams, 2015. On the quantitative analysis of decoder-based generative models,
        Wu, Burda, Salakhutdinov and Grosse, 2017.

    Arguments:
        model: the Pyro model; any that `importance_sample` takes, with continuous latents. A VAE
            with dropout or batch normalisation must be in evaluation mode.
        guide: the Pyro guide.
        *args: passed to both.
        exact: one exact draw of each latent for each row, by name, shaped as in a trace of the
            model.
        num_temperatures: the number of steps from β = 0 to 1; the bounds close as it grows.
        num_chains: the number C of chains for each row.
        num_steps: the largest number of leapfrog steps in a trajectory; the smallest is half of it.
        **kwargs: passed to both. A model with a keyword whose name is taken here, such as
            `num_chains`, is called through `functools.partial`.

    Raises:
        ValueError: if a site lies outside the row plate. If a latent is discrete, or the kind of
            its support changes between runs. If the guide has no density of the latents alone, or
            draws outside a support. If densities change in the next call or in evaluation mode. If
            `exact` lacks a latent or has one of another shape. If a count is too small.

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
    """Return a function of w and β that gives the log-density of the path for each row.

    It returns (1 − β) log q + β log p, the gradient of that by w, and log p − log q.
    """

    def evaluate(white: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            white = white.detach().requires_grad_()
            log_q, log_p = densities.log_guide_and_joint(white)
            value = (1 - beta) * log_q + beta * log_p
            (gradient,) = torch.autograd.grad(value.sum(), white)
        return value.detach(), gradient, (log_p - log_q).detach()

    return evaluate


class _Path:
    """Transitions of all chains and rows along the path of densities."""

    def __init__(self, program: Program, num_steps: int) -> None:
        self.program = program
        self.num_steps = num_steps

    def pilot(self, white: Tensor, betas: Tensor) -> Tensor:
        """Return the step size of each row at each β between the ends, `(T − 1, B)`.

        It adapts to the share of accepted trajectories.
        """
        log_size = torch.full_like(white[0, :, 0], _FIRST_STEP).log()
        found = []
        for beta in tracked(betas[1:-1], "step sizes"):
            white, probability = self._move(white, beta, self.program(white, beta), log_size.exp())
            log_size = log_size + _RATE * (probability.mean(0) - _TARGET)
            found.append(log_size.exp())
        return torch.stack(found) if found else log_size.new_empty(0, len(log_size))

    def run(self, white: Tensor, betas: Tensor, step_sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-weights of a run, `(C, B)`, and the mean acceptance, `(B,)`.

        The log-weights are Σ (β_t − β_{t−1}) (log p − log q)(w_{t−1}).
        """
        log_weights = torch.zeros_like(white[..., 0], dtype=torch.float64)
        acceptance = torch.zeros_like(step_sizes)
        pairs = list(pairwise(betas))
        for number, (before, beta) in enumerate(tracked(pairs, "temperatures")):
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
        """Return w after a transition at β, and the probability of its acceptance.

        The program has already been evaluated at the given w.
        """

        def evaluate(place: Tensor) -> Point:
            return Point(place, *self.program(place, beta)[:2])

        start = Point(white, *evaluated[:2])
        # A mixture of reversible transitions is reversible, so the weights stay unbiased.
        step = (step_size * jitter(step_size)).unsqueeze(-1)
        length = trajectory_length(self.num_steps)
        point, probability = hmc_transition(evaluate, start, step, length)
        return point.white, probability


def _refuse_without_density(sites: list[Site]) -> None:
    """Refuse a guide that has no density of the model's latents alone."""
    for site in sites:
        if is_auxiliary(site):
            raise ValueError(
                "'guide' must have a density of the model's latents, without auxiliary sites, got "
                f"'{site['name']}'."
            )
    refuse_points(sites)


def _exact_start(densities: RowDensities, exact: dict[str, Tensor], num_chains: int) -> Tensor:
    if not isinstance(exact, Mapping):
        raise ValueError(
            f"'exact' must be a dict with a draw of each latent by name, got {described(exact)}."
        )
    missing = [name for name in densities.names if name not in exact]
    if missing:
        raise ValueError(
            f"'exact' must have a draw of each latent, got none of {', '.join(missing)}"
            f"{nearest(missing[0], exact)}."
        )
    # All chains of a row start from the same draw. Their weights depend on each other, but their
    # mean is still unbiased.
    return densities.place(exact).repeat(num_chains, 1, 1)


def _schedule(num_temperatures: int) -> Tensor:
    """β from 0 to 1 along a sigmoid, `(T + 1,)`, dense where the densities change fast."""
    curve = torch.sigmoid(
        torch.linspace(-_HALF_WIDTH, _HALF_WIDTH, num_temperatures + 1, dtype=torch.float64)
    )
    return (curve - curve[0]) / (curve[-1] - curve[0])


def _error(log_weights: Tensor) -> Tensor:
    """The standard error of the log of the mean weight, `(B,)`."""
    return log_mean_exp_variance(log_weights).sqrt()
