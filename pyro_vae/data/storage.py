"""Storages of levels: a tensor, a sparse matrix, or rows that are read one by one."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.arrays import as_tensor

# Rows, and entries, that are made dense at once in a pass over the data set, to bound the memory.
_BLOCK_ROWS = 4096
_BLOCK_ENTRIES = 2**24
# The share of the free memory that rows may fill.
_MEMORY_SHARE = 0.5


class Storage(ABC):
    """Levels that are held in another form than a dense tensor.

    Indexing makes a dense batch. A subclass defines the methods below and sets these attributes.

    Attributes:
        shape: the shape of all levels, `(N, *x_shape)`.
        dtype: the dtype of a batch.
        device: the device of a batch.
    """

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def __getitem__(self, index: Tensor | slice | int) -> Tensor:
        """Return the rows at `index`, `(B, *x_shape)`; a number gives one row, `x_shape`."""

    @abstractmethod
    def take(self, index: Tensor | slice) -> "Storage":
        """Return a storage of the rows at `index`."""

    @abstractmethod
    def to(self, device: torch.device | str) -> "Storage":
        """Return the storage on a device; one that cannot move returns itself."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that moving to a device would fill there."""

    def distinct(self) -> Iterator[Tensor]:
        """Yield tensors that together hold each number among the levels at least once."""
        return (self[block] for block in blocks(self))

    def __len__(self) -> int:
        return self.shape[0]

    def dim(self) -> int:
        """Return the number of axes, that of the rows included."""
        return len(self.shape)

    def numel(self) -> int:
        """Return the number of entries, those that are not held included."""
        return self.shape.numel()

    def is_floating_point(self) -> bool:
        """Return True if the levels are real numbers."""
        return self.dtype.is_floating_point

    def _numbers(self, index: Tensor | slice) -> Tensor:
        """Return the numbers of the rows at `index`, `(B,)`."""
        return torch.arange(len(self), device=self.device)[index]

    def __repr__(self) -> str:
        sizes = " × ".join(map(str, self.shape))
        return f"{type(self).__name__}({sizes}, {str(self.dtype).removeprefix('torch.')})"


Levels: TypeAlias = Tensor | Storage


class SparseMatrix(Storage):
    """Matrix of which only the entries other than 0 are held, row by row.

    A batch is dense. An entry that is held as NaN is missing.

    Arguments:
        indptr: the place where each row starts in the two others, and the end, `(N + 1,)`.
        indices: the columns of the entries, without a column twice in one row.
        values: the entries.
        num_columns: the number of columns.

    Example:
        >>> import scipy
        >>> from pyro_vae.data import SparseMatrix
        >>> matrix = SparseMatrix.of(scipy.sparse.eye_array(3))
        >>> matrix[torch.tensor([2, 0])].tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    def __init__(self, indptr: Tensor, indices: Tensor, values: Tensor, num_columns: int) -> None:
        self.indptr = indptr
        self.indices = indices
        self.values = values
        self.shape = torch.Size((len(indptr) - 1, num_columns))
        self.dtype = values.dtype
        self.device = values.device

    @classmethod
    def of(cls, matrix: Any, name: str = "data") -> "SparseMatrix":
        """Return a sparse matrix of scipy as a storage; entries that stand twice are added.

        Raises:
            ValueError: if it holds other than real numbers.
        """
        rows = matrix.tocsr()
        if not rows.has_canonical_format:
            rows = rows.copy()  # the matrix of the caller stays as it is
            rows.sum_duplicates()
        values = as_tensor(rows.data, name)
        indptr = torch.from_numpy(rows.indptr.astype(np.int64))
        return cls(indptr, torch.from_numpy(rows.indices.copy()), values, rows.shape[1])

    @property
    def nbytes(self) -> int:
        return self.indptr.nbytes + self.indices.nbytes + self.values.nbytes

    def __getitem__(self, index: Tensor | slice | int) -> Tensor:
        if isinstance(index, int):
            return self[torch.tensor([index])][0]
        places, counts = self._places(index)
        row = torch.arange(len(counts), device=self.device).repeat_interleave(counts)
        batch = self.values.new_zeros(len(counts), self.shape[1])
        batch[row, self.indices[places].long()] = self.values[places]
        return batch

    def take(self, index: Tensor | slice) -> "SparseMatrix":
        places, counts = self._places(index)
        indptr = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        return SparseMatrix(indptr, self.indices[places], self.values[places], self.shape[1])

    def to(self, device: torch.device | str) -> "SparseMatrix":
        return SparseMatrix(
            self.indptr.to(device), self.indices.to(device), self.values.to(device), self.shape[1]
        )

    def distinct(self) -> Iterator[Tensor]:
        if len(self.values):
            yield self.values
        if len(self.values) < self.numel():
            yield self.values.new_zeros(1)

    def _places(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Return the places of the entries of rows, and how many each row has, `(B,)`."""
        numbers = self._numbers(index.to(self.device) if isinstance(index, Tensor) else index)
        starts = self.indptr[numbers]
        counts = self.indptr[numbers + 1] - starts
        shift = starts - (counts.cumsum(0) - counts)  # from the place in the result
        entries = torch.arange(int(counts.sum()), device=self.device)
        return entries + shift.repeat_interleave(counts), counts

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {len(self.values) / self.numel():.1%} held)"


class ReadOneByOne(Storage):
    """Rows that are read from their place whenever a batch needs them, such as large images.

    Arguments:
        row_at: returns the row of a number, `x_shape`, always of the same shape and dtype.
        numbers: the number of each row, `(N,)`.
        like: one of the rows.
    """

    def __init__(self, row_at: Callable[[int], Tensor], numbers: Tensor, like: Tensor) -> None:
        self.row_at = row_at
        self.numbers = numbers
        self.like = like
        self.shape = torch.Size((len(numbers), *like.shape))
        self.dtype = like.dtype

    @property
    def nbytes(self) -> int:
        return 0  # it stays where it is

    def __getitem__(self, index: Tensor | slice | int) -> Tensor:
        if isinstance(index, int):
            return self.row_at(int(self.numbers[index]))
        numbers = self.numbers[index.cpu() if isinstance(index, Tensor) else index]
        rows = [self.row_at(number) for number in numbers.tolist()]
        return torch.stack(rows) if rows else self.like.new_empty(0, *self.like.shape)

    def take(self, index: Tensor | slice) -> "ReadOneByOne":
        return ReadOneByOne(self.row_at, self.numbers[index], self.like)

    def to(self, device: torch.device | str) -> "ReadOneByOne":
        return self


def blocks(levels: Levels, num_rows: int | None = None) -> Iterator[slice]:
    """Yield slices that cover all rows.

    Arguments:
        levels: the levels.
        num_rows: the most rows of a slice; as many as memory should hold at once when omitted.
    """
    width = max(1, levels.shape[1:].numel())
    step = num_rows or max(1, min(_BLOCK_ROWS, _BLOCK_ENTRIES // width))
    return (slice(start, start + step) for start in range(0, len(levels), step))


def taken(levels: Levels, index: Tensor | slice) -> Levels:
    """Return the levels of the rows at `index`, in the same form."""
    return levels.take(index) if isinstance(levels, Storage) else levels[index]


def distinct(levels: Levels) -> Iterator[Tensor]:
    """Yield tensors that together hold each number among the levels at least once."""
    if isinstance(levels, Storage):
        return levels.distinct()
    return (levels[block] for block in blocks(levels))


def is_sparse(matrix: Any) -> bool:
    """Return True if an object is a sparse matrix or array of scipy."""
    return hasattr(matrix, "tocsr") and hasattr(matrix, "toarray")


def fits_in_memory(num_bytes: int) -> bool:
    """Return True if rows of this size fill at most half of the memory that is free."""
    return num_bytes <= _MEMORY_SHARE * _free_memory()


def _free_memory() -> float:
    """Return the bytes of memory that are free, or infinity if the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
            sizes = dict(line.split(":") for line in file)
        return float(sizes["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return float("inf")
