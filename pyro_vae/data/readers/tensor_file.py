"""Tensors in files of torch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_vae.data.names import Names
from pyro_vae.data.readers.files import start_of
from pyro_vae.data.readers.pairs import PairFile, rows_of_pair
from pyro_vae.data.rows import Rows
from pyro_vae.support.checks import described, nearest


class TensorFile(PairFile):
    """Tensor that `torch.save` wrote: x alone, a pair (x, y), or a dict with x and perhaps y.

    The labels y are those of `ArrayFile`. The file is read by `torch.load(weights_only=True)`, so
    no code in it is run.

    Arguments:
        path: the file; x has the shape (rows, ...).
        test_fraction: the share of rows for the test.
        seed: names the random stream that chooses these rows.
        max_level: the highest possible level; inferred as in `ArrayFile` when omitted.
        channels_last: true for images (rows, H, W, C), false for rows that stay as they are; needed
            if the shape is ambiguous.

    Raises:
        ValueError: if `max_level` is not above 0.
    """

    kind = "a file of tensors that torch.save wrote"

    def rows(self, known: Names | None = None) -> Rows:
        with self.reading():
            x, labels = self._pair(self._loaded())
        return rows_of_pair(x, labels, self.path, self.channels_last)

    def _loaded(self) -> Any:
        if not start_of(self.path):
            raise ValueError("it is empty")
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, MemoryError):
            raise
        except Exception as error:
            raise ValueError(
                "it is damaged, or holds objects other than tensors, whose code is not run: write "
                "torch.save({'x': x, 'y': y}, path)"
            ) from error

    def _pair(self, loaded: Any) -> tuple[Tensor, Tensor | None]:
        """Return x and y of what a file holds; y is None if it has none."""
        if isinstance(loaded, Mapping):
            if "x" not in loaded:
                names = [str(name) for name in loaded]
                received = ", ".join(names[:5]) or "nothing"
                raise ValueError(f"it holds {received}, and no x{nearest('x', names)}")
            loaded = (loaded["x"], loaded.get("y"))
        parts = loaded if isinstance(loaded, tuple | list) and len(loaded) == 2 else (loaded, None)
        for part in parts:
            if not isinstance(part, Tensor | None):
                raise ValueError(f"it holds {described(part)} in place of tensors x and y")
        x, y = parts
        if x is None:
            raise ValueError("it holds None in place of x")
        return x, y
