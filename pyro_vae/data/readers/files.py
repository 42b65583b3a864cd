"""Base of the readers: rows of one file, split at random into training and test rows."""

import copy
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from pyro_vae.data.names import Names
from pyro_vae.data.rows import Rows
from pyro_vae.data.sources import Source, limited, split
from pyro_vae.support.checks import check_max_level, described, one_line, whole


class FileSource(Source):
    """Source of a file or folder of the user's own.

    A subclass defines `rows` and `kind`. No reader runs code that a file holds.

    Arguments:
        path: the file.
        test_fraction: the share of rows for the test.
        seed: names the random stream that chooses these rows.
        max_level: the highest possible level; inferred when omitted.

    Raises:
        ValueError: if a setting has another type, or `max_level` is not above 0.
    """

    # What the file must be, in words.
    kind: str

    def __init__(
        self,
        path: str,
        test_fraction: float = 0.2,
        seed: int = 0,
        max_level: float | None = None,
    ) -> None:
        if not isinstance(path, str | PathLike):
            raise ValueError(f"'path' must be the path of a file, got {described(path)}.")
        self.path = path
        self.test_fraction = test_fraction
        self.seed = whole(seed, "seed", least=0)
        self.max_level = max_level
        if max_level is not None:
            check_max_level(max_level)

    @abstractmethod
    def rows(self, known: Names | None = None) -> Rows:
        """Return all rows of the file, as they are stored.

        Arguments:
            known: the names of a run that further rows are for; None for a new run. Columns are
                then found by these names, and the labels may be absent.

        Raises:
            ValueError: if the file cannot be read, or lacks what the settings or `known` name.
        """

    def read(self) -> tuple[Rows, Rows]:
        rows = limited(self.rows(), self.max_level)
        return split(rows, self.test_fraction, self.seed, "test_fraction")

    def further(self, path: str, known: Names | None = None) -> Rows:
        """Return the rows of another file of this kind, which is read with the same settings.

        Raises:
            ValueError: if `rows` does.
        """
        other = copy.copy(self)
        other.path = path
        return other.rows(known or Names())

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn errors of libraries inside the block into one sentence about the file.

        Raises:
            ValueError: in place of the library's error.
        """
        try:
            yield
        except Exception as error:
            raise self.refused(reason(error)) from error

    def refused(self, problem: str) -> ValueError:
        """Return the error about a file that is not of this kind.

        Arguments:
            problem: the end of the sentence, with its full stop.
        """
        return ValueError(f"'path' must be {self.kind}, got {self.path}: {problem}")


def start_of(path: str | Path, size: int = 8) -> bytes:
    """Return the first bytes of a file."""
    with Path(path).open("rb") as file:
        return file.read(size)


def reason(error: Exception) -> str:
    """Return in words why a file cannot be read, with a full stop."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}."
    if "pickle" in str(error):
        return "it holds objects of Python."
    return f"{one_line(error).rstrip('.')}."


def needed(package: str, extra: str, purpose: str) -> ValueError:
    """Return the error about a package that is not installed."""
    return ValueError(
        f"{purpose} needs {package}, which is not installed: pip install 'pyro_vae[{extra}]'."
    )
