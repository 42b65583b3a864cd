"""Sparse matrices in files of scipy."""

import numpy as np

from pyro_vae.data.names import Names
from pyro_vae.data.readers.array_file import SPARSE_NAMES, ZIP_START
from pyro_vae.data.readers.files import FileSource, start_of
from pyro_vae.data.readers.pairs import check_observed
from pyro_vae.data.rows import Rows
from pyro_vae.data.transforms import Identity


class SparseFile(FileSource):
    """Sparse matrix that `scipy.sparse.save_npz` wrote, in any of scipy's formats.

    It stays sparse: only a batch is dense.

    Arguments:
        path: the file; the matrix has the shape (rows, columns).
        test_fraction: the share of rows for the test.
        seed: names the random stream that chooses these rows.
        max_level: the highest possible level; inferred as in `ArrayFile` when omitted.

    Raises:
        ValueError: if `max_level` is not above 0.
    """

    kind = "a .npz file of scipy.sparse.save_npz"

    def rows(self, known: Names | None = None) -> Rows:
        from scipy.sparse import load_npz

        with self.reading():
            if not start_of(self.path).startswith(ZIP_START):
                raise ValueError("it is of another kind.")
            with np.load(self.path, allow_pickle=False) as arrays:
                names = set(arrays)
            if not names >= SPARSE_NAMES:
                advice = ": read it by ArrayFile" if "x" in names else ""
                raise ValueError(f"it holds the arrays {', '.join(sorted(names))}{advice}.")
            matrix = load_npz(self.path)
        rows = Rows(matrix, Identity())
        check_observed(rows)
        return rows
