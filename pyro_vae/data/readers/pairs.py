"""Files that hold an array x, and labels y if there are any."""

from abc import ABC
from typing import Any

import numpy as np
from torch import Tensor

from pyro_vae.data.arrays import as_tensor, contents, is_real
from pyro_vae.data.readers.files import FileSource
from pyro_vae.data.rows import Rows
from pyro_vae.data.transforms import Identity


class PairFile(FileSource, ABC):
    """File that holds an array x, and perhaps labels y, which are the context of a VAE.

    Arguments:
        path: the file; x has the shape (rows, ...).
        test_fraction: the share of rows for the test.
        seed: names the random stream that chooses these rows.
        max_level: the highest possible level; inferred when omitted.
        channels_last: the setting of `Rows`.

    Raises:
        ValueError: if `max_level` is not above 0.
    """

    labels_are_contexts = True

    def __init__(
        self,
        path: str,
        test_fraction: float = 0.2,
        seed: int = 0,
        max_level: float | None = None,
        channels_last: bool | None = None,
    ) -> None:
        super().__init__(path, test_fraction, seed, max_level)
        self.channels_last = channels_last


def rows_of_pair(x: Any, labels: Any, path: str, channels_last: bool | None = None) -> Rows:
    """Return the rows of arrays that a file holds.

    Arguments:
        x: the levels, an array or a tensor.
        labels: a whole number for each row, or a vector; None for none.
        path: the file.
        channels_last: the setting of `Rows`.

    Raises:
        ValueError: if x or the labels are no such numbers, or `Rows` refuses them.
    """
    if isinstance(x, np.ndarray) and not is_real(x):
        raise ValueError(
            f"'path' must hold an array of real numbers, got {path} with {contents(x)}."
        )
    if labels is not None:
        _check_labels(labels, x, path)
    rows = Rows(x, Identity(), labels=labels, channels_last=channels_last)
    check_observed(rows)
    return rows


def check_observed(rows: Rows) -> None:
    """Refuse rows without any observed entry.

    Raises:
        ValueError: if all entries are missing.
    """
    if rows.has_missing and all(bool(rows.levels[block].isnan().all()) for block in rows.blocks()):
        raise ValueError(
            f"'data' must be finite, got NaN or infinity in {len(rows)} of {len(rows)} rows."
        )


def _check_labels(labels: Any, x: Any, path: str) -> None:
    shapes = f"{labels.dtype} of the shape {tuple(labels.shape)} for x of the shape"
    received = f"{shapes} {tuple(x.shape)}"
    is_number = isinstance(labels, Tensor) or is_real(labels)
    if not is_number:
        received = contents(labels)
    if not is_number or not _are_labels(as_tensor(labels), tuple(x.shape)):
        raise ValueError(
            "'path' must hold a whole number y for each row of x, or a vector of real numbers, "
            f"got {path} with {received}."
        )


def _are_labels(labels: Tensor, x_shape: tuple[int, ...]) -> bool:
    is_class = labels.dim() == 1 and not labels.is_floating_point()
    return (is_class or labels.dim() == 2) and tuple(labels.shape[:1]) == x_shape[:1]
