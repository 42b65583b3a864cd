"""Rows for a VAE: checked once, with their context, in its dtype and on its device."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from pyro_vae.data.batch import Batch, rows_of
from pyro_vae.data.rows import Data, Rows, as_rows
from pyro_vae.support.checks import instance
from pyro_vae.support.modules import evaluating, tensor_like
from pyro_vae.support.progress import tracked
from pyro_vae.support.streams import stream
from pyro_vae.support.tables import shown_in_short
from pyro_vae.vae import VAE

# Each block of this many rows has its own random stream, so that no batch size changes the draws.
BLOCK_ROWS = 200

T = TypeVar("T")


@shown_in_short
@dataclass(frozen=True)
class VAERows:
    """Rows for a VAE, with their context if it takes one.

    Arguments:
        vae: the VAE.
        rows: the rows.
        y: their context, `(N, Y)`, on the device of the rows; None for a VAE without a context.
        name: the argument that gave the rows, which an error names.
    """

    vae: VAE
    rows: Rows
    y: Tensor | None
    name: str = "data"

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index: Tensor | slice) -> Batch:
        """Return the rows at `index`, in the dtype of the VAE and on its device."""
        reference = tensor_like(self.vae)
        y = rows_of(self.y, index)
        x = self.rows.batch(index, reference.dtype).to(reference.device)
        return Batch(x, self.vae.with_offsets(x, None if y is None else y.to(reference)))

    def take(self, index: Tensor | slice) -> "VAERows":
        """Return the rows at `index`."""
        return replace(self, rows=self.rows.take(index), y=rows_of(self.y, index))

    def placed(self, rows: Rows) -> "VAERows":
        """Return these rows with the given copy of them, which may lie on another device."""
        y = None if self.y is None else self.y.to(rows.levels.device)
        return replace(self, rows=rows, y=y)

    @torch.no_grad()
    def checked(self) -> "VAERows":
        """Return these rows if the VAE can score them.

        Raises:
            ValueError: if values lie outside the likelihood's support, or are NaN and the VAE takes
                no NaN.
        """
        dtype = tensor_like(self.vae).dtype
        with stream(0, device=self.rows.levels.device):
            for block in self.rows.blocks():
                x = self.rows.checked_batch(block, dtype)
                try:
                    self.vae.check(x)
                except ValueError as error:
                    raise self._refused(error) from error
        return self

    def check_one_row(self) -> None:
        """Refuse a network that cannot be trained on a batch of one row.

        The networks run on one row in training mode, on a copy.

        Raises:
            ValueError: if one fails, such as one with a BatchNorm.
        """
        vae = copy.deepcopy(self.vae)
        if not vae.training:
            vae.train()
        with stream(0, device=tensor_like(vae).device):
            vae.elbo(*self.batch(slice(1)))

    def _refused(self, error: ValueError) -> ValueError:
        """Return an error about x that also names other rows than those to train on."""
        return error if self.name == "data" else ValueError(f"In '{self.name}', {error}")

    def by_block(self, seed: int, function: Callable[[Batch], T]) -> list[T]:
        """Return the results of a function for each block of rows, in evaluation mode.

        The contents of the rows decide the order of the blocks. Each block has a random stream of
        its own.
        """
        device = tensor_like(self.vae).device
        results = []
        with evaluating(self.vae):
            blocks = self.rows.content_order().split(BLOCK_ROWS)
            for number, index in enumerate(tracked(blocks, "blocks of rows")):
                with stream(seed, number, device=device):
                    results.append(function(self.batch(index)))
        return results

    def in_order(self, blocks: list[Tensor], dim: int = 0) -> Tensor:
        """Return results of `by_block` in the order of the rows, on the CPU."""
        places = self.rows.content_order().argsort()
        return torch.cat(blocks, dim).cpu().index_select(dim, places)


def rows_of_vae(vae: VAE, data: Data, name: str = "data") -> Rows:
    """Return data as rows, without a check of their shape.

    Arguments and errors are those of `rows_for`.
    """
    given = data[1] if isinstance(data, tuple) and len(data) == 2 else None
    return as_rows(data, vae.num_columns(given), vae.missing, name)


def rows_for(vae: VAE, data: Data | VAERows, name: str = "data") -> VAERows:
    """Return data as rows for a VAE, with the context that it takes.

    Arguments:
        vae: the VAE.
        data: the data.
        name: the argument that an error names.

    Raises:
        ValueError: if rows have another shape, have NaN and the VAE takes none, or lack the context
            that it takes.
    """
    if isinstance(data, VAERows):
        return data
    instance(vae, VAE, "vae")
    rows = rows_of_vae(vae, data, name)
    y = vae.context_of(rows, name)
    if rows.x_shape != vae.x_shape:
        raise ValueError(
            f"'{name}' must have rows of the shape {tuple(vae.x_shape)}, got {tuple(rows.x_shape)}."
        )
    return VAERows(vae, rows, y, name)
