"""Results by row as files: `.npy`, `.npz` or `.csv`."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pyro_vae.runs import write_atomically

SUFFIXES = (".npy", ".npz", ".csv")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], columns: Sequence[str]) -> None:
    """Write results of rows.

    A `.npz` file holds all arrays, a `.npy` file the first one, and a `.csv` file those with at
    most two axes.

    Arguments:
        path: the file; its ending decides the kind.
        arrays: the results, by name; the first axis of those in a table is that of the rows.
        columns: the names of the columns of the first array.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        text = _table(arrays, columns)
        write_atomically(path, lambda file: file.write(text.encode()))
    elif path.suffix == ".npz":
        write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))
    else:
        first = next(iter(arrays.values()))
        write_atomically(path, lambda file: np.save(file, first))


def _table(arrays: Mapping[str, np.ndarray], columns: Sequence[str]) -> str:
    header = ["row"]
    blocks = []
    for number, (name, array) in enumerate(arrays.items()):
        if array.ndim > 2:
            continue
        block = array.reshape(len(array), -1)
        names = columns if number == 0 else [f"{name}_{place}" for place in range(block.shape[1])]
        header += [name] if array.ndim == 1 else names
        blocks.append(block)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    for number, row in enumerate(np.concatenate(blocks, axis=1).tolist()):
        writer.writerow([number, *row])
    return text.getvalue()
