"""What errors say: one sentence, with the nearest known name."""

import difflib
from collections.abc import Iterable


def one_line(message: object) -> str:
    """A message of another library on one line, or the name of its class when it says nothing."""
    return " ".join(str(message).split()) or type(message).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """`"; the nearest is …"` for the known name most like this one in any case of letters, or nothing."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f"; the nearest is '{by_lower[close[0]]}'" if close else ""
