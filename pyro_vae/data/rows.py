"""Rows of data as they are stored, and the batches taken from them."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from pyro_vae.data.arrays import (
    Array,
    as_array,
    as_tensor,
    dtype_name,
    highest_level,
    without_mask,
)
from pyro_vae.data.batch import rows_of
from pyro_vae.data.contexts import as_context
from pyro_vae.data.map_style import DatasetRows
from pyro_vae.data.merging import merged
from pyro_vae.data.missing import Missing, filled
from pyro_vae.data.names import (
    Names,
    as_categories,
    as_names,
    check_classes,
    names_of_table,
)
from pyro_vae.data.storage import (
    Levels,
    SparseMatrix,
    Storage,
    blocks,
    distinct,
    is_sparse,
    taken,
)
from pyro_vae.data.transforms import (
    Identity,
    Transform,
    checked_result,
    prepared_by,
)
from pyro_vae.support.channels import channels_first, check_channels_first
from pyro_vae.support.checks import check_finite, check_max_level, check_sizes, flag, instance
from pyro_vae.support.methods_of_users import called, wrong_result
from pyro_vae.support.streams import stream
from pyro_vae.support.tables import shown_in_short

# Rows that a transform is tried on; the spread of a single one is not defined.
_TRIED_ROWS = 2
_WAY_OUT = (
    "set 'channels_last' of Rows or ArrayFile to true for (H, W, C), or to false for (C, H, W)."
)


@shown_in_short
class Prepared(NamedTuple):
    """Levels that a transform has checked and prepared, and their highest level."""

    levels: Levels
    transform: Transform
    max_level: float

    def holds(self, levels: Levels, transform: Transform, max_level: float) -> bool:
        """Return True if these levels are prepared for this transform and highest level."""
        is_same = self.levels is levels and self.transform is transform
        return is_same and self.max_level == max_level


@shown_in_short
@dataclass(frozen=True, init=False)
class Rows:
    """Rows of data as they are stored, with the transform that makes x from them.

    The constructor checks the levels and prepares them with the transform: `FixedDraw` draws here.
    Rows made from other rows by `take`, `to` or `dataclasses.replace` are not prepared again. An
    entry that is NaN, or masked in a numpy array, is missing: it stays NaN, and the transform acts
    on the other entries.

    Arguments:
        levels: the stored numbers, `(N, *x_shape)`: a tensor, an array of any real dtype, anything
            that numpy turns into one, a sparse matrix of scipy, a map-style data set of torch, or a
            `Storage`. A sparse matrix stays sparse except for a batch. A data set is held in memory
            if it fits.
        transform: makes x from levels.
        max_level: the highest possible level. When omitted it is 255 for uint8, 65,535 for uint16,
            the highest number present for other whole numbers, and 1 for real numbers and booleans.
        labels: a label for each row, if any: a whole number from 0, `(N,)`, or a vector, `(N, Y)`.
        part: 0 for training, 1 for validation and 2 for test rows; each part has its own stream
            for `FixedDraw`.
        contexts: a context of each row that is not its label, `(N, Y)`, if any.
        column_names: the name of each number of a row, for rows that are vectors; those of the
            columns for a table of pandas when omitted.
        class_names: the names of the labels 0, 1, ….
        context_names: the name of each number of a context.
        categories: the categories of a column of strings, by its name. Each has a number in a row
            that is 0 or 1, under the name `column=category`.
        channels_last: True for images `(N, H, W, C)`, which become `(N, C, H, W)`; False for rows
            that stay as they are. When omitted, rows of a shape like (32, 32, 3) are refused.
        prepared: the prepared levels, set internally.
        name: the argument that an error about the levels names.
        has_missing: True if any entry is missing, set internally.

    Raises:
        ValueError: if there are no rows, or a level is infinite or no real number; if the transform
            refuses the levels; if labels, contexts, names or `max_level` do not fit.

    Example:
        >>> rows = Rows(torch.arange(6).reshape(3, 2), UnitInterval())
        >>> rows.batch(torch.tensor([2, 0]))
        tensor([[0.8000, 1.0000],
                [0.0000, 0.2000]])
    """

    levels: Levels
    transform: Transform
    max_level: float
    labels: Tensor | None
    contexts: Tensor | None = field(repr=False)
    column_names: tuple[str, ...] | None = field(repr=False)
    class_names: tuple[str, ...] | None = field(repr=False)
    context_names: tuple[str, ...] | None = field(repr=False)
    categories: Mapping[str, tuple[str, ...]] | None = field(repr=False, compare=False)
    part: int = field(repr=False)
    channels_last: bool | None = field(repr=False)
    prepared: Prepared | None = field(repr=False, compare=False)
    has_missing: bool = field(init=False, repr=False, compare=False)
    _converted_to: set[torch.dtype] = field(init=False, repr=False, compare=False)

    def __init__(
        self,
        levels: Array | Storage | Dataset,
        transform: Transform,
        max_level: float | None = None,
        labels: Array | None = None,
        *,
        contexts: Array | None = None,
        column_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        context_names: Sequence[str] | None = None,
        categories: Mapping[str, Sequence[str]] | None = None,
        part: int = 0,
        channels_last: bool | None = None,
        prepared: Prepared | None = None,
        name: str = "data",
    ) -> None:
        instance(transform, Transform, "transform", "Identity()")
        if isinstance(levels, Dataset) and not isinstance(levels, IterableDataset):
            levels, found = DatasetRows(levels, name).read()
            labels = found if labels is None else labels
        if column_names is None:
            column_names = names_of_table(levels)
        stored, kind = _opened(levels, name)
        stored = _stored(stored, channels_last, name)
        has_missing = _has_missing(stored, name)
        if max_level is None:
            max_level = highest_level(kind, distinct(stored))
        check_max_level(max_level)
        if prepared is None or not prepared.holds(stored, transform, max_level):
            stored, max_level = _prepared(stored, has_missing, transform, max_level, part)
        y = None if contexts is None else _as_contexts(contexts, len(stored))
        columns = as_names(column_names, "column_names", _num_columns(stored))
        values: dict[str, Any] = {
            "levels": stored,
            "transform": transform,
            "max_level": max_level,
            "labels": None if labels is None else _as_labels(labels, len(stored), "labels"),
            "contexts": y,
            "column_names": columns,
            "class_names": as_names(class_names, "class_names", None),
            "context_names": as_names(
                context_names, "context_names", 0 if y is None else y.shape[1]
            ),
            "categories": as_categories(categories, columns),
            "part": part,
            "channels_last": False,
            "prepared": Prepared(stored, transform, max_level),
            "has_missing": has_missing,  # known before a step is traced
            "_converted_to": set(),
        }
        vars(self).update(values)  # frozen from here on
        check_classes(self.labels, self.class_names)

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def x_shape(self) -> torch.Size:
        """Shape of one row."""
        return self.levels.shape[1:]

    @property
    def names(self) -> Names:
        """Names of columns, categories, classes and contexts."""
        return Names(self.column_names, self.categories, self.class_names, self.context_names)

    def batch(self, index: Tensor | slice, dtype: torch.dtype | None = None) -> Tensor:
        """Return x of the rows at `index`, in this dtype or in torch's default dtype.

        It warns if the dtype merges levels.
        """
        self._warn_of_merged(dtype or torch.get_default_dtype())
        return self.x(self.levels[index], dtype)

    def checked_batch(self, index: Tensor | slice, dtype: torch.dtype | None = None) -> Tensor:
        """Return x as `batch` does, after a check of what the transform returned.

        Raises:
            ValueError: if x has another shape than the levels, or is not finite where they are.
        """
        x = self.batch(index, dtype)
        if isinstance(self.transform, Identity):
            return x
        levels = self.levels[index].to(dtype or torch.get_default_dtype())
        checked_result(self.transform, "__call__", x, levels)
        is_bad = (levels.isfinite() & ~x.isfinite()).flatten(1).any(1)
        if is_bad.any():
            received = f"NaN or infinity in {int(is_bad.sum())} of {len(x)} rows"
            raise wrong_result(self.transform, "__call__", "finite numbers", received)
        return x

    def x(self, levels: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return x from stored levels, `(*, *x_shape)`, in this dtype or in torch's default dtype.

        A random transform draws anew in each call.
        """
        return self._made_by(self.transform, levels, dtype)

    def training_x(self, levels: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return x for a step of training: as `x` does, from levels that the transform augments."""
        return self.x(self.transform.augment(levels), dtype)

    def context(self, size: int, name: str = "data") -> Tensor | None:
        """Return y of all rows, `(N, size)`, or None for size 0.

        It is `contexts`, if there are any, or else made of the labels: vectors stay as they are,
        and classes become one-hot.

        Arguments:
            size: the size Y of the context that the VAE takes.
            name: the argument that an error names.

        Raises:
            ValueError: if there are no labels, labels beyond the size, or vectors of another size.
        """
        if not size:
            return None
        given = self.labels if self.contexts is None else self.contexts
        if given is None:
            raise ValueError(
                f"'{name}' must have labels for a VAE with a context y of {size}, got none."
            )
        return as_context(given, size, name)

    def blocks(self, num_rows: int | None = None) -> Iterator[slice]:
        """Yield slices of at most `num_rows` rows that cover all rows.

        When omitted, a slice has as many rows as memory should hold at once.
        """
        return blocks(self.levels, num_rows)

    def mean(self) -> Tensor:
        """Return the mean of x over the rows, `x_shape`; a random transform has its expectation.

        Each element is averaged over the rows in which it is observed. An element that is never
        observed has the mean 0.
        """
        return self._averaged(self._moment("mean"))

    def std(self) -> Tensor:
        """Return the standard deviation of x, `x_shape`, including the spread of random draws.

        Its square is the mean of (E[x | level] − E[x])² + Var[x | level] over the rows in which
        the element is observed. An element that is never observed has the standard deviation 0.
        """
        mean_of = self._moment("mean")
        variance_of = self._moment("variance")
        with stream(0, device=self.levels.device):  # independent of the caller's random state
            mean = self._averaged(mean_of, torch.float64)

            def square(levels: Tensor, max_level: float) -> Tensor:
                deviation = mean_of(levels, max_level) - mean
                return deviation**2 + variance_of(levels, max_level)

            return self._averaged(square, torch.float64).sqrt().to(torch.get_default_dtype())

    def check_varied(self) -> None:
        """Refuse rows that are all equal except for missing entries: nothing can be learnt there.

        Raises:
            ValueError: if all rows are equal.
        """
        first = self._first_observed() if self.has_missing else self.levels[0]
        parts = (self.levels[block] for block in self.blocks())
        if all(bool(((levels == first) | levels.isnan()).all()) for levels in parts):
            raise ValueError(f"'data' must vary from row to row, got {len(self)} equal rows.")

    def _made_by(
        self,
        function: Callable[[Tensor, float], Tensor],
        levels: Tensor,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Return a function of the converted levels.

        The function receives 0 for a missing level. Its output there is replaced by NaN.
        """
        levels = levels.to(dtype or torch.get_default_dtype())
        if not self.has_missing:
            return function(levels, self.max_level)
        values = function(filled(levels, 0.0), self.max_level)
        return torch.where(levels.isnan(), torch.nan, values)

    def _moment(self, method: str) -> Callable[[Tensor, float], Tensor]:
        """Return `mean` or `variance` of the transform, with a check of its results."""

        def moment(levels: Tensor, max_level: float) -> Tensor:
            values = called(self.transform, method, levels, max_level)
            return checked_result(self.transform, method, values, levels)

        return moment

    def _averaged(
        self, function: Callable[[Tensor, float], Tensor], dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return the mean of a function of levels over observed entries, `x_shape`."""
        sums = []
        counts = []
        for block in self.blocks():
            values = self._made_by(function, self.levels[block], dtype)
            sums.append(filled(values, 0.0).sum(0))
            counts.append((~values.isnan()).sum(0))
        return torch.stack(sums).sum(0) / torch.stack(counts).sum(0).clamp(min=1)

    def _first_observed(self) -> Tensor:
        """Return the first observed level of each element, `x_shape`."""
        first = self.levels[0]
        for block in self.blocks():
            levels = self.levels[block]
            place = (~levels.isnan()).int().argmax(0, keepdim=True)  # the first of equal ones
            first = torch.where(first.isnan(), levels.gather(0, place).squeeze(0), first)
            if not first.isnan().any():
                break
        return first

    def _warn_of_merged(self, dtype: torch.dtype) -> None:
        """Warn once that a dtype cannot distinguish levels."""
        if dtype in self._converted_to:
            return
        self._converted_to.add(dtype)
        found = merged(self.levels, dtype)
        if found is not None:
            name = str(dtype).removeprefix("torch.")
            place = found.place[0] if len(found.place) == 1 else found.place
            warnings.warn(
                f"'data' hold numbers that {name} cannot tell apart, such as {found.first} and "
                f"{found.second} in element {place} of a row: subtract an offset there, rescale "
                "it, or use a VAE in float64 (vae.double()).",
                stacklevel=3,
            )

    def to(self, device: torch.device | str) -> "Rows":
        """Return the same rows, stored on a device."""
        return self._with_levels(self.levels.to(device), self.labels, self.contexts)

    def take(self, index: Tensor | slice) -> "Rows":
        """Return the rows at `index`."""
        labels = rows_of(self.labels, index)
        contexts = rows_of(self.contexts, index)
        return self._with_levels(taken(self.levels, index), labels, contexts)

    def _with_levels(
        self, levels: Levels, labels: Tensor | None, contexts: Tensor | None
    ) -> "Rows":
        """Return rows with other levels, which are prepared already."""
        prepared = Prepared(levels, self.transform, self.max_level)
        return replace(self, levels=levels, labels=labels, contexts=contexts, prepared=prepared)

    def content_order(self) -> Tensor:
        """Return an order of the rows, `(N,)`, that depends on their contents alone.

        Labels and contexts decide between rows with the same levels.
        """
        parts = [self.contexts, self.labels, self.levels]
        keys = [_content_keys(part) for part in parts if part is not None]
        return torch.from_numpy(np.lexsort(keys))  # the last key comes first


def _opened(levels: Any, name: str) -> tuple[Levels, str]:
    """Return levels in a form that rows hold, and the name of the dtype in which they came."""
    if isinstance(levels, Storage):
        return levels, dtype_name(levels)
    if is_sparse(levels):
        return SparseMatrix.of(levels, name), dtype_name(levels)
    array = as_array(levels, name)
    return as_tensor(without_mask(array), name), dtype_name(array)


def _stored(stored: Levels, channels_last: bool | None, name: str) -> Levels:
    """Return the levels of rows, with the channels of images first.

    Raises:
        ValueError: if there are no rows of real numbers, or the channels seem to be last.
    """
    if stored.dim() < 2 or stored.numel() == 0:
        is_column = stored.dim() == 1 and stored.numel() > 0
        num = stored.numel()
        way_out = f": reshape it to (1, {num}) for one row, or to (-1, 1) for rows of one number"
        raise ValueError(
            f"'{name}' must have the shape (rows, ...) with at least one row, got "
            f"{tuple(stored.shape)}{way_out if is_column else ''}."
        )
    if channels_last is None:
        check_channels_first(stored.shape[1:], name, _WAY_OUT)
    elif flag(channels_last, "channels_last"):
        if isinstance(stored, Storage):
            raise ValueError(f"'channels_last' must be left out for {stored!r}, got true.")
        return channels_first(stored)
    return stored


def _as_labels(labels: Array, num_rows: int, name: str) -> Tensor:
    """Return labels as a tensor, `(N,)` or `(N, Y)`.

    Raises:
        ValueError: if they have another shape, or are no real numbers.
    """
    tensor = as_tensor(labels, name)
    if tensor.dim() not in (1, 2) or len(tensor) != num_rows:
        raise ValueError(
            f"'{name}' must have the shape ({num_rows},) or ({num_rows}, Y), got "
            f"{tuple(tensor.shape)}."
        )
    return tensor


def _as_contexts(contexts: Array, num_rows: int) -> Tensor:
    """Return contexts as a tensor, `(N, Y)`.

    Raises:
        ValueError: if they have another shape, or are not finite.
    """
    tensor = as_tensor(contexts, "contexts")
    check_sizes(tensor, "contexts", num_rows, "Y")
    check_finite(tensor, "contexts")
    return tensor


def _num_columns(levels: Levels) -> int:
    """Return how many names a row has; 0 unless it is a vector."""
    return levels.shape[1] if levels.dim() == 2 else 0


def _has_missing(levels: Levels, name: str) -> bool:
    """Return True if an entry is NaN.

    Raises:
        ValueError: if an entry is infinite.
    """
    if not levels.is_floating_point():
        return False
    is_finite = all(bool(torch.isfinite(part).all()) for part in distinct(levels))
    if not is_finite and any(bool(part.isinf().any()) for part in distinct(levels)):
        raise ValueError(f"'{name}' must be finite, got {_num_not_finite(levels)}.")
    return not is_finite


def _num_not_finite(levels: Levels) -> str:
    bad = sum(
        int((~torch.isfinite(levels[block])).flatten(1).any(1).sum()) for block in blocks(levels)
    )
    return f"NaN or infinity in {bad} of {len(levels)} rows"


def _prepared(
    levels: Levels, has_missing: bool, transform: Transform, max_level: float, part: int
) -> tuple[Levels, float]:
    """Return the levels that a transform stores, and their highest; it sees 0 for a missing one."""
    if isinstance(levels, Storage):
        _check_by_block(levels, transform, max_level, part)
        return levels, max_level
    known = filled(levels, 0.0) if has_missing else levels
    prepared, max_level = prepared_by(transform, known, max_level, part)
    _try(transform, prepared[:_TRIED_ROWS], max_level)
    if has_missing:
        checked_result(transform, "prepare", prepared, levels)
        prepared = torch.where(levels.isnan(), torch.nan, prepared)
    return prepared, max_level


def _check_by_block(levels: Storage, transform: Transform, max_level: float, part: int) -> None:
    """Refuse a transform that does not take the levels of a storage, or would store others.

    Raises:
        ValueError: if it refuses a block of the levels, or prepares other levels.
    """
    if isinstance(transform, Identity):
        return
    for block in blocks(levels):
        known = filled(levels[block], 0.0)
        stored, highest = prepared_by(transform, known, max_level, part)
        if stored is not known or highest != max_level:
            raise ValueError(
                f"'transform' must leave levels as they are stored in {levels!r}, got "
                f"{transform!r}: take DynamicDraw in place of FixedDraw, or make the levels dense."
            )
        if block.start == 0:
            _try(transform, known[:_TRIED_ROWS], max_level)


def _try(transform: Transform, levels: Tensor, max_level: float) -> None:
    """Refuse a transform that cannot make x from prepared levels; draws leave no trace."""
    if isinstance(transform, Identity):
        return
    levels = levels.to(torch.get_default_dtype(), copy=True)
    before = levels.clone()
    results = {}
    with stream(0, device=levels.device):
        results["__call__"] = called(transform, "__call__", levels, max_level)
        results["augment"] = called(transform, "augment", levels)
    for method, values in results.items():
        checked_result(transform, method, values, levels)
        if not torch.equal(levels, before):
            raise wrong_result(transform, method, "a new tensor", "its levels, changed in place")


Data: TypeAlias = Rows | Array | Storage | Dataset | tuple[Array, Array]


def as_rows(
    data: Data, context_dim: int | None = None, missing: Missing = None, name: str = "data"
) -> Rows:
    """Return data as rows: rows as they are, x without a transform, or a pair (x, y).

    Arguments:
        data: the data.
        context_dim: the size of the context that the VAE takes; with 0 a pair is refused.
        missing: the setting of the VAE; `"nan"` takes NaN and masked entries as missing.
        name: the argument that an error names.

    Raises:
        ValueError: if the data have NaN or a mask and `missing` is None, or `Rows` refuses them.
    """
    rows = _as_rows(data, context_dim, missing, name)
    if missing is None and rows.has_missing:
        raise ValueError(
            f"'{name}' must be finite, got {_num_not_finite(rows.levels)}: "
            'only a VAE made with missing="nan" takes NaN, as missing.'
        )
    return rows


def as_x(x: Rows | Array, like: Tensor, name: str = "x") -> Tensor:
    """Return rows as a tensor in the dtype and on the device of another tensor.

    `Rows` give their x, for which a random transform draws anew.

    Arguments:
        x: `Rows`, or anything that `as_tensor` takes.
        like: the other tensor.
        name: the argument that an error names.

    Raises:
        ValueError: if it holds other than real numbers.
    """
    if isinstance(x, Rows):
        return x.batch(slice(None), like.dtype).to(like.device)
    if isinstance(x, tuple) and any(isinstance(part, Tensor | np.ndarray) for part in x):
        raise ValueError(f"'{name}' must be an array, got a tuple: give x and y one by one.")
    return as_tensor(without_mask(x), name).to(like)


def _as_rows(data: Any, context_dim: int | None, missing: Missing, name: str) -> Rows:
    if isinstance(data, Rows):
        return data
    if isinstance(data, tuple):
        return _pair_as_rows(data, context_dim, missing, name)
    if missing is None and isinstance(data, np.ma.MaskedArray):
        raise ValueError(
            f"'{name}' must be an array of real numbers without a mask, got MaskedArray of "
            f"{data.dtype}."
        )
    return Rows(data, Identity(), name=name)


def _pair_as_rows(
    data: tuple[Any, ...], context_dim: int | None, missing: Missing, name: str
) -> Rows:
    if len(data) != 2:
        raise ValueError(f"'{name}' must be rows x or a pair (x, y), got a tuple of {len(data)}.")
    if context_dim == 0:
        raise ValueError(
            f"'{name}' must be rows x without a context y for a VAE whose parts take none, got "
            "a pair."
        )
    x, y = data
    dims = [getattr(part, "ndim", 0) for part in data]
    if dims[0] == 1 and dims[1] > 1:
        raise ValueError(
            f"'{name}' must be a pair (x, y), got x of the shape {tuple(x.shape)} and y of the "
            f"shape {tuple(y.shape)}: swap them."
        )
    rows = _as_rows(x, None, missing, name)
    label_name = "y" if name == "data" else f"y of {name}"
    labels = _as_labels(y, len(rows), label_name)
    return replace(rows, labels=labels, class_names=None, contexts=None, context_names=None)


def _content_keys(levels: Levels) -> np.ndarray:
    """Return a number for each row, `(N,)`, that is equal for rows with equal contents."""
    return np.concatenate([_keys_of_block(levels[block]) for block in blocks(levels)])


def _keys_of_block(values: Tensor) -> np.ndarray:
    if values.is_floating_point():
        values = torch.where(values.isnan(), torch.nan, values)  # NaN has many bit patterns
    rows = values.cpu().contiguous().view(torch.uint8).reshape(len(values), -1).numpy()
    words = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8))).view(np.uint64)
    generator = np.random.default_rng(0)
    factors = generator.integers(2**63, size=words.shape[1], dtype=np.uint64) * 2 + 1
    return words @ factors
