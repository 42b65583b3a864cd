"""Results by row as files: `.npy`, `.npz` or `.csv`."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from pyro_vae.data import Names
from pyro_vae.data.names import group_names, original_columns
from pyro_vae.runs import write_atomically

SUFFIXES = (".npy", ".npz", ".csv")
# The cells of each column of a table, by its name.
Cells: TypeAlias = Mapping[str, Iterable[Any]]


def write_results(path: Path, arrays: Mapping[str, np.ndarray], cells: Cells) -> None:
    """Write results of rows: all arrays to `.npz`, the first to `.npy`, and cells to `.csv`.

    Arguments:
        path: the file; its ending decides the kind.
        arrays: the results, by name.
        cells: the columns of the table, one cell for each row.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        write_atomically(path, lambda file: file.write(_text(cells).encode()))
    elif path.suffix == ".npz":
        write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))
    else:
        first = next(iter(arrays.values()))
        write_atomically(path, lambda file: np.save(file, first))


def numbered(name: str, array: np.ndarray) -> Cells:
    """Return the columns of an array, `(N, K)`, as `name_0`, `name_1` and so on."""
    return {f"{name}_{place}": column.tolist() for place, column in enumerate(array.T)}


def in_columns_of_file(x: np.ndarray, names: Names) -> Cells:
    """Return the columns of rows as their file had them, with the most probable categories.

    Arguments:
        x: rows, `(N, *x_shape)`; for a category, a number for each, such as its probability.
        names: the names of the numbers in a row.
    """
    flat = x.reshape(len(x), -1)
    if names.columns is None:
        return numbered("x", flat)
    place_of = {name: place for place, name in enumerate(names.columns)}
    cells: dict[str, Iterable[Any]] = {}
    for column in original_columns(names):
        categories = (names.categories or {}).get(column)
        if categories is None:
            cells[column] = flat[:, place_of[column]].tolist()
        else:
            places = [place_of[name] for name in group_names(column, categories)]
            cells[column] = [categories[number] for number in flat[:, places].argmax(1)]
    return cells


def _text(cells: Cells) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["row", *cells])
    for number, row in enumerate(zip(*cells.values(), strict=True)):
        writer.writerow([number, *row])
    return text.getvalue()
