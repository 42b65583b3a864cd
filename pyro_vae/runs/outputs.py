"""Places that a script writes to, checked before its work begins."""

from collections.abc import Sequence
from pathlib import Path

from pyro_vae.support.files import as_path, writable_file, writable_folder


def output_folder(path: str | Path, name: str) -> Path:
    """Return a folder that can be written, and is no run folder. This leaves nothing in it.

    Arguments:
        path: the folder, which need not exist.
        name: its name in errors.

    Raises:
        ValueError: if it holds a run, or `writable_folder` refuses it.
    """
    folder = writable_folder(path, name)
    if (folder / "run.json").is_file():
        raise ValueError(
            f"'{name}' must be a folder without a run, got {path}, whose run would be mixed with "
            f"other files: name {folder / name}, or another."
        )
    return folder


def output_file(path: str | Path, name: str, begins: str | bytes) -> Path:
    """Return a file that can be written, in a folder that need not exist. This writes nothing.

    An existing file is replaced only if it is of the same kind, so that no input is lost.

    Arguments:
        path: the file.
        name: its name in errors.
        begins: the start of a file of this kind.

    Raises:
        ValueError: if the path is empty or a folder, leads through a file, cannot be written, or
            is a file of another kind.
    """
    return writable_file(path, name, lambda file: _begins(file, begins))


def new_file(path: str | Path, name: str, overwrite: bool, suffixes: Sequence[str]) -> Path:
    """Return a new file that can be written, in a folder that need not exist. This writes nothing.

    Arguments:
        path: the file.
        name: its name in errors.
        overwrite: True to replace an existing file.
        suffixes: the endings that it may have.

    Raises:
        ValueError: if it exists and may not be replaced, has another ending, or cannot be written.
    """
    file = as_path(path, name, "file")
    if file.suffix not in suffixes:
        raise ValueError(f"'{name}' must end in {' or '.join(suffixes)}, got {path}.")
    if file.is_file() and not overwrite:
        raise ValueError(
            f"'{name}' must be a new file, got {path}, which exists: --overwrite replaces it."
        )
    return writable_file(file, name, lambda _: True)


def _begins(file: Path, start: str | bytes) -> bool:
    """Return True if a file is empty, or begins with this."""
    wanted = start.encode() if isinstance(start, str) else start
    with file.open("rb") as opened:
        return opened.read(len(wanted)) in (b"", wanted)
