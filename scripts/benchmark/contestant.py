"""The role of a contestant: one way to do a piece of work, block after block, in a process of its own."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

from benchmark.setting import Setting

Pause: TypeAlias = Callable[[], None]


class Contestant(ABC):
    """One way to do a piece of work: an epoch of training, some steps, an evaluation.

    A subclass loads its data and builds its model when it is made, and defines `run`; and `facts` where there is more to
    say of it than how long it took.

    Arguments:
        setting: what it has in common with the others.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @abstractmethod
    def run(self, pause: Pause) -> None:
        """Do the work over and over; `pause`, called before the first block and after each, returns for another one."""

    def facts(self) -> dict[str, Any]:
        """What there is to know besides seconds, as JSON takes it: the test loss, in nats per row, and the like."""
        return {}
