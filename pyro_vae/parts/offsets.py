"""Columns of a context y: those that networks take, followed by the offsets of a likelihood."""

import torch
from torch import Tensor

from pyro_vae.data.arrays import Array, as_tensor
from pyro_vae.parts.contracts import Likelihood


def num_columns(y: Array | int | None, context_dim: int, offset_dim: int) -> int:
    """Return the number of columns that y should have, which is greater if it has the offsets.

    Arguments:
        y: vectors or labels, if any.
        context_dim: the number of columns that networks take.
        offset_dim: the number of columns that the likelihood adds.
    """
    if y is None or not offset_dim:
        return context_dim
    tensor = as_tensor(y, "y")
    has_offsets = tensor.is_floating_point() and tensor.shape[-1:] == (context_dim + offset_dim,)
    return context_dim + offset_dim if has_offsets else context_dim


def split(y: Tensor | None, context_dim: int) -> tuple[Tensor | None, Tensor | None]:
    """Return the columns of y that networks take, and the offsets behind them; None for none."""
    if y is None or y.dim() == 0 or y.shape[-1] == context_dim:
        return y, None
    return y[..., :context_dim] if context_dim else None, y[..., context_dim:]


def joined(y: Tensor | None, offsets: Tensor | None) -> Tensor | None:
    """Return a context with offsets behind its columns; the leading dimensions broadcast.

    Raises:
        ValueError: if they do not broadcast.
    """
    if y is None or offsets is None:
        return offsets if y is None else y
    try:
        shape = torch.broadcast_shapes(y.shape[:-1], offsets.shape[:-1])
    except RuntimeError:
        raise ValueError(
            f"'y' must have the batch shape {tuple(offsets.shape[:-1])} of 'x', or one that "
            f"expands to it, got {tuple(y.shape[:-1])}."
        ) from None
    return torch.cat([y.expand(*shape, -1), offsets.expand(*shape, -1)], dim=-1)


def taken_by(likelihood: Likelihood, y: Tensor | None, context_dim: int) -> Tensor | None:
    """Return the columns of y that a likelihood takes.

    Arguments:
        likelihood: the likelihood.
        y: the context, with or without the offsets.
        context_dim: the number of columns that networks of the VAE take.
    """
    if not likelihood.offset_dim:
        return y
    seen, offsets = split(y, context_dim)
    return joined(seen if likelihood.context_dim else None, offsets)
