"""Hamiltonian Monte Carlo: one transition of many chains and rows at once, from a log-density with
its gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Point(NamedTuple):
    """Where chains are, `(C, B, D)`, with the log-density of each row there, `(C, B)`, and its
    gradient, `(C, B, D)`.
    """

    white: Tensor
    log_density: Tensor
    gradient: Tensor


def with_gradient(
    log_density: Callable[[Tensor], Tensor],
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The log-density of each row and its gradient by w, both detached, for a function whose rows
    stand apart.
    """

    def evaluate(white: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            white = white.detach().requires_grad_()
            value = log_density(white)
            (gradient,) = torch.autograd.grad(value.sum(), white)
        return value.detach(), gradient

    return evaluate


def hmc_transition(
    evaluate: Callable[[Tensor], Point], start: Point, step: Tensor, num_steps: int
) -> tuple[Point, Tensor]:
    """One step of Hamiltonian Monte Carlo for each row and chain: a leapfrog trajectory, accepted
    or rejected row by row.

    References:
        MCMC using Hamiltonian dynamics, Neal, 2011.

    Arguments:
        evaluate: the log-density and its gradient at a place.
        start: where the chains are.
        step: the leapfrog's, `(B, D)`, in the coordinates' units.
        num_steps: the leapfrog steps of a trajectory.

    Returns:
        Where they are then, and each trajectory's probability of being accepted, `(C, B)`.
    """
    momentum = torch.randn_like(start.white)
    energy = 0.5 * (momentum**2).sum(-1) - start.log_density
    point = start
    for _ in range(num_steps):
        momentum = momentum + 0.5 * step * point.gradient
        point = evaluate(point.white + step * momentum)
        momentum = momentum + 0.5 * step * point.gradient
    # A trajectory that has left the numbers has the energy NaN, and is not accepted; a chain would
    # never leave a density that has overflown.
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
