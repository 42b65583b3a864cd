"""Batches: ways to divide the rows of an epoch."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from pyro_vae.support.checks import as_int, described, flag, whole
from pyro_vae.support.methods_of_users import called, check_initialized, wrong_result

# The dtypes of row numbers; torch takes booleans and bytes for a mask.
_WHOLE = (torch.int32, torch.int64)


class Batches(ABC):
    """Rule that divides the rows of one epoch into batches.

    A subclass defines `num_batches` and `indices`.

    Arguments:
        size: the number of rows in a batch.
    """

    def __init__(self, size: int) -> None:
        self.size = whole(size, "size")

    @abstractmethod
    def num_batches(self, num_rows: int) -> int:
        """Return the number of batches in an epoch."""

    def num_dealt(self, num_rows: int) -> int:
        """Return the number of rows in an epoch, counting a repeated row each time."""
        return self.num_batches(num_rows) * self.size

    def last_size(self, num_rows: int) -> int:
        """Return the number of rows in the last batch of an epoch, the only one that may be short.

        Raises:
            ValueError: if an epoch has no batch.
        """
        num_batches = self.num_batches(num_rows)
        if num_batches == 0:
            raise ValueError(
                f"'data' must have at least one batch of {self.size} rows, got {num_rows} rows: "
                "set a lower 'size', or 'drop_last' to false."
            )
        return self.num_dealt(num_rows) - (num_batches - 1) * self.size

    @abstractmethod
    def indices(self, num_rows: int) -> Iterator[Tensor]:
        """Return the row numbers of each batch of one epoch, from torch's default generator."""


class Shuffled(Batches):
    """Every row once in an epoch, in a random order.

    Arguments:
        size: the number of rows in a batch.
        drop_last: omit a last batch that is shorter.

    Example:
        >>> [len(index) for index in Shuffled(size=4).indices(10)]
        [4, 4, 2]
    """

    def __init__(self, size: int = 128, drop_last: bool = False) -> None:
        super().__init__(size)
        self.drop_last = flag(drop_last, "drop_last")

    def num_batches(self, num_rows: int) -> int:
        return num_rows // self.size if self.drop_last else -(-num_rows // self.size)

    def num_dealt(self, num_rows: int) -> int:
        return min(num_rows, super().num_dealt(num_rows))

    def indices(self, num_rows: int) -> Iterator[Tensor]:
        batches = torch.randperm(num_rows).split(self.size)
        return iter(batches[: self.num_batches(num_rows)])


class WithReplacement(Batches):
    """A fixed number of batches in an epoch, whose rows are drawn uniformly from all rows.

    Arguments:
        size: the number of rows in a batch.
        batches: the number of batches in an epoch.

    Example:
        >>> [len(index) for index in WithReplacement(size=4, batches=3).indices(10)]
        [4, 4, 4]
    """

    def __init__(self, size: int, batches: int) -> None:
        super().__init__(size)
        self.batches = whole(batches, "batches")

    def num_batches(self, num_rows: int) -> int:
        return self.batches

    def indices(self, num_rows: int) -> Iterator[Tensor]:
        return iter(torch.randint(num_rows, (self.batches, self.size)))


def count_of(batches: Batches, method: str, num_rows: int) -> int:
    """Return the count that a method of `Batches` gives for so many rows.

    Raises:
        ValueError: if it is no whole number from 0.
    """
    check_initialized(batches, "size")
    value = called(batches, method, num_rows)
    count = as_int(value)
    if count is None or count < 0:
        raise wrong_result(batches, method, "a whole number of at least 0", described(value))
    return count


def indices_of(batches: Batches, num_batches: int, num_rows: int) -> list[Tensor]:
    """Return the row numbers of each batch of one epoch.

    Raises:
        ValueError: if they are not `num_batches` tensors of row numbers below `num_rows`.
    """
    given = called(batches, "indices", num_rows)
    accepted = "batches, each a tensor (B,) of row numbers"
    if not isinstance(given, Iterable):
        raise wrong_result(batches, "indices", accepted, described(given))
    indices = list(islice(given, num_batches + 1))
    for index in indices:
        if not _are_row_numbers(index):
            raise wrong_result(batches, "indices", accepted, _received(index))
    if len(indices) != num_batches:
        accepted = f"{num_batches} batches, the number that 'num_batches' returns"
        received = "more" if len(indices) > num_batches else str(len(indices))
        raise wrong_result(batches, "indices", accepted, received)
    lowest, highest = (number.item() for number in torch.cat(indices).aminmax())
    if lowest < 0 or highest >= num_rows:
        accepted = f"row numbers 0 ... {num_rows - 1}"
        raise wrong_result(batches, "indices", accepted, f"numbers from {lowest} to {highest}")
    return indices


def _are_row_numbers(index: Any) -> bool:
    is_whole = isinstance(index, Tensor) and index.dtype in _WHOLE
    return is_whole and index.dim() == 1 and len(index) > 0


def _received(index: Any) -> str:
    """Return a batch in words, with the dtype of a tensor."""
    if not isinstance(index, Tensor):
        return f"{described(index)} for a batch"
    return f"a tensor of {index.dtype} of the shape {tuple(index.shape)} for a batch"
