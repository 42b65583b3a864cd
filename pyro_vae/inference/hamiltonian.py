"""Hamiltonian Monte Carlo: one transition of many chains and rows at once."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.support.tables import shown_in_short

# The relative range in which the step size varies between trajectories. With a wider range, a step
# that is accepted often enough on average would often be too large.
_JITTER = 0.2


@shown_in_short
class Point(NamedTuple):
    """Position of the chains, with the log-density of each row there and its gradient.

    Arguments:
        white: the position w, `(C, B, D)`.
        log_density: in nats, `(C, B)`.
        gradient: of the log-density by w, `(C, B, D)`.
    """

    white: Tensor
    log_density: Tensor
    gradient: Tensor


def with_gradient(
    log_density: Callable[[Tensor], Tensor],
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return a function that gives the log-density of each row and its gradient by w, detached.

    Arguments:
        log_density: a function of w, `(C, B, D)`, whose rows do not depend on each other.
    """

    def evaluate(white: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            white = white.detach().requires_grad_()
            value = log_density(white)
            (gradient,) = torch.autograd.grad(value.sum(), white)
        return value.detach(), gradient

    return evaluate


def jitter(like: Tensor) -> Tensor:
    """Return a random factor around 1 for each step size in one trajectory."""
    return 1 + _JITTER * (2 * torch.rand_like(like) - 1)


def trajectory_length(num_steps: int) -> int:
    """Return a random number of leapfrog steps for one trajectory, between half and all of them.

    With a fixed number, many a row would return to its starting point.
    """
    return int(torch.randint((num_steps + 1) // 2, num_steps + 1, ()))


def hmc_transition(
    evaluate: Callable[[Tensor], Point], start: Point, step: Tensor, num_steps: int
) -> tuple[Point, Tensor]:
    """Take one step of Hamiltonian Monte Carlo in each row and chain.

    The step is a leapfrog trajectory, accepted or rejected row by row.

    References:
        MCMC using Hamiltonian dynamics, Neal, 2011.

    Arguments:
        evaluate: gives the log-density and its gradient at a position.
        start: the position of the chains.
        step: the leapfrog step, `(B, D)`, in the units of the coordinates.
        num_steps: the number of leapfrog steps in a trajectory.

    Returns:
        The new position, and the probability of accepting each trajectory, `(C, B)`.
    """
    momentum = torch.randn_like(start.white)
    energy = 0.5 * (momentum**2).sum(-1) - start.log_density
    point = start
    for _ in range(num_steps):
        momentum = momentum + 0.5 * step * point.gradient
        point = evaluate(point.white + step * momentum)
        momentum = momentum + 0.5 * step * point.gradient
    # A trajectory with an infinite or undefined position has the energy NaN, and is rejected. So is
    # one whose density overflows, since the chain could never leave it again.
    change = energy - (0.5 * (momentum**2).sum(-1) - point.log_density)
    probability = (
        change.clamp(max=0)
        .exp()
        .nan_to_num(nan=0.0)
        .masked_fill(point.log_density == torch.inf, 0.0)
    )
    accepted = torch.rand_like(probability) < probability
    moved = accepted.unsqueeze(-1)
    return Point(
        torch.where(moved, point.white, start.white),
        torch.where(accepted, point.log_density, start.log_density),
        torch.where(moved, point.gradient, start.gradient),
    ), probability
