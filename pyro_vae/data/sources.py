"""Data sets by name: the ones that ship with a dependency, torchvision's, and the user's own arrays."""

import os
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pyro_vae.data.missing import filled
from pyro_vae.data.rows import Rows
from pyro_vae.data.transforms import Identity, Transform
from pyro_vae.support.checks import check_max_level, one_line
from pyro_vae.support.streams import stream_seed


class Splits(NamedTuple):
    """The rows to train on, to stop or choose by (if any), and to report on."""

    train: Rows
    validation: Rows | None
    test: Rows


class Source(ABC):
    """Where data come from.

    A subclass defines `read`. A setting that names a file is called `path`: run folders allow no other file names.

    Attributes:
        max_level: the highest level that a file of further rows is read with; None to infer it.
        channels_last: which axis of these are the channels, as `Rows` takes it.
    """

    max_level: float | None = None
    channels_last: bool | None = None

    @abstractmethod
    def read(self) -> tuple[Rows, Rows]:
        """The training rows and the test rows, as they are stored."""


class OneHot(Source):
    """The unit vectors of a small space, each the same number of times; the test rows are the same vectors.

    Arguments:
        num_classes: the number of unit vectors, and their size.
        rows_per_class: how often each is there.
    """

    def __init__(self, num_classes: int = 4, rows_per_class: int = 500) -> None:
        self.num_classes, self.rows_per_class = num_classes, rows_per_class

    def read(self) -> tuple[Rows, Rows]:
        labels = torch.arange(self.num_classes).repeat_interleave(self.rows_per_class)
        rows = Rows(torch.eye(self.num_classes, dtype=torch.uint8)[labels], Identity(), 1.0, labels)
        return rows, rows


class Digits(Source):
    """scikit-learn's 1,797 handwritten digits of 8 × 8 pixels with levels 0 … 16; a stratified 297 are the test rows.

    References:
        Optical recognition of handwritten digits, Alpaydin and Kaynak, 1998.
    """

    def read(self) -> tuple[Rows, Rows]:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        train, test = train_test_split(np.arange(len(labels)), test_size=297, stratify=labels, random_state=0)
        rows = Rows(
            torch.from_numpy(images.astype(np.uint8)).reshape(-1, 1, 8, 8), Identity(), 16.0, torch.from_numpy(labels)
        )
        return rows.take(torch.from_numpy(train)), rows.take(torch.from_numpy(test))


# The files of such a data set, in the layout in which torchvision reads them.
_IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class TorchvisionImages(Source):
    """One of torchvision's data sets of 28 × 28 grey images, 60,000 to train and 10,000 to test.

    The files lie under `$PYRO_VAE_DATA`, or in a cache folder of the user's; torchvision downloads them when absent.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of torchvision's class, and of the folder."""

    def read(self) -> tuple[Rows, Rows]:
        return self._read(train=True), self._read(train=False)

    def _read(self, train: bool) -> Rows:
        from torchvision import datasets

        raw = data_folder() / self.name / "raw"
        made = [folder for folder in (raw, raw.parent, data_folder()) if not folder.exists()]
        try:
            images = getattr(datasets, self.name)(data_folder(), train=train, download=True)
            return Rows(images.data.unsqueeze(1), Identity(), 255.0, images.targets)
        except Exception as error:
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()  # a failed download leaves no trace; a folder that holds anything stays
            state = (
                "are truncated or of another format: replace them"
                if all((raw / name).is_file() for name in _IDX_FILES)
                else "are absent and cannot be downloaded"
            )
            raise ValueError(
                f"The {self.name} files {state}; {', '.join(_IDX_FILES)} "
                f"belong in {raw} (another place: set PYRO_VAE_DATA): {one_line(error)}"
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
        Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms, Xiao et al., 2017.
    """

    name = "FashionMNIST"


class KMNIST(TorchvisionImages):
    """Handwritten Japanese characters.

    References:
        Deep learning for classical Japanese literature, Clanuwat et al., 2018.
    """

    name = "KMNIST"


class ArrayFile(Source):
    """The user's own array in a `.npy` file, or in a `.npz` file under the name x (with labels under the name y, if any).

    Labels are a whole number for each row, or a vector of real numbers. An entry of x that is NaN is missing, for a VAE
    made with `missing="nan"`.

    Arguments:
        path: the file; the array has the shape (rows, ...).
        test_fraction: the share of rows that are set apart for the test.
        seed: the draw of those rows.
        max_level: the highest level there can be, such as 255 for 8-bit levels that are stored as real
            numbers. When omitted it is 255 for uint8 and 65,535 for uint16, the highest number there is
            for other whole numbers, and 1 for real numbers and booleans.
        channels_last: true for images (rows, H, W, C), false for rows that stay as they are; needed
            where the shape leaves it open.

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
        self.path = path
        self.test_fraction, self.seed = test_fraction, seed
        self.max_level = max_level
        self.channels_last = channels_last
        if max_level is not None:
            check_max_level(max_level)

    def read(self) -> tuple[Rows, Rows]:
        rows = read_array(self.path, channels_last=self.channels_last)
        return split(limited(rows, self.max_level), self.test_fraction, self.seed, "test_fraction")


def data_folder() -> Path:
    """`$PYRO_VAE_DATA`, or the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("PYRO_VAE_DATA") or cache / "pyro_vae")


def read_array(path: str, max_level: float | None = None, channels_last: bool | None = None) -> Rows:
    """All rows of a `.npy` or `.npz` file, with levels as they are.

    Arguments:
        path: the file.
        max_level: the highest level there can be, which the transforms that scale by it hold the rows to;
            by the dtype when omitted, as `ArrayFile` says.
        channels_last: as `Rows` takes it.

    Arguments:
        path: the file.
        max_level: the highest level there can be; by the dtype of the array when omitted.

    Raises:
        ValueError: no such file, another format, no array `x`, or rows that `Rows` refuses.
    """
    x, labels = _read_file(path)
    if x.dtype.kind not in "buif":
        raise ValueError(f"'path' must hold an array of real numbers, got {x.dtype} in {path}.")
    if labels is not None and not _are_labels(labels, x):
        raise ValueError(
            f"'path' must hold a whole number y for each row of x, or a vector of real numbers, got {labels.dtype} of the "
            f"shape {labels.shape} beside x of the shape {x.shape} in {path}."
        )
    rows = Rows(x, Identity(), max_level, labels, channels_last=channels_last)
    if rows.has_missing and rows.levels.isnan().all():
        raise ValueError(f"'data' must be finite, got NaN or infinity in {len(rows)} of {len(rows)} rows.")
    return rows


def _read_file(path: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The arrays x and y of a file; y is None where there is none."""
    try:
        with Path(path).open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"x": loaded}
    except Exception as error:
        raise ValueError(f"'path' must be a .npy or .npz file of numbers, got {path}: {one_line(error)}") from error
    if "x" not in arrays:
        raise ValueError(f"'path' must hold an array named x, got {', '.join(arrays) or 'none'} in {path}.")
    return arrays["x"], arrays.get("y")


def limited(rows: Rows, max_level: float | None) -> Rows:
    """The rows with another highest level; None leaves it.

    Raises:
        ValueError: if a level exceeds it.
    """
    if max_level is None:
        return rows
    levels = filled(rows.levels, 0.0) if rows.has_missing else rows.levels
    highest = levels.max().item()
    if highest > max_level:
        raise ValueError(f"'max_level' must be at least the highest level of the data, {highest:g}, got {max_level:g}.")
    return replace(rows, max_level=max_level)


def _are_labels(labels: np.ndarray, x: np.ndarray) -> bool:
    kinds = {1: "bui", 2: "buif"}.get(labels.ndim, "")
    return labels.shape[:1] == x.shape[:1] and labels.dtype.kind in kinds


def split(rows: Rows, fraction: float, seed: int, name: str) -> tuple[Rows, Rows]:
    """The rows in two parts at random, the second with this fraction of them; `name` is the argument an error speaks of."""
    second = round(len(rows) * fraction)
    if not 0 < second < len(rows):
        raise ValueError(f"'{name}' must leave rows on both sides of a split of {len(rows)}, got {fraction}.")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(stream_seed(seed)))
    return rows.take(order[second:]), rows.take(order[:second])


def load_splits(
    source: Source,
    transform: Transform,
    validation_fraction: float = 0.0,
    seed: int = 0,
    max_level: float | None = None,
) -> Splits:
    """Read a source, set validation rows apart from the training rows, and give every part its transform.

    Arguments:
        source: where the data come from.
        transform: makes x from the stored levels.
        validation_fraction: the share of the training rows to validate on; 0 for none.
        seed: the draw of those rows.
        max_level: the highest level there can be; what the source says when omitted.

    Raises:
        ValueError: unusable data, a level above `max_level`, or a fraction that leaves a part empty.
    """
    train, test = (limited(rows, max_level) for rows in source.read())
    return split_rows(train, test, transform, validation_fraction, seed)


def split_rows(train: Rows, test: Rows, transform: Transform, validation_fraction: float, seed: int) -> Splits:
    """Return the rows that a source has read as `load_splits` does."""
    train.check_varied()
    validation = None
    if validation_fraction != 0:
        train, validation = split(train, validation_fraction, seed, "validation_fraction")
    held_out = None if validation is None else transformed(validation, transform, 1)
    return Splits(transformed(train, transform, 0), held_out, transformed(test, transform, 2))


def transformed(rows: Rows, transform: Transform, part: int) -> Rows:
    """The rows with a transform; `part` is 0 for training, 1 for validation and 2 for test rows."""
    return replace(rows, transform=transform, part=part)
