"""Types of the columns of rows, as their numbers show them."""

from collections import Counter
from typing import NamedTuple

import torch

from pyro_vae.data.names import group_names
from pyro_vae.data.rows import Rows


class Column(NamedTuple):
    """Column of rows that are vectors.

    Arguments:
        name: its name; None if columns have none.
        kind: `"real"`, `"whole"`, `"count"` for whole numbers from 0, `"binary"` for 0 and 1, or
            `"category"` for a column of strings.
        size: the numbers of a row that it has: one, or one for each category.
        categories: the names of its categories, if it has any.
        num_missing: the number of rows in which it is missing.
    """

    name: str | None
    kind: str
    size: int
    categories: tuple[str, ...] | None
    num_missing: int


# The kinds in words, in the order in which they are told.
_WORDS = {"real": "real", "whole": "whole", "count": "whole ≥ 0", "binary": "0 or 1"}


def columns_of(rows: Rows) -> list[Column]:
    """Return the type of each column, as the numbers show it.

    Raises:
        ValueError: if the rows are no vectors.
    """
    if len(rows.x_shape) != 1:
        raise ValueError(f"'rows' must be vectors, got rows of the shape {tuple(rows.x_shape)}.")
    num_columns = rows.x_shape[0]
    is_whole = torch.ones(num_columns, dtype=torch.bool)
    lowest = torch.full((num_columns,), torch.inf, dtype=torch.float64)
    highest = -lowest
    num_missing = torch.zeros(num_columns, dtype=torch.int64)
    for block in rows.blocks():
        levels = rows.levels[block].cpu().double()
        is_missing = levels.isnan()
        num_missing += is_missing.sum(0)
        is_whole &= ((levels == levels.round()) | is_missing).all(0)
        lowest = torch.minimum(lowest, torch.where(is_missing, torch.inf, levels).amin(0))
        highest = torch.maximum(highest, torch.where(is_missing, -torch.inf, levels).amax(0))
    firsts = {}
    for column, categories in (rows.categories or {}).items():
        firsts[group_names(column, categories)[0]] = column
    found = []
    number = 0
    while number < num_columns:
        name = None if rows.column_names is None else rows.column_names[number]
        num_absent = int(num_missing[number])
        if name in firsts:
            column = firsts[name]
            categories = (rows.categories or {})[column]
            found.append(Column(column, "category", len(categories), categories, num_absent))
        else:
            kind = "real"
            if is_whole[number]:
                kind = _whole_kind(float(lowest[number]), float(highest[number]))
            found.append(Column(name, kind, 1, None, num_absent))
        number += found[-1].size
    return found


def types_found(rows: Rows) -> str:
    """Return the types of the columns in words, such as "3 columns: 2 real, 1 category of 4"."""
    if len(rows.x_shape) != 1:
        shape = " × ".join(map(str, rows.x_shape))
        return f"rows of {shape}, levels up to {rows.max_level:g}"
    columns = columns_of(rows)
    kinds = Counter(column.kind for column in columns)
    words = [f"{kinds[kind]} {word}" for kind, word in _WORDS.items() if kinds[kind]]
    sizes = [str(len(column.categories)) for column in columns if column.categories is not None]
    if sizes:
        plural = "category" if len(sizes) == 1 else "categories"
        words.append(f"{len(sizes)} {plural} of {_joined(sizes)}")
    missing = sum(column.num_missing for column in columns)
    if missing:
        share = missing / (len(rows) * len(columns))
        words.append(f"{share:.1%} of the cells missing")
    plural = "column" if len(columns) == 1 else "columns"
    return f"{len(columns)} {plural}: {', '.join(words)}"


def _whole_kind(lowest: float, highest: float) -> str:
    if lowest < 0:
        return "whole"
    return "binary" if highest <= 1 else "count"


def _joined(words: list[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last
