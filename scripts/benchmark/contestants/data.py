"""Binary rows of MNIST as NumPy arrays, for contestants without a loader of their own."""

from pathlib import Path

import numpy as np

from benchmark.machinery.setting import X_SIZE, Setting

# Bytes before the first pixel of an IDX file of images.
_HEADER = 16
# The highest grey level that becomes 0: half of 255.
_THRESHOLD = 127


def train_rows(setting: Setting) -> np.ndarray:
    """Return the training rows, 0 or 1 in uint8, `(N, 784)`."""
    if setting.is_synthetic:
        generator = np.random.default_rng(setting.seed)
        return generator.integers(2, size=(setting.num_rows, X_SIZE), dtype=np.uint8)
    return _read(setting, "train")[: setting.num_rows]


def test_rows(setting: Setting) -> np.ndarray:
    """Return the 10,000 test rows, `(N, 784)`."""
    return _read(setting, "t10k")


def _read(setting: Setting, part: str) -> np.ndarray:
    path = Path(setting.folder) / "MNIST" / "raw" / f"{part}-images-idx3-ubyte"
    levels = np.fromfile(path, dtype=np.uint8)[_HEADER:].reshape(-1, X_SIZE)
    return (levels > _THRESHOLD).astype(np.uint8)
