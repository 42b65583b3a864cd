"""Arrays in files of numpy."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyro_vae.data.names import Names
from pyro_vae.data.readers.pairs import PairFile, rows_of_pair
from pyro_vae.data.rows import Rows
from pyro_vae.support.checks import nearest

# First bytes of a .npy and of a .npz file.
NPY_START = b"\x93NUMPY"
ZIP_START = b"PK"
# The arrays that scipy writes for a sparse matrix, among others.
SPARSE_NAMES = {"format", "shape", "data"}
# Arrays that an error names.
_MOST_NAMES = 5


class ArrayFile(PairFile):
    """Array of the user in a `.npy` file, or under the name x in a `.npz` file.

    A `.npz` file may hold labels under the name y: a whole number or a vector of real numbers for
    each row. They are the context of a VAE that takes one; another VAE ignores them. An entry of x
    that is NaN is missing, for a VAE made with `missing="nan"`.

    Arguments:
        path: the file; the array has the shape (rows, ...).
        test_fraction: the share of rows for the test.
        seed: names the random stream that chooses these rows.
        max_level: the highest possible level, such as 255 for 8-bit levels stored as real numbers.
            When omitted it is 255 for uint8, 65,535 for uint16, the highest number present for
            other whole numbers, and 1 for real numbers and booleans.
        channels_last: true for images (rows, H, W, C), false for rows that stay as they are; needed
            if the shape is ambiguous.

    Raises:
        ValueError: if `max_level` is not above 0.
    """

    kind = "a .npy or .npz file of numbers"

    def rows(self, known: Names | None = None) -> Rows:
        with self.reading():
            x, labels, names = _arrays(self.path)
        if x is None:
            raise ValueError(
                f"'path' must hold an array named x, got {_named(names)} in {self.path}"
                f"{_advice(names)}."
            )
        return rows_of_pair(x, labels, self.path, self.channels_last)


def _arrays(path: str) -> tuple[np.ndarray | None, np.ndarray | None, list[str]]:
    """Return the arrays x and y of a file, and the names of all; None for an array it lacks."""
    with Path(path).open("rb") as file:
        _check_start(file.read(len(NPY_START)))
        file.seek(0)
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded, None, []
        names = list(loaded)
        x, y = (loaded[name] if name in names else None for name in ("x", "y"))
        return x, y, names


def _check_start(start: bytes) -> None:
    if not start:
        raise ValueError("it is empty.")
    if start != NPY_START and not start.startswith(ZIP_START):
        raise ValueError("it is of another kind: write its numbers by numpy.save.")


def _named(names: Sequence[str]) -> str:
    if any(name.endswith("data.pkl") for name in names):
        return "a file of torch.save"
    rest = len(names) - _MOST_NAMES
    listed = ", ".join(names[:_MOST_NAMES]) or "none"
    return f"{listed} and {rest} more" if rest > 0 else listed


def _advice(names: Sequence[str]) -> str:
    if set(names) >= SPARSE_NAMES:
        return ": read a sparse matrix of scipy by SparseFile"
    return nearest("x", names)
