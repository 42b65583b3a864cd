"""Progress bars: in the notebook, in a terminal, or as lines of a log file."""

import sys
import warnings

with warnings.catch_warnings():
    # Without ipywidgets a notebook gets the bar of a terminal, which is just as good.
    warnings.filterwarnings("ignore", message="IProgress not found")
    from tqdm.auto import tqdm

__all__ = ["progress_bar", "tqdm"]

# Seconds between two states of a bar that is drawn over, and of one in a file that keeps them all.
_LIVE = 0.5
_LOGGED = 30.0


def progress_bar(total: int, unit: str, is_shown: bool, initial: int = 0) -> tqdm:
    """Return a progress bar that appears with its first step.

    Arguments:
        total: the number at the end.
        unit: the things that are counted, in words.
        is_shown: False returns a bar that shows nothing.
        initial: the number at the start, such as that of a resumed run.
    """
    is_live = sys.stderr.isatty() or "ipykernel.zmqshell" in sys.modules
    return tqdm(
        total=total,
        initial=initial,
        unit=f" {unit}",
        unit_scale=True,
        disable=not is_shown,
        mininterval=_LIVE if is_live else _LOGGED,
        delay=1e-6,  # no bar before the first step has succeeded
    )
