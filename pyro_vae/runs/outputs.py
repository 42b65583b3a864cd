"""Places that a script writes to, checked before its work begins."""

from pathlib import Path

from pyro_vae.support.files import writable_file, writable_folder


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


def output_file(path: str | Path, name: str, begins: str) -> Path:
    """Return a file that can be written, in a folder that need not exist. This writes nothing.

    An existing file is replaced only if it is of the same kind, so that no input is lost.

    Arguments:
        path: the file.
        name: its name in errors.
        begins: the first line of a file of this kind.

    Raises:
        ValueError: if the path is empty or a folder, leads through a file, cannot be written, or
            is a file of another kind.
    """
    return writable_file(path, name, lambda file: _begins(file, begins))


def _begins(file: Path, line: str) -> bool:
    """Return True if a file is empty, or begins with this line."""
    wanted = line.encode()
    with file.open("rb") as opened:
        start = opened.read(len(wanted))
    return start in (b"", wanted)
