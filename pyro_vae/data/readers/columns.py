"""Columns of a table as rows: numbers, categories, labels and contexts, with their names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from pyro_vae.data.names import Names, as_names, group_names, original_columns
from pyro_vae.data.rows import Rows
from pyro_vae.data.transforms import Identity
from pyro_vae.support.checks import described, nearest

# A column by its name: real or whole numbers, or strings with None for a missing cell.
Table: TypeAlias = Mapping[str, np.ndarray]
# Up to so many categories are accepted among any number of rows.
_FEW = 10
# So few words among the different entries of a column are no names, but marks of missing numbers.
_WORDS_SHARE = 0.25
_DECIMAL_COMMA = re.compile(r"\s*-?\d+,\d+\s*")
# Double precision holds each whole number up to this one.
_LARGEST = 2.0**53
# Columns that an error names.
_MOST_NAMES = 5


class Roles(NamedTuple):
    """Columns that are no part of x.

    Arguments:
        label: the column of labels.
        context: the columns of the context y.
        ignored: the columns that are left out.
    """

    label: str | None
    context: tuple[str, ...]
    ignored: tuple[str, ...]

    @property
    def named(self) -> tuple[str, ...]:
        """All columns that have a role."""
        label = () if self.label is None else (self.label,)
        return (*label, *self.context, *self.ignored)


def as_roles(
    label: str | None, context: Sequence[str] | None, ignored: Sequence[str] | None
) -> Roles:
    """Return the columns that settings name.

    Raises:
        ValueError: if one is no string, or a column has two roles.
    """
    if label is not None and not isinstance(label, str):
        raise ValueError(f"'label' must be the name of a column, got {described(label)}.")
    roles = Roles(
        label or None,
        as_names(context, "context", None) or (),
        as_names(ignored, "ignored", None) or (),
    )
    for number, name in enumerate(roles.named):
        if name in roles.named[:number]:
            raise ValueError(
                f"'label', 'context' and 'ignored' must name different columns, got {name!r} twice."
            )
    return roles


def check_roles(roles: Roles, columns: Iterable[str], path: str, is_new: bool = True) -> None:
    """Refuse roles of columns that a file lacks.

    Arguments:
        roles: the roles.
        columns: the columns of the file.
        path: the file.
        is_new: False for further rows of a run, which may lack labels and ignored columns.

    Raises:
        ValueError: if it lacks one.
    """
    known = list(columns)
    label = () if roles.label is None else (roles.label,)
    needed = {"context": roles.context}
    if is_new:
        needed = {"label": label, "context": roles.context, "ignored": roles.ignored}
    for argument, names in needed.items():
        for name in names:
            if name not in known:
                raise ValueError(
                    f"'{argument}' must be one of the columns {_listed(known)} of {path}, got "
                    f"{name!r}{nearest(name, known)}."
                )


def rows_of_table(table: Table, roles: Roles, path: str, known: Names | None = None) -> Rows:
    """Return the rows of a table.

    Each category of a column of strings becomes a number of its own, which is 0 or 1, in
    alphabetical order. A missing cell is missing in all of them.

    Arguments:
        table: the columns.
        roles: the columns that are no part of x.
        path: the file, which an error names.
        known: the names of a run, whose columns and categories the rows have; None for a new run.

    Raises:
        ValueError: if a column is absent, or holds neither numbers nor a few categories.
    """
    check_roles(roles, table, path, known is None)
    names: list[str] = []
    categories = {}
    columns: list[np.ndarray] = []
    for name in x_columns(table, roles, path, known):
        given = None if known is None else (known.categories or {}).get(name)
        numbers, found = _numbered(table[name], name, path, given)
        if found is None:
            columns.append(numbers)
            names.append(name)
        else:
            columns += list(one_hot(numbers, len(found)).T)
            names += group_names(name, found)
            categories[name] = found
    return Rows(
        _stacked(columns),
        Identity(),
        column_names=names,
        categories=categories,
        **labels_and_contexts(table, roles, path, known),
    )


def x_columns(
    columns: Iterable[str], roles: Roles, path: str, known: Names | None = None
) -> tuple[str, ...]:
    """Return the names of the columns of x: those without a role, or those of a run.

    Raises:
        ValueError: if there is none, or one of a run is absent.
    """
    if known is None or known.columns is None:
        names = tuple(name for name in columns if name not in roles.named)
        if not names:
            raise ValueError(f"'path' must have a column of numbers for x, got none in {path}.")
        return names
    present = set(columns)
    wanted = original_columns(known)
    absent = [name for name in wanted if name not in present]
    if absent:
        raise ValueError(
            f"'path' must have the columns of the run, got {path} without {_listed(absent)}."
        )
    return wanted


def labels_and_contexts(
    table: Table, roles: Roles, path: str, known: Names | None = None
) -> dict[str, Any]:
    """Return labels and contexts with their names, as arguments of `Rows`.

    Raises:
        ValueError: if a cell is missing, or labels are no classes.
    """
    result: dict[str, Any] = {}
    if roles.label is not None and roles.label in table:
        given = None if known is None else known.classes
        result["labels"], result["class_names"] = _labels(table[roles.label], roles, path, given)
    elif known is not None:
        result["class_names"] = known.classes
    if roles.context:
        given = None if known is None else known.contexts
        numbers, names = _contexts(table, roles.context, path, given)
        result |= {"contexts": numbers, "context_names": names}
    return result


def _labels(
    column: np.ndarray, roles: Roles, path: str, given: tuple[str, ...] | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return whole numbers from 0, and the names of the classes if they had names."""
    name = roles.label or ""
    numbers, names = _numbered(column, name, path, given, limit=False)
    is_class = np.isfinite(numbers).all() and (numbers >= 0).all() and (numbers % 1 == 0).all()
    if not is_class:
        bad = numbers[~(np.isfinite(numbers) & (numbers >= 0) & (numbers % 1 == 0))][0]
        received = "a missing cell" if np.isnan(bad) else f"{bad:g}"
        raise ValueError(
            f"'label' must be a column of classes, whole numbers from 0 or strings, got {received} "
            f"in {name!r} of {path}."
        )
    return numbers.astype(np.int64), names


def _contexts(
    table: Table, columns: Sequence[str], path: str, given: tuple[str, ...] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the numbers of all context columns side by side, `(N, Y)`, and their names."""
    parts = []
    names: list[str] = []
    for column in columns:
        classes = None
        if given is not None:
            prefix = f"{column}="
            own = tuple(name.removeprefix(prefix) for name in given if name.startswith(prefix))
            classes = own or None
        numbers, found = _numbered(table[column], column, path, classes)
        if np.isnan(numbers).any():
            raise ValueError(
                f"'context' must be columns without missing cells, got some in {column!r} of "
                f"{path}."
            )
        if found is None:
            parts.append(numbers[:, None].astype(np.float64))
            names.append(column)
        else:
            parts.append(one_hot(numbers, len(found)))
            names += group_names(column, found)
    return np.concatenate(parts, axis=1).astype(np.float32), tuple(names)


def one_hot(numbers: np.ndarray, size: int) -> np.ndarray:
    """Return unit vectors for the numbers of categories, `(N, size)`; NaN for a missing one."""
    is_missing = np.isnan(numbers)
    units = np.eye(size)[np.where(is_missing, 0, numbers).astype(np.int64)]
    units[is_missing] = np.nan
    return units


def _numbered(
    column: np.ndarray,
    name: str,
    path: str,
    given: tuple[str, ...] | None,
    limit: bool = True,
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return a column as numbers, and the names of its categories if it holds strings.

    Arguments:
        column: the column.
        name: its name.
        path: the file.
        given: the categories of a run; None to find them.
        limit: refuse more categories than an element of x should have.
    """
    if column.dtype.kind in "biuf":
        if given is not None:
            column = np.array([_as_name(number) for number in column.tolist()], dtype=object)
        else:
            return column, None
    found = [None if cell is None else str(cell) for cell in column.tolist()]
    present = [cell for cell in found if cell is not None]
    if given is None:
        given = tuple(sorted(set(present)))
        _check_categories(given, present, name, path, limit)
    number_of = {category: float(number) for number, category in enumerate(given)}
    unknown = [cell for cell in present if cell not in number_of]
    if unknown:
        raise ValueError(
            f"'path' must have a column {name!r} with the categories {_listed(given)} of the run, "
            f"got {unknown[0]!r} in {path}."
        )
    return np.array([np.nan if cell is None else number_of[cell] for cell in found]), given


def _check_categories(
    given: tuple[str, ...], present: Sequence[str], name: str, path: str, limit: bool
) -> None:
    """Refuse strings that are numbers with a few words among them, or that are no categories."""
    if given and all(map(_DECIMAL_COMMA.fullmatch, given)):
        raise ValueError(
            f"'path' must have decimal points, got {given[0]!r} in {name!r} of {path}: write "
            f"{given[0].replace(',', '.')}."
        )
    words = [category for category in given if not _is_number(category)]
    if words and len(words) <= _WORDS_SHARE * len(given):
        raise ValueError(
            f"'path' must have numbers or words in a column, got {words[0]!r} among the numbers of "
            f"{name!r} in {path}: leave such a cell empty."
        )
    if limit and len(given) > max(_FEW, len(present) / 2):
        raise ValueError(
            f"'path' must have columns of numbers or of few categories, got {len(given)} different "
            f"strings such as {given[0]!r} in {name!r} of {path}: name it in 'ignored', or turn it "
            "into numbers."
        )


def _stacked(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Return columns side by side, `(N, columns)`, as whole numbers if they hold nothing else."""
    is_whole = all(map(_is_whole, columns))
    dtype = np.int64 if is_whole else np.float64
    return np.stack([column.astype(dtype) for column in columns], axis=1)


def _is_whole(column: np.ndarray) -> bool:
    if column.dtype.kind in "biu":
        return True
    is_known = np.isfinite(column).all()
    return bool(is_known and (column % 1 == 0).all() and (np.abs(column) <= _LARGEST).all())


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _as_name(number: float) -> str | None:
    """Return a number as the name of a category; a missing one has none."""
    return None if number != number else f"{number:.17g}"


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_NAMES
    listed = ", ".join(names[:_MOST_NAMES]) or "none"
    return f"{listed} and {rest} more" if rest > 0 else listed
