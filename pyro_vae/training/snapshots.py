"""Snapshots of a VAE during training, for animations."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import described
from pyro_vae.support.modules import evaluating
from pyro_vae.vae import VAE


@arguments_checked
class Snapshots:
    """Snapshots of a VAE at chosen steps of its training, for `on_step` of `fit`.

    Arguments:
        vae: the VAE.
        steps: the steps to take, counted from the beginning of training; 0 is before the first.
        look: makes the tensor to keep from the VAE; it may not draw random numbers.

    Example:
        >>> look = lambda vae: vae.decode(torch.zeros(1, 2)).mean
        >>> snapshots = Snapshots(vae, range(0, 100, 10), look)
        >>> snapshots.taken
        [0]
    """

    def __init__(self, vae: VAE, steps: Collection[int], look: Callable[[VAE], Tensor]) -> None:
        self.vae = vae
        self.steps = frozenset(steps)
        self.look = look
        self.taken: list[int] = []
        self.frames: list[Tensor] = []
        self(0)

    @torch.no_grad()
    def __call__(self, step: int) -> None:
        """Take a snapshot if this is one of the steps."""
        if step in self.steps:
            with evaluating(self.vae):
                seen = self.look(self.vae)
                if not isinstance(seen, Tensor):
                    raise ValueError(f"'look' must return a tensor, got {described(seen)}.")
                self.frames.append(seen.cpu().clone())
            self.taken.append(step)
