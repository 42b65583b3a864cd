"""Places that a script writes to, checked before its work begins."""

import os
import tempfile
from pathlib import Path


def output_folder(path: str | Path, name: str) -> Path:
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


def output_file(path: str | Path, name: str) -> Path:
    """Return a file that can be written, in a folder that need not exist. This writes nothing.

    Arguments:
        path: the file; an existing one will be replaced.
        name: its name in errors.

    Raises:
        ValueError: if the path is empty or a folder, leads through a file, or cannot be written.
    """
    file = _path(path, name, "file")
    try:
        if file.is_dir():
            raise ValueError(f"'{name}' must be a file, got the folder {path}.")
        if file.exists() and not os.access(file, os.W_OK):
            raise PermissionError(0, "Permission denied")
    except OSError as error:
        raise _unwritable(path, name, "file", error) from error
    output_folder(file.parent, name)
    return file


def _path(path: str | Path, name: str, kind: str) -> Path:
    if not str(path).strip():
        raise ValueError(f"'{name}' must be the name of a {kind}, got an empty string.")
    return Path(path)


def _unwritable(path: str | Path, name: str, kind: str, error: OSError) -> ValueError:
    reason = (error.strerror or str(error)).lower()
    return ValueError(f"'{name}' must be a {kind} that can be written, got {path}: {reason}.")
