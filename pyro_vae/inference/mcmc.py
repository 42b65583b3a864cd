"""Markov chain Monte Carlo that starts at draws of a guide and moves in its scale.

`hmc` is for the local latents of many rows at once, `nuts` for all latents of any model.
"""

import math
from collections.abc import Callable
from math import prod
from numbers import Real
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.ops.dual_averaging import DualAveraging
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from pyro_vae.engine.program import Program
from pyro_vae.inference.arguments import takes_programs
from pyro_vae.inference.coordinates import Coordinates
from pyro_vae.inference.determinism import check_deterministic
from pyro_vae.inference.hamiltonian import (
    Point,
    hmc_transition,
    jitter,
    trajectory_length,
    with_gradient,
)
from pyro_vae.inference.programs import Programs
from pyro_vae.inference.row_densities import SCALE_DRAWS, RowDensities
from pyro_vae.inference.supports import (
    Kinds,
    ToReal,
    ToSupport,
    latent_kinds,
    run_to_last_latent,
)
from pyro_vae.support.checks import whole
from pyro_vae.support.progress import tracked
from pyro_vae.support.store import store_as_found
from pyro_vae.support.tables import shown_in_short
from pyro_vae.support.validation import validating

# γ of dual averaging: the larger, the slower the step size adapts. The 0.05 of Hoffman and Gelman
# (2014, section 3.2) makes it swing. The mean step of a short window is then accepted too often.
_GAMMA = 0.3
# The step size that dual averaging shrinks towards, in units of the window's first step size.
_BOLD = 2.0
# The first step size, in units of the guide's scale.
_FIRST_STEP = 0.3
# The number of windows in the warm-up.
_WINDOWS = 4
# The fewest transitions that dual averaging needs in a window.
_LEAST_WINDOW = 20
# The number of draws that the scale before a window counts for.
_PRIOR_PLACES = 10
# The fewest draws of a chain for a variance in each half.
_LEAST_FOR_R_HAT = 4


@shown_in_short
class Chains(NamedTuple):
    """Draws of Markov chains from p(z | x).

    Arguments:
        latents: the values of each latent site by name, `(S, C, ...)` for S draws of C chains; with
            rows `(S, C, B, ...)`.
        acceptance: the mean probability of acceptance, of each row `(B,)` or of all.
        step_size: the leapfrog step, in units of the chains' scale, of each row `(B,)` or of all.
        num_divergent: the number of divergent trajectories among those of the kept draws.
    """

    latents: dict[str, Tensor]
    acceptance: Tensor
    step_size: Tensor
    num_divergent: Tensor

    def merged(self) -> dict[str, Tensor]:
        """The draws of all chains together, `(S C, ...)`."""
        return {name: values.flatten(0, 1) for name, values in self.latents.items()}

    def r_hat(self) -> dict[str, Tensor]:
        """Split R̂ of each number: close to 1 where the chains agree.

        Raises:
            ValueError: if a chain has fewer than 4 draws: each half needs two.
        """
        num_samples = len(next(iter(self.latents.values())))
        if num_samples < _LEAST_FOR_R_HAT:
            raise ValueError(
                f"'num_samples' must be {_LEAST_FOR_R_HAT} or more for split R-hat, "
                f"got {num_samples}."
            )
        return {name: split_gelman_rubin(values, 1, 0) for name, values in self.latents.items()}

    def ess(self) -> dict[str, Tensor]:
        """Effective sample size of each number: the independent draws that its mean is worth.

        For S C draws it is at most S C log10(S C). Draws that alternate around their mean are worth
        more than as many independent ones; then the estimate becomes unreliable.

        References:
            Rank-normalization, folding, and localization: an improved R̂, Vehtari et al., 2021,
            section 3.2.
        """
        sizes = {name: effective_sample_size(values, 1, 0) for name, values in self.latents.items()}
        num_samples = prod(next(iter(self.latents.values())).shape[:2])
        most = num_samples * max(1.0, math.log10(num_samples))
        return {
            name: size.masked_fill((size < 0) | (size > most), most) for name, size in sizes.items()
        }


class _Steps:
    """The leapfrog step in each dimension of each row, ε_b s_bd, found in a warm-up.

    Dual averaging adapts ε until the mean acceptance meets the target. s is the spread of the
    chains in the window before, so a guide with the wrong scale only costs a few windows.

    References:
        The No-U-Turn sampler, Hoffman and Gelman, 2014 (dual averaging).
    """

    def __init__(self, like: Tensor, num_warmup: int, target: float) -> None:
        self.window = max(_LEAST_WINDOW, num_warmup // _WINDOWS)
        self.target = target
        self.spread = torch.ones_like(like[0])
        self.places: list[Tensor] = []
        self._begin(torch.full_like(like[0, :, 0], math.log(_FIRST_STEP)))

    def __call__(self, log_size: Tensor) -> Tensor:
        """Return the step, `(B, D)`, with the jitter of one trajectory."""
        return (log_size.exp() * jitter(log_size)).unsqueeze(-1) * self.spread

    def update(self, acceptance: Tensor, white: Tensor) -> None:
        """Adapt to the acceptance of a transition, `(B,)`, and its new position, `(C, B, D)`."""
        self.places.append(white)
        self.averaging.step(self.target - acceptance)
        self.log_size, self.log_mean = self.averaging.get_state()

    def end_window(self) -> None:
        """Set the scale of the next window to the spread of the chains in this one."""
        places = torch.cat(self.places)
        trust = len(places) / (len(places) + _PRIOR_PLACES)
        spread = places.std(0, correction=0)
        # Chains that did not move have no spread.
        spread = torch.where(spread > 0, spread**trust, self.spread)
        change = (spread / self.spread).log().mean(-1)
        self.spread = spread
        self._begin(self.log_mean - change)

    def _begin(self, log_size: Tensor) -> None:
        """Begin a window at a step size, and discard all earlier averages."""
        self.places.clear()
        self.log_size = self.log_mean = log_size
        self.averaging: DualAveraging = DualAveraging(log_size + math.log(_BOLD), gamma=_GAMMA)


@takes_programs
@torch.no_grad()
def hmc(
    model: Callable,
    guide: Callable,
    *args: Any,
    num_samples: int = 200,
    num_warmup: int = 200,
    num_chains: int = 4,
    num_steps: int = 10,
    target_accept: float = 0.8,
    **kwargs: Any,
) -> Chains:
    """Run Hamiltonian Monte Carlo for the local latents of many rows at once.

    Chains start at draws of the guide q(z | x) and converge to p(z | x). They move in the guide's
    coordinates, in which it has mean 0 and variance 1.

    Each row accepts or rejects on its own, and has its own step size, which the warm-up finds and
    then fixes. Other rows change a row's draws only through the random stream, which is that of
    torch's default generator.

    The support of a latent may depend on the latents before it, as in b ~ Uniform(0, a).

    References:
        MCMC using Hamiltonian dynamics, Neal, 2011.

    Arguments:
        model: the Pyro model; any that `importance_sample` takes, with continuous latents. A VAE
            with dropout or batch normalisation must be in evaluation mode.
        guide: the Pyro guide.
        *args: passed to both.
        num_samples: the number S of kept draws of each chain.
        num_warmup: the number of transitions before them, which find the step sizes.
        num_chains: the number C of chains for each row.
        num_steps: the largest number of leapfrog steps in a trajectory; the smallest is half of it.
        target_accept: the target for the mean probability of acceptance, in (0, 1).
        **kwargs: passed to both. A model with a keyword whose name is taken here, such as
            `num_samples`, is called through `functools.partial`.

    Raises:
        ValueError: if a site lies outside the row plate. If a latent is discrete, or the kind of
            its support changes between runs. If the guide draws outside a support. If the density
            changes in the next call or in evaluation mode. If a count or probability is out of
            range.

    Example:
        >>> chains = hmc(vae.model, vae.guide, vae.sample(3), num_samples=5, num_warmup=5)
        >>> chains.latents["z"].shape, chains.acceptance.shape
        (torch.Size([5, 4, 3, 2]), torch.Size([3]))
    """
    whole(num_samples, "num_samples")
    whole(num_warmup, "num_warmup")
    whole(num_chains, "num_chains")
    whole(num_steps, "num_steps")
    if not isinstance(target_accept, Real) or not 0 < target_accept < 1:
        raise ValueError(f"'target_accept' must lie in (0, 1), got {target_accept!r}.")
    programs = Programs(model, guide, args, kwargs)
    check_deterministic(programs)
    densities = RowDensities(programs)
    calls = (num_samples + num_warmup) * num_steps
    program = Program(
        with_gradient(densities.log_joint),
        calls=[model, guide],
        name="log p(x, z)",
        num_calls=calls,
    )

    def evaluate(white: Tensor) -> Point:
        return Point(white, *program(white))

    point = evaluate(densities.start(num_chains))
    steps = _Steps(point.white, num_warmup, target_accept)
    for number in tracked(range(1, num_warmup + 1), "warm-up"):
        point, probability = hmc_transition(
            evaluate, point, steps(steps.log_size), trajectory_length(num_steps)
        )
        steps.update(probability.mean(0), point.white)
        if number % steps.window == 0 and number + steps.window <= num_warmup:
            steps.end_window()
    kept = []
    probabilities = []
    for _ in tracked(range(num_samples), "draws"):
        point, probability = hmc_transition(
            evaluate, point, steps(steps.log_mean), trajectory_length(num_steps)
        )
        kept.append(densities.latents(point.white))
        probabilities.append(probability)
    latents = {name: torch.stack([values[name] for values in kept]) for name in kept[0]}
    acceptance = torch.cat(probabilities)
    return Chains(latents, acceptance.mean(0), steps.log_mean.exp(), (acceptance == 0).sum(0))


@takes_programs
def nuts(
    model: Callable,
    guide: Callable,
    *args: Any,
    num_samples: int = 500,
    num_warmup: int = 200,
    num_chains: int = 2,
    **kwargs: Any,
) -> Chains:
    """Run Pyro's No-U-Turn sampler for all latents together, globals included.

    Chains start at draws of the guide and converge to p(latents | data). They move in coordinates
    in which the draws have mean 0 and variance 1. They run one after the other.

    One trajectory moves all latents, so rows should be few; `hmc` treats each row on its own.

    References:
        The No-U-Turn sampler, Hoffman and Gelman, 2014.

    Arguments:
        model: the Pyro model, with continuous latents.
        guide: the Pyro guide, with the same latents.
        *args: passed to both.
        num_samples: the number S of kept draws of each chain.
        num_warmup: the number of draws before them, which adapt step size and mass.
        num_chains: the number C of chains.
        **kwargs: passed to both. A model with a keyword whose name is taken here, such as
            `num_samples`, is called through `functools.partial`.

    Raises:
        ValueError: if a latent is discrete, or the kind of its support changes between runs. If the
            guide draws outside a support. If the density changes in the next call or in evaluation
            mode. If model and guide have different latents. If a count is too small.

    Example:
        >>> x = vae.sample(1)
        >>> chains = nuts(vae.model, vae.guide, x, num_samples=5, num_warmup=5, num_chains=1)
        >>> chains.latents["z"].shape
        torch.Size([5, 1, 1, 2])
    """
    whole(num_samples, "num_samples")
    whole(num_warmup, "num_warmup")
    whole(num_chains, "num_chains")
    programs = Programs(model, guide, args, kwargs)
    check_deterministic(programs)
    with torch.no_grad():
        draws = _guide_draws(programs, max(SCALE_DRAWS, num_chains))
        kinds = latent_kinds(programs)
        real = [_real(programs, latents, kinds) for latents in draws]
        stacked = {name: torch.stack([numbers[name] for numbers in real]) for name in draws[0]}
    coordinates = Coordinates(stacked)

    def potential(state: dict[str, Tensor]) -> Tensor:
        at = ToSupport(coordinates.real(state["white"]), kinds)
        trace = poutine.trace(at(programs.bound_model)).get_trace()
        return -(
            trace.log_prob_sum()
            + torch.stack([log_det.sum() for log_det in at.log_dets.values()]).sum()
        )

    def latents(white: Tensor) -> dict[str, Tensor]:
        at = ToSupport(coordinates.real(white), kinds)
        with validating(False):  # as in the chain
            run_to_last_latent(at, programs.bound_model)
        return at.values

    with store_as_found(), torch.enable_grad():
        starts = coordinates.white(stacked)[:num_chains]
        runs = [_run_nuts(potential, start, num_samples, num_warmup) for start in starts]
    white = torch.stack([run.white for run in runs], dim=1)
    with store_as_found(), torch.no_grad():
        kept = [latents(place) for place in white.flatten(0, 1)]
    by_name = {}
    for name in coordinates.names:
        values = torch.stack([draw[name] for draw in kept])
        by_name[name] = values.unflatten(0, (num_samples, num_chains))
    acceptance = torch.tensor([run.acceptance for run in runs])
    step_size = torch.tensor([run.step_size for run in runs])
    num_divergent = torch.tensor([run.num_divergent for run in runs])
    return Chains(by_name, acceptance.mean(), step_size.mean(), num_divergent.sum())


def _guide_draws(programs: Programs, num_samples: int) -> list[dict[str, Tensor]]:
    draws = [programs.guide_latents() for _ in range(num_samples)]
    if not draws[0]:
        programs.traces()  # it names a latent that only the model has
        raise ValueError("'model' and 'guide' must have latent sites, got none.")
    for latents in draws:
        if latents.keys() != draws[0].keys():
            names = ", ".join(latents) or "none"
            first = ", ".join(draws[0]) or "none"
            raise ValueError(
                f"'guide' must have the same latents in every run, got {names} after {first}."
            )
    return draws


def _real(programs: Programs, latents: dict[str, Tensor], kinds: Kinds) -> dict[str, Tensor]:
    """Return the real numbers of one draw of all latents, by name."""
    at = ToReal(latents, kinds)
    with store_as_found(), validating(False):
        run_to_last_latent(at, programs.bound_model)
    return at.real


class _NutsRun(NamedTuple):
    """One chain of NUTS: its draws, `(S, D)`, and statistics of its trajectories."""

    white: Tensor
    acceptance: float
    step_size: float
    num_divergent: int


def _run_nuts(potential: Callable, start: Tensor, num_samples: int, num_warmup: int) -> _NutsRun:
    seen: list[tuple[float, float, int]] = []

    def look(kernel: NUTS, *_: Any) -> None:
        # Read after each draw, since Pyro resets them.
        num_divergent = len(kernel._divergences)
        seen[:] = [(kernel._mean_accept_prob, float(kernel.step_size), num_divergent)]

    chain = MCMC(
        NUTS(potential_fn=potential),
        num_samples,
        num_warmup,
        initial_params={"white": start.clone()},
        hook_fn=look,
        disable_progbar=True,
    )
    with validating(False):
        chain.run()
    return _NutsRun(chain.get_samples()["white"], *seen[0])
