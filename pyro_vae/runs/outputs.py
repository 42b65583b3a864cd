"""Places that a script writes to, checked before its work begins."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path


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


def writable_folder(path: str | Path, name: str) -> Path:
    """Return a folder that can be written. This leaves nothing in it.

    Arguments:
        path: the folder, which need not exist.
        name: its name in errors.

    Raises:
        ValueError: if the path is empty, leads through a file, or cannot be written.
    """
    folder = _path(path, name, "folder")
    try:
        existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not existing.is_dir():
            raise ValueError(
                f"'{name}' must be a folder that can be written, got {path}: {existing} is a file."
            )
        with tempfile.TemporaryDirectory(dir=existing):  # the rights alone do not tell
            return folder
    except OSError as error:
        raise _unwritable(path, name, "folder", error) from error


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
    file = _path(path, name, "file")
    try:
        if file.is_dir():
            raise ValueError(f"'{name}' must be a file, got the folder {path}.")
        if file.exists() and not os.access(file, os.W_OK):
            raise PermissionError(0, "Permission denied")
        if file.is_file() and not _begins(file, begins):
            raise ValueError(
                f"'{name}' must be a new file, or one of an earlier call to replace, got {path}, "
                "which holds something else."
            )
    except OSError as error:
        raise _unwritable(path, name, "file", error) from error
    writable_folder(file.parent, name)
    return file


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
    file = _path(path, name, "file")
    if file.suffix not in suffixes:
        raise ValueError(f"'{name}' must end in {' or '.join(suffixes)}, got {path}.")
    if file.is_dir() or (file.exists() and not overwrite):
        kind = "a folder" if file.is_dir() else "a file: pass --overwrite to replace it"
        raise ValueError(f"'{name}' must be a new file, got {path}, which is {kind}.")
    writable_folder(file.parent, name)
    return file


def _begins(file: Path, start: str | bytes) -> bool:
    """Return True if a file is empty, or begins with this."""
    wanted = start.encode() if isinstance(start, str) else start
    with file.open("rb") as opened:
        return opened.read(len(wanted)) in (b"", wanted)


def _path(path: str | Path, name: str, kind: str) -> Path:
    if not str(path).strip():
        raise ValueError(f"'{name}' must be the name of a {kind}, got an empty string.")
    return Path(path)


def _unwritable(path: str | Path, name: str, kind: str, error: OSError) -> ValueError:
    reason = (error.strerror or str(error)).lower()
    return ValueError(f"'{name}' must be a {kind} that can be written, got {path}: {reason}.")
