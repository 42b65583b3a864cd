"""Run a script: a user's mistake is one sentence, and output fits every console."""

import codecs
import io
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pyro_vae
from pyro_vae.runs.errors import is_out_of_memory
from pyro_vae.support.checks import one_line

# Exit code of a process that Ctrl-C ended, by convention 128 + SIGINT.
INTERRUPTED = 130
# Exit code after a user's mistake.
_MISTAKE = 2
_PACKAGE = Path(pyro_vae.__file__).parent
# Signs of the texts, for consoles that lack them.
_PLAIN = {"−": "-", "–": "-", "…": "...", "±": "+/-", "×": "x", "‖": "||", "→": "->"}


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a script, and exit with its code; 2 after a user's mistake, and 130 after Ctrl-C.

    Standard error shows a mistake, and each warning, as one sentence. Other errors are faults of
    a program, and keep their traceback.
    """
    _print_on_any_console()
    sys.argv[1:] = map(with_home, sys.argv[1:])
    # torch tells of its search for CUDA wherever a compiler of CUDA is installed without a GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(
            f"warning: {one_line(message)}", file=sys.stderr
        )
        try:
            sys.exit(main() or 0)
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
            sys.exit(INTERRUPTED)
        except BrokenPipeError:  # who read the output has closed it, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except Exception as error:
            sentence = _sentence(error)
            if sentence is None:
                raise
            print(f"error: {sentence}", file=sys.stderr)
            sys.exit(_MISTAKE)


def with_home(argument: str) -> str:
    """Return a word of the command line with the home folder in place of a leading `~`.

    A shell does so for a path alone, and not after `--run=`.
    """
    match = re.fullmatch(r"(-[\w.-]+=)?~(/.*)", argument, re.DOTALL)
    return argument if match is None else f"{match[1] or ''}{Path.home()}{match[2]}"


def _sentence(error: Exception) -> str | None:
    """Return the sentence about a user's mistake; None for a fault of a program."""
    if is_out_of_memory(error):
        return "The memory is too small for these sizes: ask for fewer rows, draws or units."
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename} cannot be read or written: {error.strerror.lower()}."
    if isinstance(error, ValueError | OSError) or _is_raised_here(error):
        return one_line(error)
    return None


def _is_raised_here(error: Exception) -> bool:
    """Return True for a TypeError of a `raise` in this package, which writes a sentence."""
    if not isinstance(error, TypeError):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    is_raised = (last.line or "").startswith("raise ")
    return is_raised and Path(last.filename).is_relative_to(_PACKAGE)


def _print_on_any_console() -> None:
    """Make output never raise: a character that a console lacks is written in plain ones."""
    codecs.register_error("pyro_vae.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="pyro_vae.plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Return plain characters for one that cannot be encoded, and the place after it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    plain = _PLAIN.get(character) or ascii(character)[1:-1]
    return plain, error.start + 1
