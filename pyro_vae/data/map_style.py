"""Map-style data sets of torch as rows: in memory if they fit, and read row by row if not."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_vae.data.arrays import as_tensor
from pyro_vae.data.storage import Levels, ReadOneByOne, fits_in_memory
from pyro_vae.support.checks import described


class DatasetRows:
    """Rows x and labels y of a map-style data set, whose items are x or a pair (x, y).

    Arguments:
        dataset: the data set.
        name: the argument that an error names.

    Raises:
        ValueError: if it is empty or has no length, or an item is neither, or has another shape
            than the first.
    """

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.dataset: Any = dataset
        self.name = name
        self.num_rows = self._length()
        self.like, self.has_labels = self._item(0)[0], self._item(0)[1] is not None

    def read(self) -> tuple[Levels, Tensor | None]:
        """Return the levels, `(N, *x_shape)`, and the labels, if there are any."""
        is_small = fits_in_memory(self.num_rows * self.like.nbytes)
        levels = self.like.new_empty(self.num_rows if is_small else 0, *self.like.shape)
        labels = []
        for number in range(self.num_rows if is_small or self.has_labels else 0):
            x, y = self._item(number)
            if is_small:
                levels[number] = x
            labels.append(y)
        found = None
        if self.has_labels:
            found = as_tensor([np.asarray(label) for label in labels], f"y of {self.name}")
        if is_small:
            return levels, found
        numbers = torch.arange(self.num_rows)
        return ReadOneByOne(lambda number: self._item(number)[0], numbers, self.like), found

    def _length(self) -> int:
        try:
            length = len(self.dataset)
        except TypeError:
            length = 0
        if length < 1:
            received = f"{described(self.dataset)} without a length, or with no items"
            raise ValueError(
                f"'{self.name}' must be a data set of torch with rows that have numbers, got "
                f"{received}: collect its rows in one tensor."
            )
        return length

    def _item(self, number: int) -> tuple[Tensor, Any]:
        """Return x and y of an item; y is None if the data set has none."""
        item = self.dataset[number]
        is_pair = isinstance(item, tuple | list)
        if is_pair and len(item) not in (1, 2):
            raise ValueError(
                f"'{self.name}' must be a data set whose items are x or a pair (x, y), got "
                f"{len(item)} parts in item {number}."
            )
        x = _row(item[0] if is_pair else item, self.name)
        if number and (x.shape != self.like.shape or x.dtype != self.like.dtype):
            raise ValueError(
                f"'{self.name}' must be a data set whose rows are alike, got {tuple(x.shape)} of "
                f"{x.dtype} in item {number} after {tuple(self.like.shape)} of {self.like.dtype}."
            )
        return x, item[1] if is_pair and len(item) == 2 else None


def _row(x: Any, name: str) -> Tensor:
    """Return a row as a tensor; a picture of Pillow has its channels first."""
    if hasattr(x, "getbands"):
        x = np.atleast_3d(np.asarray(x)).transpose(2, 0, 1)
    row = as_tensor(x, name)
    return row if row.dim() else row.reshape(1)
