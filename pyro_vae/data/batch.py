"""A batch of rows x, with their context y if a VAE takes one."""

from typing import NamedTuple

from torch import Tensor

from pyro_vae.support.tables import shown_in_short


@shown_in_short
class Batch(NamedTuple):
    """Rows x with their context y; `vae.encode(*batch)` and `vae.model(*batch)` take both.

    Arguments:
        x: the rows, `(B, *x_shape)`.
        y: their context, `(B, Y)`; None for a VAE without a context.

    Example:
        >>> from pyro_vae.data import Batch
        >>> batch = Batch(torch.zeros(5, 64), torch.ones(5, 3))
        >>> batch.take(slice(2)).y.shape
        torch.Size([2, 3])
    """

    x: Tensor
    y: Tensor | None = None

    @property
    def num_rows(self) -> int:
        """Number B of rows."""
        return len(self.x)

    def take(self, index: Tensor | slice) -> "Batch":
        """Return the rows at `index`."""
        return Batch(self.x[index], rows_of(self.y, index))


def rows_of(y: Tensor | None, index: Tensor | slice) -> Tensor | None:
    """Return the rows of a context at `index`, if there is one."""
    return None if y is None else y[index]
