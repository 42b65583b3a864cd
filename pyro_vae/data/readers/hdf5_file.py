"""Arrays in HDF5 files."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyro_vae.data.names import Names
from pyro_vae.data.readers.columns import Table, as_roles, labels_and_contexts
from pyro_vae.data.readers.files import FileSource, needed
from pyro_vae.data.readers.pairs import rows_of_pair
from pyro_vae.data.rows import Rows
from pyro_vae.support.checks import nearest

# First bytes of an HDF5 file.
HDF5_START = b"\x89HDF"


class HDF5File(FileSource):
    """Array in an HDF5 file, under its name there.

    It needs h5py, as `pip install 'pyro_vae[hdf5]'` installs it.

    Arguments:
        path: the file.
        dataset: the name of the array x in the file, such as train/images; empty for the only one
            that has rows of numbers and is not named below.
        label: the name of the array of labels, whole numbers from 0 or strings; empty for none.
        context: the names of arrays with a number or a string for each row, the context y.
        test_fraction: the share of rows for the test.
        seed: names the random stream that chooses these rows.
        max_level: the highest possible level; inferred as in `ArrayFile` when omitted.
        channels_last: true for images (rows, H, W, C), false for rows that stay as they are; needed
            if the shape is ambiguous.

    Raises:
        ValueError: if an array has two roles, or `max_level` is not above 0.
    """

    kind = "an HDF5 file"

    def __init__(
        self,
        path: str,
        dataset: str = "",
        label: str = "",
        context: Sequence[str] = (),
        test_fraction: float = 0.2,
        seed: int = 0,
        max_level: float | None = None,
        channels_last: bool | None = None,
    ) -> None:
        super().__init__(path, test_fraction, seed, max_level)
        self.channels_last = channels_last
        self.dataset = dataset or None
        self.label = label or None
        self.context = list(as_roles(label, context, ()).context)

    def rows(self, known: Names | None = None) -> Rows:
        with self.reading():
            x, columns = self._arrays(known is None)
        roles = as_roles(self.label, self.context, ())
        given = labels_and_contexts(columns, roles, self.path, known)
        rows = rows_of_pair(x, None, self.path, self.channels_last)
        return Rows(rows.levels, rows.transform, rows.max_level, **given)

    def _arrays(self, is_new: bool) -> tuple[np.ndarray, Table]:
        """Return x, and the columns that have a role."""
        try:
            import h5py
        except ImportError:
            raise needed("h5py", "hdf5", "an HDF5 file") from None
        with h5py.File(self.path, "r") as file:
            arrays = _datasets(file)
            columns = {}
            for name in self.context if self.label is None else [self.label, *self.context]:
                is_optional = name == self.label and not is_new
                if name in arrays or not is_optional:
                    columns[name] = _column(_found(arrays, name))
            x = _found(arrays, self.dataset) if self.dataset else self._only(arrays)
            return x[()], columns

    def _only(self, arrays: dict[str, Any]) -> Any:
        """Return the only array that may be x."""
        others = {self.label, *self.context}
        names = [
            name
            for name, array in arrays.items()
            if name not in others and array.ndim > 1 and array.dtype.kind in "biuf"
        ]
        if len(names) != 1:
            received = f"{len(names)} arrays ({', '.join(names[:5])})" if names else "no array"
            raise ValueError(f"it has {received} with rows of numbers: name one by 'dataset'")
        return arrays[names[0]]


def _datasets(file: Any) -> dict[str, Any]:
    """Return the arrays of a file by their names, those in groups included."""
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if hasattr(item, "dtype"):
            found[name] = item

    file.visititems(visit)
    return found


def _found(arrays: dict[str, Any], name: str) -> Any:
    """Return the array of a name; a slash at its beginning counts for nothing."""
    plain = name.strip("/")
    if plain not in arrays:
        known = ", ".join(list(arrays)[:5]) or "none"
        raise ValueError(f"it has no array {name}, but {known}{nearest(plain, arrays)}")
    return arrays[plain]


def _column(array: Any) -> np.ndarray:
    """Return one number or one string for each row.

    Raises:
        ValueError: if it has another shape.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        return _column(array[:, 0])
    if array.ndim != 1:
        raise ValueError(f"it has {array.name} of the shape {array.shape}, in place of one axis")
    values = array[()] if hasattr(array, "asstr") else array
    if values.dtype.kind in "OS":
        texts = [cell.decode() if isinstance(cell, bytes) else str(cell) for cell in values]
        return np.array(texts, dtype=object)
    return values
