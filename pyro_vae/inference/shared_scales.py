"""Scales that all sample statements of a program share: together they are the rows' weight."""

from typing import Any

from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.scale_messenger import ScaleMessenger
from torch import Tensor


class SharedScales(Messenger):
    """Finds the handlers `poutine.scale` that cover every sample statement of a program.

    A handler may stand around the plates or inside them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shared: list[ScaleMessenger] | None = None

    def of_rows(self, row_dims: set[int | None]) -> list[float | Tensor]:
        """Return the scales of these handlers, except those that vary inside a row."""
        scales = [handler.scale for handler in self.shared or []]
        return [scale for scale in scales if _varies_only_along(row_dims, scale)]

    def _pyro_sample(self, message: Any) -> None:
        if poutine.util.site_is_subsample(message):
            return
        handlers = [handler for handler in _PYRO_STACK if isinstance(handler, ScaleMessenger)]
        if self.shared is None:
            self.shared = handlers
        present = {id(handler) for handler in handlers}
        self.shared = [handler for handler in self.shared if id(handler) in present]


def _varies_only_along(dims: set[int | None], scale: float | Tensor) -> bool:
    shape = scale.shape if isinstance(scale, Tensor) else ()
    return all(size == 1 or index - len(shape) in dims for index, size in enumerate(shape))
