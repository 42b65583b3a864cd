"""Failures of other code: their first sentence, and the user's line that led to them."""

import dis
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

from pyro_vae.engine.containers import is_users

# Pyro appends a table of the shapes of all sites to the errors of a program, and torch a list of
# all that a function takes.
_ENDS = ("Trace Shapes:", ", but expected one of:")
# The most characters of a message that are repeated.
_LONGEST = 250


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without a full stop or a colon at its end.

    A line that ends with a colon goes on in the next one, except in the numbers of a tensor. The
    result is the name of the error's class if there is no message.
    """
    message = str(error)
    for end in _ENDS:
        message = message.partition(end)[0]
    lines = message.strip().splitlines() or [type(error).__name__]
    if "TorchScript interpreter" in lines[0]:
        lines = lines[-1:]  # the other lines are a traceback
    if lines[0].endswith(":") and len(lines) > 1 and not lines[1].startswith("tensor("):
        lines[0] += f" {lines[1]}"
    return " ".join(lines[0].split())[:_LONGEST].rstrip(".:")


def users_line(error: BaseException | None = None) -> str:
    """Return the innermost line of the user's code that led here, in brackets.

    Code that was generated has no file: then it is the line that called it. Without any file it is
    the function and the line. The result is empty if only libraries led here.

    Arguments:
        error: the error; without one it is the present place.
    """
    if error is None:
        frames = _stack()
    else:
        frames = [(call.tb_frame, call.tb_lineno) for call in walk_tracebacks(error)][::-1]
    places = [(frame.f_code, line) for frame, line in frames if is_users(_package(frame))]
    for code, line in places:
        if not code.co_filename.startswith("<"):
            return f" ({Path(code.co_filename).name}, line {line})"
    for code, line in places:
        return f" ({code.co_name}, line {line})"
    return ""


def users_level() -> int:
    """Return the `stacklevel` with which the caller's warning names the user's line."""
    packages = [_package(frame) for frame, _ in _stack()]
    return next((level for level, package in enumerate(packages) if is_users(package)), 1)


def is_raised_by(error: BaseException, *packages: str) -> bool:
    """Return True if a `raise` statement of one of these packages raised the error.

    False also for an operation that failed in a line of such a package.
    """
    places = list(walk_tracebacks(error))
    if not places or _package(places[-1].tb_frame) not in packages:
        return False
    last = places[-1]
    return last.tb_frame.f_code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def walk_tracebacks(error: BaseException) -> Iterator[TracebackType]:
    """Yield the calls that an error came through, the innermost last."""
    place = error.__traceback__
    while place is not None:
        yield place
        place = place.tb_next


def _stack() -> list[tuple[FrameType, int]]:
    """Return the frames of the present place, the innermost first."""
    return list(traceback.walk_stack(sys._getframe(1)))


def _package(frame: FrameType) -> str:
    """Return the package that a frame belongs to; code without a module counts as Python's own."""
    module = frame.f_globals.get("__name__") or "builtins"
    return module.partition(".")[0]
