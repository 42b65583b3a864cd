"""Tables: files of columns, as text or as Parquet."""

from __future__ import annotations

import csv
import itertools
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyro_vae.data.names import Names
from pyro_vae.data.readers.columns import Roles, Table, as_roles, rows_of_table
from pyro_vae.data.readers.files import FileSource, needed, start_of
from pyro_vae.data.readers.pairs import check_observed
from pyro_vae.data.rows import Rows

# First bytes of a Parquet file.
PARQUET_START = b"PAR1"
# What may stand between two cells of a line of text.
_DELIMITERS = ",\t;|"
# Words for a missing cell, as pandas knows them.
_MISSING = {"", "NA", "N/A", "n/a", "NaN", "nan", "-nan", "-NaN", "NULL", "null", "<NA>", "None"}


class Layout(NamedTuple):
    """Layout of a table of text.

    Arguments:
        delimiter: what stands between two cells; None for spaces.
        header: the names of the columns; None if the file has none.
        width: the number of columns.
    """

    delimiter: str | None
    header: tuple[str, ...] | None
    width: int


class TableFile(FileSource):
    """Table in a `.csv`, `.tsv` or `.parquet` file: a line for each row, with a header.

    Columns of numbers are x. An empty cell is missing, for a VAE made with `missing="nan"`. A
    column of strings becomes a number, 0 or 1, for each of its categories. A first column
    without a name that numbers the rows is left out.

    Strings and Parquet need pandas, as `pip install 'pyro_vae[table]'` installs it.

    Arguments:
        path: the file.
        label: the column of labels, whole numbers from 0 or strings; empty for none.
        context: the columns of the context y; a column of strings becomes one-hot.
        ignored: the columns to leave out.
        test_fraction: the share of rows for the test.
        seed: names the random stream that chooses these rows.
        max_level: the highest possible level; inferred as in `ArrayFile` when omitted.

    Raises:
        ValueError: if a column has two roles, or `max_level` is not above 0.
    """

    kind = "a .csv, .tsv or .parquet file"

    def __init__(
        self,
        path: str,
        label: str = "",
        context: Sequence[str] = (),
        ignored: Sequence[str] = (),
        test_fraction: float = 0.2,
        seed: int = 0,
        max_level: float | None = None,
    ) -> None:
        super().__init__(path, test_fraction, seed, max_level)
        self.label = label or None
        self.context = list(as_roles(label, context, ignored).context)
        self.ignored = list(as_roles(label, context, ignored).ignored)

    @property
    def roles(self) -> Roles:
        """Columns that are no part of x."""
        return as_roles(self.label, self.context, self.ignored)

    def rows(self, known: Names | None = None) -> Rows:
        with self.reading():
            is_parquet = start_of(self.path).startswith(PARQUET_START)
            table = self._parquet() if is_parquet else self._text()
        rows = rows_of_table(_without_index(table), self.roles, self.path, known)
        check_observed(rows)
        return rows

    def _text(self) -> Table:
        layout = layout_of(self.path)
        numbers = _numbers(self.path, layout)
        names = layout.header or tuple(f"column {number + 1}" for number in range(layout.width))
        if numbers is not None:
            return dict(zip(names, numbers.T, strict=True))
        pandas = _pandas("a column of words")
        frame = pandas.read_csv(
            self.path,
            sep=layout.delimiter or r"\s+",
            header=None if layout.header is None else 0,
            names=names,
            index_col=False,
            skipinitialspace=True,
            encoding="utf-8-sig",
            low_memory=False,
        )
        return columns_of_frame(frame)

    def _parquet(self) -> Table:
        pandas = _pandas("a Parquet file")
        try:
            frame = pandas.read_parquet(self.path)
        except ImportError:
            raise ValueError("it needs pyarrow, which is absent: pip install pyarrow") from None
        _check_header([str(name) for name in frame.columns])
        frame.columns = frame.columns.map(str)
        return columns_of_frame(frame)


def layout_of(path: str) -> Layout:
    """Return the layout of a table of text.

    Raises:
        ValueError: if it is no text, or empty, or its header names two columns alike.
    """
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        try:
            lines = list(itertools.islice((line for line in file if line.strip()), 2))
        except UnicodeDecodeError:
            raise ValueError("it is no text in UTF-8: save it as CSV in UTF-8") from None
    if not lines:
        raise ValueError("it is empty")
    if "\0" in "".join(lines):
        raise ValueError("it is no text: save it as CSV")
    delimiter = _delimiter(lines)
    first = _cells(lines[0], delimiter)
    is_row = all(_is_number(cell) or cell in _MISSING for cell in first)
    is_header = not is_row or _counts_up(first)
    if not is_header:
        return Layout(delimiter, None, len(first))
    if len(lines) < 2:
        raise ValueError("it has a header and no rows")
    _check_header(first)
    return Layout(delimiter, tuple(first), len(first))


def _counts_up(cells: Sequence[str]) -> bool:
    """Return True for 0, 1, 2, …, which pandas writes as the names of columns without names."""
    names = cells if cells[0] else cells[1:]
    return len(names) > 1 and list(names) == [str(number) for number in range(len(names))]


def _delimiter(lines: Sequence[str]) -> str | None:
    """Return what stands between two cells; None for spaces, in lines that end with numbers."""
    counts = {delimiter: lines[0].count(delimiter) for delimiter in _DELIMITERS}
    best = max(counts, key=lambda delimiter: counts[delimiter])
    if counts[best]:
        return best
    return None if all(map(_is_number, lines[-1].split())) else ","


def _cells(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]


def _check_header(names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"its header has {repeated[0]!r} twice")


def _numbers(path: str, layout: Layout) -> np.ndarray | None:
    """Return a table of nothing but numbers and missing cells, or None if it holds words."""
    options: dict[str, Any] = {
        "delimiter": layout.delimiter,
        "skiprows": 0 if layout.header is None else 1,
        "ndmin": 2,
        "encoding": "utf-8-sig",
        "comments": None,
        "quotechar": '"',
    }
    for converters in (None, _cell):  # the second is slower, and knows missing cells
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of a file without rows
                table = np.loadtxt(path, converters=converters, **options)
        except ValueError as error:
            if "number of columns changed" in str(error):
                raise ValueError(str(error).partition(";")[0]) from None
            continue
        if table.shape[1] != layout.width:
            raise ValueError(f"it has {layout.width} names for {table.shape[1]} columns")
        return table
    return None


def _cell(cell: str) -> float:
    return float("nan") if cell.strip() in _MISSING else float(cell)


def _pandas(purpose: str) -> Any:
    try:
        import pandas
    except ImportError:
        raise needed("pandas", "table", purpose) from None
    return pandas


def columns_of_frame(frame: Any, names: Collection[str] | None = None) -> Table:
    """Return columns of a table of pandas: numbers, or strings with None for missing cells.

    Arguments:
        frame: the table.
        names: the columns to convert, if it has them; the others stay empty. None for all.

    Raises:
        ValueError: if one holds dates, or other objects than numbers and strings.
    """
    columns = {}
    for name in map(str, frame.columns):
        is_asked = names is None or name in names
        columns[name] = _column(frame[name], name) if is_asked else np.empty(0)
    return columns


def _column(series: Any, name: str) -> np.ndarray:
    kind = getattr(series.dtype, "kind", "O")
    if kind in "biuf":
        is_own = isinstance(series.dtype, np.dtype)
        return series.to_numpy() if is_own else series.to_numpy(dtype=float, na_value=np.nan)
    if kind in "mM":
        raise ValueError(f"it has dates in {name!r}: turn them into numbers")
    cells = series.astype(object).where(series.notna(), None).to_numpy()
    for cell in cells:
        if not isinstance(cell, str | bool | int | float | None):
            kind = type(cell).__name__
            raise ValueError(f"it has a {kind} in {name!r}, which is no number and no word")
    return cells


def _without_index(table: Table) -> Table:
    """Return a table without a first column that has no name and numbers the rows."""
    name, *others = table
    if name in ("", "Unnamed: 0", "__index_level_0__") and others:
        column = table[name]
        if column.dtype.kind in "iuf" and np.array_equal(column, np.arange(len(column))):
            return {other: table[other] for other in others}
    return table


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
