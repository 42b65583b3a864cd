"""Initialisation of a VAE from its training rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.data.rows import Data, Rows
from pyro_vae.evaluation.vae_rows import VAERows, rows_for, rows_of_vae
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.modules import tensor_like
from pyro_vae.support.streams import stream
from pyro_vae.vae import VAE


@arguments_checked
@torch.no_grad()
def initialize(vae: VAE, data: Data) -> None:
    """Initialise the numbers that depend on the units of x, before a VAE is trained.

    For the likelihood these are its scale or dispersion, if learned, and the location and unit of
    its network's outputs. For the posterior they are the constants of the encoder's input, such as
    those of `Standardized`. The caller's random state stays as it is.

    Arguments:
        vae: the VAE.
        data: the rows to train on, `(N, *x_shape)`, as for `fit`.

    Raises:
        ValueError: if the rows do not have the shape of the VAE's x, or it cannot score them.

    Example:
        >>> x = 1e5 * torch.rand(100, 64)
        >>> encoder = Standardized(MLP(64, [32], 4), x_shape=64)
        >>> likelihood = NormalLikelihood(MLP(2, [32], 64), 64)
        >>> vae = VAE(StandardNormalPrior(2), likelihood, DiagNormalPosterior(encoder, 64, 2))
        >>> initialize(vae, x)
    """
    rows = rows_of_vae(vae, data)
    if rows.x_shape != vae.x_shape:
        raise ValueError(
            f"'data' must have rows of the shape {tuple(vae.x_shape)}, got {tuple(rows.x_shape)}."
        )
    VAERows(vae, rows, None).checked()  # before a start from data that it cannot score
    like = tensor_like(vae)
    vae.likelihood.initialize(rows.mean().to(like), rows.std().to(like))
    if vae.likelihood.offset_dim:
        vae.likelihood.initialize_offsets(_BlocksWithOffsets(rows_for(vae, rows)))
    vae.posterior.initialize(_Blocks(rows, like.dtype, like.device))


@dataclass(frozen=True)
class _BlocksWithOffsets:
    """x of all rows with the offsets of the likelihood, block by block."""

    rows: VAERows

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        vae = self.rows.vae
        for number, block in enumerate(self.rows.rows.blocks()):
            with stream(0, number, device=tensor_like(vae).device):
                x, y = self.rows.batch(block)
            if y is not None:
                yield x, y[..., vae.context_dim :]


@dataclass(frozen=True)
class _Blocks:
    """x of all rows, block by block; if x is random, each pass has the same draws."""

    rows: Rows
    dtype: torch.dtype
    device: torch.device

    def __iter__(self) -> Iterator[Tensor]:
        for number, block in enumerate(self.rows.blocks()):
            with stream(0, number, device=self.device):
                x = self.rows.batch(block, self.dtype)
            yield x.to(self.device)
