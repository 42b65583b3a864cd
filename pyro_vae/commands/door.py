"""Door of every command: Ctrl-C is one line, also during the imports."""

import os
import signal
from collections.abc import Callable
from typing import Any, NoReturn


def watch() -> None:
    """End the process by one line at Ctrl-C, until `run` begins. Call it before long imports."""
    # A shell that starts a command in the background makes it ignore the signal.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a command as `pyro_vae.runs.run` does; Ctrl-C raises `KeyboardInterrupt` in it again."""
    from pyro_vae import runs

    if signal.getsignal(signal.SIGINT) is _interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    runs.run(main)


def _interrupted(*_: Any) -> NoReturn:
    """End the process: nothing is done yet, and an error inside an import is not always passed on.

    The exit code is 128 + SIGINT, by convention.
    """
    os.write(2, b"Interrupted.\n")
    os._exit(130)
