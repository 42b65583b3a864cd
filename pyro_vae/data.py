"""Rows of data in memory as they came, and the batches that are taken from them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pyro_vae.missing import Missing, filled
from pyro_vae.parts import as_shape
from pyro_vae.streams import stream
from pyro_vae.transforms import Identity, Transform

# Rows that are converted at a time where a whole data set is passed over: bounds the memory.
_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Rows:
    """Rows of data as they are stored, with the transform that makes them x.

    An entry that is NaN is missing: it stays NaN, and the transform acts on the others.

    Arguments:
        levels: `(N, *x_shape)`, of any real dtype.
        transform: makes x from levels.
        max_level: the highest level there can be: 255 for 8-bit images, 1 for real numbers.
        labels: what else is known of each row, if anything: a whole number from 0, `(N,)`, or a vector, `(N, Y)`.
        has_missing: whether any entry is missing; found, not given.

    Raises:
        ValueError: levels without rows, not of real numbers, or with infinity; labels of another shape.

    Example:
        >>> rows = Rows(torch.arange(6, dtype=torch.uint8).reshape(3, 2), UnitInterval(), max_level=5)
        >>> rows.batch(torch.tensor([2, 0]))
        tensor([[0.8000, 1.0000],
                [0.0000, 0.2000]])
    """

    levels: Tensor
    transform: Transform
    max_level: float = 1.0
    labels: Tensor | None = None
    has_missing: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        levels = self.levels
        if levels.dim() < 2 or levels.numel() == 0:
            raise ValueError(
                f"'data' must have the shape (rows, ...) with at least one row, got {tuple(levels.shape)}."
            )
        if levels.is_complex():
            raise ValueError(f"'data' must hold real numbers, got {levels.dtype}.")
        is_finite = not levels.is_floating_point() or bool(torch.isfinite(levels).all())
        if not is_finite and levels.isinf().any():
            raise ValueError(f"'data' must be finite, got {self._num_not_finite()}.")
        object.__setattr__(self, "has_missing", not is_finite)  # frozen, and known before a step is traced
        if self.labels is not None and (self.labels.dim() not in (1, 2) or len(self.labels) != len(self)):
            raise ValueError(
                f"'labels' must have the shape ({len(self)},) or ({len(self)}, Y), got {tuple(self.labels.shape)}."
            )

    def __len__(self) -> int:
        return self.levels.shape[0]

    @property
    def x_shape(self) -> torch.Size:
        """The shape of one row."""
        return self.levels.shape[1:]

    def batch(self, index: Tensor | slice, dtype: torch.dtype | None = None) -> Tensor:
        """x of the rows at `index`, in this dtype or in torch's default one."""
        return self.x(self.levels[index], dtype)

    def x(self, levels: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """x from stored levels, `(*, *x_shape)`, in this dtype or in torch's default one; drawn where it is random."""
        return self._made_by(self.transform, levels, dtype)

    def context(self, size: int) -> Tensor | None:
        """y of all rows, `(N, size)`, for a VAE with a context of that size: vectors as they are, labels one-hot.

        Raises:
            ValueError: no labels, labels beyond the size, or vectors of another size.
        """
        if not size:
            return None
        labels = self.labels
        if labels is None:
            raise ValueError(f"'data' must have labels for a VAE with a context y of {size}, got none.")
        has_vectors = labels.dim() == 2
        if has_vectors:
            is_context = labels.shape[1] == size and bool(torch.isfinite(labels).all())
        else:
            numbers = labels.long()  # torch compares no wide unsigned integers
            is_context = not labels.is_floating_point() and bool(((numbers >= 0) & (numbers < size)).all())
        if not is_context:
            raise ValueError(
                f"'data' must have labels 0 ... {size - 1}, or finite vectors of {size} numbers, for a VAE with a context y "
                f"of {size}, got {labels.dtype} of the shape {tuple(labels.shape)}."
            )
        if labels.is_floating_point():
            return labels
        return (labels if has_vectors else torch.nn.functional.one_hot(labels.long(), size)).to(
            torch.get_default_dtype()
        )

    def blocks(self, num_rows: int = _BLOCK_ROWS) -> Iterator[slice]:
        """The rows in slices of at most `num_rows`."""
        return (slice(start, start + num_rows) for start in range(0, len(self), num_rows))

    def mean(self) -> Tensor:
        """The mean of x over the rows, `x_shape`, with random transforms at their expectation.

        Each element is averaged over the rows in which it is observed; one that never is has the mean 0.
        """
        return self._averaged(self.transform.mean)

    def std(self) -> Tensor:
        """The standard deviation of x over the rows, `x_shape`, with the spread of the draws of a random transform.

        Its square is the mean of (E[x | level] − E[x])² + Var[x | level] over the rows in which the element is observed;
        an element that never is has the standard deviation 0.
        """
        transform = self.transform
        with stream(0, device=self.levels.device):  # the caller's random state has no part in it
            mean = self._averaged(transform.mean, torch.float64)

            def square(levels: Tensor, max_level: float) -> Tensor:
                return (transform.mean(levels, max_level) - mean) ** 2 + transform.variance(levels, max_level)

            return self._averaged(square, torch.float64).sqrt().to(torch.get_default_dtype())

    def check_varied(self) -> None:
        """Refuse rows that are all the same, but for what is missing, from which nothing can be learnt.

        Raises:
            ValueError: every row is the same.
        """
        first = self._first_observed() if self.has_missing else self.levels[0]
        blocks = (self.levels[block] for block in self.blocks())
        if all(bool(((levels == first) | levels.isnan()).all()) for levels in blocks):
            raise ValueError(f"'data' must vary from row to row, got {len(self)} equal rows.")

    def _made_by(
        self, function: Callable[[Tensor, float], Tensor], levels: Tensor, dtype: torch.dtype | None = None
    ) -> Tensor:
        """The function of levels, which are converted first; what is missing stays so, and is 0 for the function."""
        levels = levels.to(dtype or torch.get_default_dtype())
        if not self.has_missing:
            return function(levels, self.max_level)
        return torch.where(levels.isnan(), torch.nan, function(filled(levels, 0.0), self.max_level))

    def _averaged(self, function: Callable[[Tensor, float], Tensor], dtype: torch.dtype | None = None) -> Tensor:
        """The mean of a function of levels over the rows in which an element is observed, `x_shape`."""
        sums = []
        counts = []
        for block in self.blocks():
            values = self._made_by(function, self.levels[block], dtype)
            sums.append(filled(values, 0.0).sum(0))
            counts.append((~values.isnan()).sum(0))
        return torch.stack(sums).sum(0) / torch.stack(counts).sum(0).clamp(min=1)

    def _first_observed(self) -> Tensor:
        """The first level that is observed of each element, `x_shape`."""
        place = (~self.levels.isnan()).int().argmax(0, keepdim=True)  # the first of equal ones
        return self.levels.gather(0, place).squeeze(0)

    def _num_not_finite(self) -> str:
        bad = int((~torch.isfinite(self.levels)).flatten(1).any(1).sum())
        return f"NaN or infinity in {bad} of {len(self)} rows"

    def to(self, device: torch.device | str) -> "Rows":
        """The same rows, stored on a device."""
        return replace(self, levels=self.levels.to(device))

    def take(self, index: Tensor | slice) -> "Rows":
        """The rows at `index`."""
        return replace(self, levels=self.levels[index], labels=None if self.labels is None else self.labels[index])

    def content_order(self) -> Tensor:
        """An order of the rows, `(N,)`, that depends on what they hold and not on how they are arranged.

        Rows with the same levels are told apart by their labels.
        """
        parts = [self.levels] if self.labels is None else [self.labels, self.levels]
        return torch.from_numpy(np.lexsort([_content_keys(part) for part in parts]))  # by the last part first


Data: TypeAlias = Rows | Tensor | np.ndarray | tuple[Tensor | np.ndarray, Tensor | np.ndarray]


def as_rows(data: Data, context_dim: int | None = None, missing: Missing = None) -> Rows:
    """Rows of data that are x already, or of a pair (x, y) with their contexts.

    What torch cannot compute with, such as wide unsigned integers, is converted.

    Arguments:
        data: the data.
        context_dim: the size of the context that the VAE takes which they are for; with 0 a pair is refused.
        missing: what the VAE was made with: `"nan"` takes NaN, and what a numpy array masks, as missing.

    Raises:
        ValueError: NaN or a mask, unless `missing` allows for it; what `Rows` refuses.
    """
    rows = _as_rows(data, context_dim, missing)
    if missing is None and rows.has_missing:
        raise ValueError(
            f"'data' must be finite, got {rows._num_not_finite()}: only a VAE made with missing=\"nan\" takes NaN, as "
            "missing."
        )
    return rows


def _as_rows(data: Data, context_dim: int | None, missing: Missing) -> Rows:
    if isinstance(data, Rows):
        return data
    if isinstance(data, tuple):
        if len(data) != 2:
            raise ValueError(f"'data' must be rows x or a pair (x, y), got a tuple of {len(data)}.")
        if context_dim == 0:
            raise ValueError("'data' must be rows x without a context y for a VAE whose parts take none, got a pair.")
        x, y = data
        return replace(_as_rows(x, None, missing), labels=_as_tensor(y))
    return Rows(_as_tensor(data, missing), Identity())


def _as_tensor(data: Tensor | np.ndarray, missing: Missing = None) -> Tensor:
    if isinstance(data, Tensor):
        return data
    data = np.asanyarray(data)
    if missing is not None and isinstance(data, np.ma.MaskedArray) and data.dtype.kind in "buif":
        real: Any = data.astype(data.dtype if data.dtype.kind == "f" else np.float32)
        data = np.asarray(real.filled(np.nan))
    if data.dtype.kind not in "buif" or data.dtype.itemsize > 8 or isinstance(data, np.ma.MaskedArray):
        kind = f"{type(data).__name__} of {data.dtype}"
        raise ValueError(f"'data' must be an array of real numbers without a mask, got {kind}.")
    has_wide_unsigned = data.dtype.kind == "u" and data.dtype.itemsize > 1
    # A copy: torch shares memory, and can do so neither with read-only arrays nor with reversed ones.
    return torch.from_numpy(np.array(data, dtype=np.int64 if has_wide_unsigned else data.dtype.newbyteorder("=")))


def _content_keys(values: Tensor) -> np.ndarray:
    """A number for each row, `(N,)`, that is the same for rows which hold the same."""
    if values.is_floating_point():
        values = torch.where(values.isnan(), torch.nan, values)  # which have many bit patterns
    rows = values.cpu().contiguous().view(torch.uint8).reshape(len(values), -1).numpy()
    words = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8))).view(np.uint64)
    factors = np.random.default_rng(0).integers(2**63, size=words.shape[1], dtype=np.uint64) * 2 + 1
    return words @ factors


class Batches(ABC):
    """How the rows of one epoch are dealt into batches.

    A subclass defines `num_batches` and `indices`.

    Arguments:
        size: the rows of a batch.
    """

    def __init__(self, size: int) -> None:
        (self.size,) = as_shape(size, "size")

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
        (self.batches,) = as_shape(batches, "batches")

    def num_batches(self, num_rows: int) -> int:
        return self.batches

    def indices(self, num_rows: int) -> Iterator[Tensor]:
        return iter(torch.randint(num_rows, (self.batches, self.size)))
