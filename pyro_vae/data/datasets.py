"""Data sets by name: those of scikit-learn and torchvision, and unit vectors."""

import os
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from pyro_vae.data.rows import Rows
from pyro_vae.data.sources import Source
from pyro_vae.data.transforms import Identity
from pyro_vae.support.checks import one_line, whole


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


def data_folder() -> Path:
    """Return the folder `$PYRO_VAE_DATA`, or one in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("PYRO_VAE_DATA") or cache / "pyro_vae")
