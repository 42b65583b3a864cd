"""Data sets by name: those of scikit-learn and torchvision, and array files of the user."""

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pyro_vae.data.arrays import contents, is_real, observed
from pyro_vae.data.rows import Rows
from pyro_vae.data.storage import distinct
from pyro_vae.data.transforms import Identity, Transform
from pyro_vae.support.checks import (
    check_max_level,
    described,
    instance,
    nearest,
    one_line,
    real,
    whole,
)
from pyro_vae.support.methods_of_users import called, returned, wrong_result
from pyro_vae.support.streams import stream_seed

# First bytes of a .npy and of a .npz file.
_NPY_START = b"\x93NUMPY"
_ZIP_START = b"PK"
# Arrays that an error names.
_MOST_NAMES = 5


class Splits(NamedTuple):
    """Rows for training, for validation (stopping and choosing, if any) and for the test."""

    train: Rows
    validation: Rows | None
    test: Rows


class Source(ABC):
    """Source of data.

    A subclass defines `read`. A setting that names a file must be called `path`, since run folders
    allow no other file names.

    Attributes:
        max_level: the highest level of a file of further rows; None to infer it.
        channels_last: the setting of `Rows` for such a file.
    """

    max_level: float | None = None
    channels_last: bool | None = None

    @abstractmethod
    def read(self) -> tuple[Rows, Rows]:
        """Return the training rows and the test rows, as they are stored."""


class OneHot(Source):
    """Unit vectors of a small space, each equally often, with test rows equal to training rows.

    Arguments:
        num_classes: the number of unit vectors, and their size.
        rows_per_class: the number of rows for each unit vector.
    """

    def __init__(self, num_classes: int = 4, rows_per_class: int = 500) -> None:
        self.num_classes = whole(num_classes, "num_classes")
        self.rows_per_class = whole(rows_per_class, "rows_per_class")

    def read(self) -> tuple[Rows, Rows]:
        labels = torch.arange(self.num_classes).repeat_interleave(self.rows_per_class)
        rows = Rows(torch.eye(self.num_classes, dtype=torch.uint8)[labels], Identity(), 1.0, labels)
        return rows, rows


class Digits(Source):
    """Handwritten digits of scikit-learn: 1,797 images of 8 × 8 pixels with levels 0 … 16.

    The test rows are 297 of them, stratified by label.

    References:
        Optical recognition of handwritten digits, Alpaydin and Kaynak, 1998.
    """

    def read(self) -> tuple[Rows, Rows]:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        train, test = train_test_split(
            np.arange(len(labels)), test_size=297, stratify=labels, random_state=0
        )
        levels = torch.from_numpy(images.astype(np.uint8)).reshape(-1, 1, 8, 8)
        rows = Rows(levels, Identity(), 16.0, torch.from_numpy(labels))
        return rows.take(torch.from_numpy(train)), rows.take(torch.from_numpy(test))


# The files of such a data set, in the format that torchvision reads.
_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class TorchvisionImages(Source):
    """Data set of torchvision with 28 × 28 grey images, 60,000 to train and 10,000 to test.

    The files lie under `$PYRO_VAE_DATA`, or in the user's cache folder. torchvision downloads them
    if they are absent.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of torchvision's class, and of the folder."""

    def read(self) -> tuple[Rows, Rows]:
        return self._read(train=True), self._read(train=False)

    def _read(self, train: bool) -> Rows:
        from torchvision import datasets

        raw = data_folder() / self.name / "raw"
        created = [folder for folder in (raw, raw.parent, data_folder()) if not folder.exists()]
        try:
            images = getattr(datasets, self.name)(data_folder(), train=train, download=True)
            return Rows(images.data.unsqueeze(1), Identity(), 255.0, images.targets)
        except Exception as error:
            for folder in created:  # a failed download leaves no empty folders
                with suppress(OSError):
                    folder.rmdir()
            reason = f": {one_line(error)}" if str(error).strip() else "."
            state = "are absent and cannot be downloaded"
            if all((raw / name).is_file() for name in _IDX_FILES):
                state = "are truncated or of another format: replace them"
            raise ValueError(
                f"The {self.name} files {state}; {', '.join(_IDX_FILES)} "
                f"belong in {raw} (another place: set PYRO_VAE_DATA){reason}"
            ) from error


class MNIST(TorchvisionImages):
    """Handwritten digits.

    References:
        Gradient-based learning applied to document recognition, LeCun et al., 1998.
    """

    name = "MNIST"


class FashionMNIST(TorchvisionImages):
    """Photographs of clothes.

    References:
        Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms, Xiao et
            al., 2017.
    """

    name = "FashionMNIST"


class KMNIST(TorchvisionImages):
    """Handwritten Japanese characters.

    References:
        Deep learning for classical Japanese literature, Clanuwat et al., 2018.
    """

    name = "KMNIST"


class ArrayFile(Source):
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

    def __init__(
        self,
        path: str,
        test_fraction: float = 0.2,
        seed: int = 0,
        max_level: float | None = None,
        channels_last: bool | None = None,
    ) -> None:
        if not isinstance(path, str | PathLike):
            raise ValueError(f"'path' must be the path of a file, got {described(path)}.")
        self.path = path
        self.test_fraction = test_fraction
        self.seed = whole(seed, "seed", least=0)
        self.max_level = max_level
        self.channels_last = channels_last
        if max_level is not None:
            check_max_level(max_level)

    def read(self) -> tuple[Rows, Rows]:
        rows = read_array(self.path, channels_last=self.channels_last)
        return split(limited(rows, self.max_level), self.test_fraction, self.seed, "test_fraction")


def read_source(source: Source) -> tuple[Rows, Rows]:
    """Return the training rows and the test rows of a source.

    Raises:
        ValueError: if its `read` returns something else, or rows of two shapes.
    """
    accepted = "the training rows and the test rows, two Rows"
    parts = called(source, "read")
    if not isinstance(parts, tuple | list) or len(parts) != 2:
        raise wrong_result(source, "read", accepted, described(parts))
    train, test = (returned(rows, Rows, source, "read", accepted) for rows in parts)
    if train.x_shape != test.x_shape:
        received = f"{tuple(train.x_shape)} and {tuple(test.x_shape)}"
        raise wrong_result(source, "read", "training and test rows of one shape", received)
    return train, test


def data_folder() -> Path:
    """Return the folder `$PYRO_VAE_DATA`, or one in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("PYRO_VAE_DATA") or cache / "pyro_vae")


def read_array(
    path: str, max_level: float | None = None, channels_last: bool | None = None
) -> Rows:
    """Return all rows of a `.npy` or `.npz` file, with levels as they are.

    Arguments:
        path: the file.
        max_level: the highest possible level, by which some transforms scale; inferred from the
            dtype when omitted, as in `ArrayFile`.
        channels_last: the setting of `Rows`.

    Raises:
        ValueError: if there is no such file, or it has another format or no array `x`, or `Rows`
            refuses the rows.
    """
    x, labels = _read_file(path)
    if not is_real(x):
        raise ValueError(
            f"'path' must hold an array of real numbers, got {path} with {contents(x)}."
        )
    if labels is not None and not _are_labels(labels, x):
        shapes = f"{labels.dtype} of the shape {labels.shape} for x of the shape {x.shape}"
        raise ValueError(
            "'path' must hold a whole number y for each row of x, or a vector of real numbers, "
            f"got {path} with {shapes if is_real(labels) else contents(labels)}."
        )
    rows = Rows(x, Identity(), max_level, labels, channels_last=channels_last)
    if rows.has_missing and all(bool(rows.levels[block].isnan().all()) for block in rows.blocks()):
        raise ValueError(
            f"'data' must be finite, got NaN or infinity in {len(rows)} of {len(rows)} rows."
        )
    return rows


def _read_file(path: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the arrays x and y of a file; y is None if the file has none."""
    try:
        with Path(path).open("rb") as file:
            _check_start(file.read(len(_NPY_START)))
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, None
            arrays = {name: loaded[name] for name in ("x", "y") if name in loaded}
    except Exception as error:
        raise ValueError(
            f"'path' must be a .npy or .npz file of numbers, got {path}: {_reason(error)}"
        ) from error
    if "x" not in arrays:
        names = list(loaded)
        raise ValueError(
            f"'path' must hold an array named x, got {_named(names)} in {path}"
            f"{nearest('x', names)}."
        )
    return arrays["x"], arrays.get("y")


def _check_start(start: bytes) -> None:
    if not start:
        raise ValueError("it is empty.")
    if start != _NPY_START and not start.startswith(_ZIP_START):
        raise ValueError("it is of another kind: write its numbers by numpy.save.")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}."
    if "pickle" in str(error):
        return "it holds objects of Python."
    return one_line(error)


def _named(names: Sequence[str]) -> str:
    if any(name.endswith("data.pkl") for name in names):
        return "a file of torch.save"
    rest = len(names) - _MOST_NAMES
    listed = ", ".join(names[:_MOST_NAMES]) or "none"
    return f"{listed} and {rest} more" if rest > 0 else listed


def limited(rows: Rows, max_level: float | None) -> Rows:
    """Return the rows with another highest level; None keeps it.

    Raises:
        ValueError: if a level exceeds it.
    """
    if max_level is None:
        return rows
    highest = max(observed(part).max().item() for part in distinct(rows.levels))
    if highest > max_level:
        raise ValueError(
            f"'max_level' must be at least the highest level of the data, {highest:g}, got "
            f"{max_level:g}."
        )
    return replace(rows, max_level=max_level)


def _are_labels(labels: np.ndarray, x: np.ndarray) -> bool:
    kinds = {1: "bui", 2: "buif"}.get(labels.ndim, "")
    return labels.shape[:1] == x.shape[:1] and labels.dtype.kind in kinds


def warn_of_unused_labels(source: Source, rows: Rows, context_dim: int) -> None:
    """Warn of labels in a file of the user that no part of a VAE takes as a context.

    Arguments:
        source: the source of the rows.
        rows: the rows.
        context_dim: the size of the context that the VAE takes.
    """
    if isinstance(source, ArrayFile) and rows.labels is not None and not context_dim:
        warnings.warn(
            f"'y' in {source.path} is not used, since no network takes a context: set "
            "'context_dim' of the networks to use it.",
            stacklevel=2,
        )


def split(rows: Rows, fraction: float, seed: int, name: str) -> tuple[Rows, Rows]:
    """Split rows at random into two parts.

    Arguments:
        rows: the rows.
        fraction: the share of the second part.
        seed: names the random stream.
        name: the argument that an error names.

    Raises:
        ValueError: if a part would be empty.
    """
    if len(rows) == 1:
        raise ValueError(f"'data' must have at least 2 rows for a split by '{name}', got 1.")
    share = real(fraction, name)
    if not 0 < share < 1:
        raise ValueError(f"'{name}' must be a share of the rows between 0 and 1, got {fraction}.")
    second = round(len(rows) * share)
    if not 0 < second < len(rows):
        raise ValueError(
            f"'{name}' must leave rows on both sides of a split of {len(rows)}, got {fraction}."
        )
    generator = torch.Generator().manual_seed(stream_seed(seed))
    order = torch.randperm(len(rows), generator=generator)
    return rows.take(order[second:]), rows.take(order[:second])


def load_splits(
    source: Source,
    transform: Transform,
    validation_fraction: float = 0.0,
    seed: int = 0,
    max_level: float | None = None,
) -> Splits:
    """Read a source, split validation rows from the training rows, and add the transform.

    Arguments:
        source: the source of the data.
        transform: makes x from the stored levels.
        validation_fraction: the share of the training rows for validation; 0 for none.
        seed: names the random stream that chooses these rows.
        max_level: the highest possible level; that of the source when omitted.

    Raises:
        ValueError: if the data cannot be used, a level exceeds `max_level`, or a part would be
            empty.
    """
    instance(source, Source, "source", "Digits() or ArrayFile(path)")
    instance(transform, Transform, "transform", "Identity()")
    train, test = (limited(rows, max_level) for rows in read_source(source))
    return split_rows(train, test, transform, validation_fraction, seed)


def split_rows(
    train: Rows, test: Rows, transform: Transform, validation_fraction: float, seed: int
) -> Splits:
    """Return rows that are already read as `load_splits` does.

    Raises:
        ValueError: if all training rows are equal, or a part would be empty.
    """
    train.check_varied()
    validation = None
    if validation_fraction != 0:
        train, validation = split(train, validation_fraction, seed, "validation_fraction")
    held_out = None if validation is None else transformed(validation, transform, 1)
    return Splits(transformed(train, transform, 0), held_out, transformed(test, transform, 2))


def transformed(rows: Rows, transform: Transform, part: int) -> Rows:
    """Return rows with a transform; `part` is 0 for training, 1 for validation, 2 for test rows."""
    return replace(rows, transform=transform, part=part)
