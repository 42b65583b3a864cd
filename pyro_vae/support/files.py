"""Files: written whole or not at all, and tensors read from them without running code."""

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def write_atomically(path: Path, write: Callable[[io.BufferedWriter], Any]) -> None:
    """Write a file under another name, and then move it to its place.

    A reader sees either the whole old file or the whole new one.

    Arguments:
        path: the place of the file.
        write: writes the content to an open file.
    """
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_tensors(path: Path) -> Any:
    """Read what `torch.save` wrote, on the CPU, without running code.

    Raises:
        ValueError: if the file may not be read, is truncated, or holds something else than tensors
            in plain containers.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise ValueError(f"{path} must be a file that can be read: permission denied.") from None
    except Exception as error:
        raise ValueError(
            f"{path} must be a file of weights, but is truncated or foreign "
            f"({type(error).__name__})."
        ) from error


def writable_folder(path: str | Path, name: str) -> Path:
    """Return a folder that can be written. This leaves nothing in it.

    Arguments:
        path: the folder, which need not exist.
        name: its name in errors.

    Raises:
        ValueError: if the path is empty, leads through a file, or cannot be written.
    """
    folder = as_path(path, name, "folder")
    try:
        existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not existing.is_dir():
            raise ValueError(
                f"'{name}' must be a folder that can be written, got {path}: {existing} is a file."
            )
        with tempfile.TemporaryDirectory(dir=existing):  # the rights alone do not tell
            return folder
    except OSError as error:
        raise unwritable(path, name, "folder", error) from error


def writable_file(path: str | Path, name: str, is_replaceable: Callable[[Path], bool]) -> Path:
    """Return a file that can be written, in a folder that need not exist. This writes nothing.

    Arguments:
        path: the file.
        name: its name in errors.
        is_replaceable: returns True for an existing file that may be replaced.

    Raises:
        ValueError: if the path is empty or a folder, leads through a file, cannot be written, or
            is a file that may not be replaced.
    """
    file = as_path(path, name, "file")
    try:
        if file.is_dir():
            raise ValueError(f"'{name}' must be a file, got the folder {path}.")
        if file.exists() and not os.access(file, os.W_OK):
            raise PermissionError(0, "Permission denied")
        if file.is_file() and not is_replaceable(file):
            raise ValueError(
                f"'{name}' must be a new file, or one of an earlier call to replace, got {path}, "
                "which holds something else."
            )
    except OSError as error:
        raise unwritable(path, name, "file", error) from error
    writable_folder(file.parent, name)
    return file


def as_path(path: str | Path, name: str, kind: str) -> Path:
    """Return a path, if it is not the empty string, which would be the current folder.

    Arguments:
        path: the path.
        name: its name in errors.
        kind: `"file"` or `"folder"`.

    Raises:
        ValueError: if it is empty.
    """
    if not str(path).strip():
        raise ValueError(f"'{name}' must be the name of a {kind}, got an empty string.")
    return Path(path)


def unwritable(path: str | Path, name: str, kind: str, error: OSError) -> ValueError:
    """Return the error about a place that cannot be written."""
    reason = (error.strerror or str(error)).lower()
    return ValueError(f"'{name}' must be a {kind} that can be written, got {path}: {reason}.")
