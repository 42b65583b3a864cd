"""A command of `pyro-vae` in this process, as its own command line would run it."""

import contextlib
import io
import sys
from typing import NamedTuple

import pytest

from pyro_vae.commands import root


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def command(folder, *words):
    """Run `pyro-vae` with these words in a folder; nothing of it stays in the process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(folder)
        patch.setenv("COLUMNS", "100")
        patch.setattr(sys, "argv", ["pyro-vae", *map(str, words)])
        patch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as caught:
            root.main()
    return Ended(caught.value.code or 0, out.getvalue(), err.getvalue())


def one_error(ended):
    """The sentence of a command that was refused."""
    (line,) = ended.err.splitlines()
    assert (ended.code, ended.out) == (2, "")
    return line.removeprefix("error: ")
