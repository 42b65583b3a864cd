"""Choice of the reader for a file, by what the file is."""

import zipfile
from inspect import signature
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from pyro_vae.data.readers.anndata_file import AnnDataFile
from pyro_vae.data.readers.array_file import NPY_START, SPARSE_NAMES, ZIP_START, ArrayFile
from pyro_vae.data.readers.files import FileSource, reason, start_of
from pyro_vae.data.readers.hdf5_file import HDF5_START, HDF5File
from pyro_vae.data.readers.image_folder import IMAGE_ENDINGS, ImageFolder
from pyro_vae.data.readers.sparse_file import SparseFile
from pyro_vae.data.readers.table_file import PARQUET_START, TableFile
from pyro_vae.data.readers.tensor_file import TensorFile
from pyro_vae.support.checks import described, nearest

# The kinds that are told apart by their first bytes alone.
_STARTS: dict[bytes, type[FileSource]] = {NPY_START: ArrayFile, PARQUET_START: TableFile}
# Kinds that cannot be read: first bytes, the kind in words, and the way to convert it.
_FOREIGN = (
    (b"\x1f\x8b", "a gzip file", "unpack it first"),
    (b"BZh", "a bzip2 file", "unpack it first"),
    (b"\xfd7zXZ", "an xz file", "unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it first"),
    (b"\x89PNG", "one image", "give a folder of images"),
    (b"\xff\xd8\xff", "one image", "give a folder of images"),
    (b"%PDF", "a PDF", "save its table as CSV"),
    (b"MATLAB", "a file of MATLAB", "read it by scipy.io.loadmat and write it by numpy.save"),
    (b"SQLite", "a database", "write a table of it as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old file of Excel", "save it as CSV"),
    (b"ARROW1", "a Feather file", "write it by pandas as Parquet"),
    (b"ORC", "an ORC file", "write it by pandas as Parquet"),
    (b"RDX", "a file of R", "write it by write.csv"),
)
_ACCEPTED = (
    "a folder of images, or a .npy, .npz, .pt, .csv, .tsv, .parquet, .h5ad or .h5 file of numbers"
)


def source_for(path: str | PathLike, **options: Any) -> FileSource:
    """Return the source that reads a file or a folder, found by what it holds.

    The first bytes of a file decide, and its ending among kinds that begin alike. No code that a
    file holds is run.

    Arguments:
        path: the file, or a folder of images.
        options: arguments of the source, such as `label`, `context` or `test_fraction`.

    Raises:
        ValueError: if no reader knows the file, or the one that does lacks an option.

    Example:
        >>> import numpy, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     numpy.save(f"{folder}/x.npy", numpy.eye(4))
        ...     [len(rows) for rows in source_for(f"{folder}/x.npy", test_fraction=0.5).read()]
        [2, 2]
    """
    if not isinstance(path, str | PathLike):
        raise ValueError(f"'path' must be the path of a file or folder, got {described(path)}.")
    kind = reader_for(path)
    known = list(signature(kind).parameters)
    for name in options:
        if name not in known:
            raise ValueError(
                f"'{name}' must be left out for {fspath(path)}, which {kind.__name__} reads with "
                f"{', '.join(known[1:])}{nearest(name, known)}."
            )
    return kind(fspath(path), **options)


def reader_for(path: str | PathLike) -> type[FileSource]:
    """Return the class of the source that reads a file or a folder.

    Raises:
        ValueError: if there is none.
    """
    place = Path(path)
    if place.is_dir():
        return ImageFolder
    try:
        start = start_of(place, 16)
    except (OSError, ValueError) as error:
        raise _unreadable(path, reason(error)) from error
    if not start:
        raise _unreadable(path, "it is empty.")
    for bytes_of_kind, kind in _STARTS.items():
        if start.startswith(bytes_of_kind):
            return kind
    if start.startswith(HDF5_START):
        return AnnDataFile if place.suffix.lower() == ".h5ad" else HDF5File
    if start.startswith(ZIP_START):
        return _in_archive(path)
    return _by_text(path, start)


def _in_archive(path: str | PathLike) -> type[FileSource]:
    """Return the reader of a zip archive, which numpy, scipy and torch all write."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise _unreadable(path, "it is a damaged archive.") from error
    if any(name.endswith("data.pkl") for name in names):
        return TensorFile
    if "[Content_Types].xml" in names:
        raise _unreadable(path, "it is a file of Excel: save it as CSV.")
    arrays = {name.removesuffix(".npy") for name in names if name.endswith(".npy")}
    if not arrays:
        raise _unreadable(path, "it is an archive: unpack it first.")
    return SparseFile if arrays >= SPARSE_NAMES else ArrayFile


def _by_text(path: str | PathLike, start: bytes) -> type[FileSource]:
    for bytes_of_kind, words, advice in _FOREIGN:
        if start.startswith(bytes_of_kind):
            raise _unreadable(path, f"it is {words}: {advice}.")
    suffix = Path(path).suffix.lower()
    if suffix in IMAGE_ENDINGS:
        raise _unreadable(path, "it is one image: give a folder of images.")
    if _is_text(path):
        first = start.lstrip()[:1]
        if first in (b"{", b"[", b"<"):
            kind = "XML or HTML" if first == b"<" else "JSON"
            raise _unreadable(path, f"it is {kind}: write its numbers as CSV.")
        return TableFile
    if start.startswith(b"\x80") and suffix not in (".pt", ".pth"):
        raise _unreadable(
            path,
            "it is a pickle, whose code is not run: load it yourself, and write it by numpy.save.",
        )
    if suffix in (".pt", ".pth"):
        return TensorFile
    raise _unreadable(path, "its kind is unknown: write its numbers by numpy.save.")


def _is_text(path: str | PathLike) -> bool:
    """Return True if a file begins with text in UTF-8."""
    beginning = start_of(Path(path), 4096)
    if b"\0" in beginning:
        return False
    try:
        beginning.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(beginning) - 4  # a letter that the end cuts
    return True


def _unreadable(path: str | PathLike, problem: str) -> ValueError:
    return ValueError(f"'path' must be {_ACCEPTED}, got {fspath(path)}: {problem}")
