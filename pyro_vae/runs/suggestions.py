"""Suggest settings for a name that is none."""

import difflib
import math
from collections.abc import Iterable

# Names that are less similar are not what was meant.
_CUTOFF = 0.8
# Shorter names are the beginning of a setting by chance.
_PREFIX = 4
# More settings than this are no help.
_MOST = 3


def suggestion(name: str, options: Iterable[str]) -> str:
    """Return `"; the nearest is …"` with the options that a name may stand for, or nothing.

    An option is named by its whole path or by its last parts, so that `--lr` may stand for
    `--training.optimizer.lr`.

    Arguments:
        name: the name, with its dashes.
        options: the known options, with theirs.
    """
    wanted = _plain(name)
    if not wanted:
        return ""
    ratios = {option: _likeness(wanted, option) for option in options if option.startswith("--")}
    best = max(ratios.values(), default=0.0)
    if best < _CUTOFF:
        return ""
    found = sorted(option for option, ratio in ratios.items() if ratio == best)
    if len(found) > _MOST:
        return ""
    quoted = " or ".join(f"'{option}'" for option in found)
    return f"; the nearest is {quoted}"


def _likeness(wanted: str, option: str) -> float:
    """Return the likeness, from 0 to 1, of a name and the path of an option or its last parts."""
    parts = option.lstrip("-").split(".")
    endings = [_plain(".".join(parts[start:])) for start in range(len(parts))]
    ratios = [_ratio(wanted, ending) for ending in endings]
    last = wanted.rpartition(".")[2]
    if last == endings[-1]:  # as --training.lr
        ratios.append(0.99)
    if len(wanted) >= _PREFIX and endings[-1].startswith(wanted):  # as --optim
        ratios.append(0.9)
    return max(ratios)


def _ratio(wanted: str, ending: str) -> float:
    """Return the likeness of two names; in the group that was meant, less of it is enough."""
    group, _, last = wanted.rpartition(".")
    other_group, _, other_last = ending.rpartition(".")
    if group and group == other_group:
        return math.sqrt(difflib.SequenceMatcher(None, last, other_last).ratio())
    return difflib.SequenceMatcher(None, wanted, ending).ratio()


def _plain(name: str) -> str:
    return name.lstrip("-").lower().replace("-", "_")
