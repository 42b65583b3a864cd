"""Batches: how the rows of an epoch are dealt."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from pyro_vae.support.checks import whole


class Batches(ABC):
    """How the rows of one epoch are dealt into batches.

    A subclass defines `num_batches` and `indices`.

    Arguments:
        size: the rows of a batch.
    """

    def __init__(self, size: int) -> None:
        self.size = whole(size, "size")

    @abstractmethod
    def num_batches(self, num_rows: int) -> int:
        """How many batches an epoch has."""

    def num_dealt(self, num_rows: int) -> int:
        """How many rows an epoch deals out, the repeated ones included."""
        return self.num_batches(num_rows) * self.size

    @abstractmethod
    def indices(self, num_rows: int) -> Iterator[Tensor]:
        """The row numbers of each batch of one epoch, drawn from torch's default generator."""


class Shuffled(Batches):
    """Every row once an epoch, in a random order.

    Arguments:
        size: the rows of a batch.
        drop_last: leave out a last batch that is shorter.

    Example:
        >>> [len(index) for index in Shuffled(size=4).indices(10)]
        [4, 4, 2]
    """

    def __init__(self, size: int = 128, drop_last: bool = False) -> None:
        super().__init__(size)
        self.drop_last = drop_last

    def num_batches(self, num_rows: int) -> int:
        return num_rows // self.size if self.drop_last else -(-num_rows // self.size)

    def num_dealt(self, num_rows: int) -> int:
        return min(num_rows, super().num_dealt(num_rows))

    def indices(self, num_rows: int) -> Iterator[Tensor]:
        return iter(torch.randperm(num_rows).split(self.size)[: self.num_batches(num_rows)])


class WithReplacement(Batches):
    """A fixed number of batches an epoch, each row of each drawn from all rows alike.

    Arguments:
        size: the rows of a batch.
        batches: the number of batches an epoch.

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
