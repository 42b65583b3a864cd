"""Progress bars: in the notebook, in a terminal, or as lines of a log file."""

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

with warnings.catch_warnings():
    # Without ipywidgets a notebook gets the bar of a terminal, which is just as good.
    warnings.filterwarnings("ignore", message="IProgress not found")
    from tqdm.auto import tqdm

__all__ = ["progress_bar", "progress_shown", "tqdm", "tracked"]

T = TypeVar("T")

# Seconds between two states of a bar that is drawn over, and of one in a file that keeps them all.
_LIVE = 0.5
_LOGGED = 30.0
_IS_SHOWN: ContextVar[bool] = ContextVar("is_shown", default=False)


def progress_bar(total: int, unit: str, is_shown: bool, initial: int = 0) -> tqdm:
    """Return a progress bar that appears with its first step.

    Arguments:
        total: the number at the end.
        unit: the things that are counted, in words.
        is_shown: False returns a bar that shows nothing.
        initial: the number at the start, such as that of a resumed run.
    """
    return tqdm(
        total=total,
        initial=initial,
        unit=f" {unit}",
        unit_scale=True,
        disable=not is_shown,
        mininterval=_interval(),
        delay=1e-6,  # no bar before the first step has succeeded
    )


@contextmanager
def progress_shown(is_shown: bool = True) -> Iterator[None]:
    """Show a bar on standard error for each long loop inside the block.

    Arguments:
        is_shown: False to show none, also inside another such block.
    """
    token = _IS_SHOWN.set(is_shown)
    try:
        yield
    finally:
        _IS_SHOWN.reset(token)


def tracked(items: Iterable[T], title: str) -> Iterable[T]:
    """Return the items, behind a bar that disappears at their end inside `progress_shown`.

    Arguments:
        items: the items of a loop.
        title: what the loop does, in a word or two.
    """
    if not _IS_SHOWN.get():
        return items
    return tqdm(items, desc=title, leave=False, mininterval=_interval())


def _interval() -> float:
    """Return the seconds between two states of a bar."""
    is_live = sys.stderr.isatty() or "ipykernel.zmqshell" in sys.modules
    return _LIVE if is_live else _LOGGED
