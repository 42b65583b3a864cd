"""Progress of long loops, shown where a caller asks for it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

_IS_SHOWN: ContextVar[bool] = ContextVar("is_shown", default=False)


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
    from tqdm.auto import tqdm

    return tqdm(items, desc=title, leave=False)
