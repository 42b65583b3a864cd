"""The role of a contestant: one way to do a piece of work, block after block."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

from benchmark.machinery.setting import Setting

Pause: TypeAlias = Callable[[], None]


class Contestant(ABC):
    """One way to do a piece of work: an epoch of training, some steps, an evaluation.

    A subclass loads its data and builds its model when it is made. It must define `run`, and may
    define `facts`.

    Arguments:
        setting: that of all contestants.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @abstractmethod
    def run(self, pause: Pause) -> None:
        """Do the work without end.

        Arguments:
            pause: called before the first block and after each; it returns if another is wanted.
        """

    def facts(self) -> dict[str, Any]:
        """Return facts besides seconds, for JSON, such as the test loss in nats per row."""
        return {}
