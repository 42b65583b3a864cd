"""Run folder: the files of a run. No half-written file is seen, and no code in a file runs."""

import csv
import io
import json
import os
import platform
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pyro_vae.evaluation.results import Evaluation
from pyro_vae.runs.formats import asked_with_public_paths, upgraded, with_public_paths
from pyro_vae.runs.origin import Origin
from pyro_vae.runs.reading import GROUPS, read_text, read_yaml
from pyro_vae.runs.record import DataRecord
from pyro_vae.runs.trust import check_trusted, trusted_packages
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import as_shape
from pyro_vae.support.files import read_tensors, writable_folder, write_atomically
from pyro_vae.training.history import Epoch, Fit
from pyro_vae.training.settings import Change

# Increase it if a change makes older code misread a folder.
FORMAT = 3
# The weights that a run keeps.
WEIGHTS = ("best", "last")
# The warning for a run whose data were not recorded; the path of the folder comes before it.
UNRECORDED = (
    "keeps no record of its data, as runs of format 1 do not: it cannot be checked that they are "
    "still the same rows with the same highest level"
)
# The files that describe a run, and those that come after.
_DESCRIPTION = ("settings.yaml", "run.json")
_RESULTS = (
    "state.pt",
    "best.pt",
    "last.pt",
    "history.csv",
    "changes.csv",
    "failure.txt",
    "metrics.json",
    "history.png",
    "manifold.png",
    "kl_by_dimension.png",
)
# What TensorBoard writes.
_LOGS = "events.out.tfevents.*"
_PACKAGES = ("pyro_vae", "pyro-ppl", "torch", "numpy")


class RunInfo(NamedTuple):
    """Facts that `load` needs besides the settings.

    Arguments:
        x_shape: the shape of one row of data.
        format: the version of the folder's layout.
        versions: the versions of Python and of the packages that wrote the folder.
        data: the record of the data; None in format 1.
        data_path: the place of the data, relative to the run folder; None if there is none.
        command: the command lines that trained it, as `Origin` has them; None in older folders.
        commit: the git commit of the folder in which it was trained; None if there was none.
        device: the device that trained it; None in older folders.
        seconds: the duration of its epochs, in seconds; None before the first one.
    """

    x_shape: tuple[int, ...]
    format: int
    versions: dict[str, str]
    data: DataRecord | None = None
    data_path: str | None = None
    command: str | None = None
    commit: str | None = None
    device: str | None = None
    seconds: float | None = None


class RunFolder:
    """Folder of a run, with its files.

    The files are `settings.yaml`, `run.json`, `best.pt`, `last.pt`, `state.pt`, `history.csv` and
    `metrics.json`. `best.pt` and `last.pt` are state dicts of the VAE. `state.pt` holds the state
    that a resumed run starts from. A run that was resumed with other settings also has
    `changes.csv`, and one that ended in NaN has `failure.txt`.

    Arguments:
        path: the folder.

    Raises:
        ValueError: if the path is an empty string, which would be the current folder.
    """

    @arguments_checked
    def __init__(self, path: str | PathLike) -> None:
        if not str(path).strip():
            raise ValueError("'run' must be the name of a folder, got an empty string.")
        self.path = Path(path)

    @arguments_checked
    def check_free(self, overwrite: bool) -> None:
        """Refuse a folder that a run cannot be written to. This writes nothing.

        Raises:
            ValueError: if it holds files and may not be overwritten, or cannot be written.
        """
        writable_folder(self.path, "run")
        if not overwrite and self._holds_something():
            raise ValueError(
                f"'run' must be a new or empty folder, got {self.path}, which holds files: "
                "name another, or pass --overwrite."
            )

    def _holds_something(self) -> bool:
        """Return True if the folder has any file, except those of a run before its first epoch."""
        files = {file.name for file in self.path.iterdir()} if self.path.is_dir() else set()
        if not files <= {*_DESCRIPTION, *_RESULTS}:
            return True
        if "history.csv" in files:
            return len(self._read_text("history.csv").splitlines()) > 1
        return bool(files & {"best.pt", "last.pt", "state.pt"})

    @arguments_checked
    def begin(
        self,
        settings: str,
        x_shape: tuple[int, ...],
        data: DataRecord | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Write the settings and the facts of a run, and remove files of an earlier run.

        Arguments:
            settings: the settings, as YAML.
            x_shape: the shape of one row of data.
            data: the record of the data.
            origin: the command, the commit and the device.

        Raises:
            ValueError: if the settings are no YAML, or the shape is none; this writes nothing.
        """
        self._facts(settings, x_shape, data, origin)  # before a folder is made
        self.path.mkdir(parents=True, exist_ok=True)
        for name in _RESULTS:
            (self.path / name).unlink(missing_ok=True)
        for file in self.path.glob(_LOGS):
            file.unlink()
        self.save_settings(settings, x_shape, data, origin)

    @arguments_checked
    def save_settings(
        self,
        settings: str,
        x_shape: tuple[int, ...],
        data: DataRecord | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Write the settings, given as YAML, and the facts of the run, in format `FORMAT`.

        The run goes on from here, so that an earlier failure of it is forgotten.
        """
        info = self._facts(settings, x_shape, data, origin)
        self._write_text("settings.yaml", with_public_paths(settings))
        self._write_text("run.json", _json(info))
        (self.path / "failure.txt").unlink(missing_ok=True)

    def _facts(
        self,
        settings: str,
        x_shape: tuple[int, ...],
        data: DataRecord | None,
        origin: Origin | None,
    ) -> RunInfo:
        """Return what `run.json` says of a run before its first epoch."""
        versions = {package: version(package) for package in _PACKAGES}
        versions = {"python": platform.python_version()} | versions
        path = data_path(read_yaml(settings, "'settings'"))
        if path is not None:
            path = os.path.relpath(Path(path).resolve(), self.path.resolve())
        shape = as_shape(x_shape, "x_shape")
        info = RunInfo(tuple(shape), FORMAT, versions, data, path)
        return info._replace(**(origin or Origin())._asdict())

    @arguments_checked
    def save(self, fit: Fit) -> None:
        """Write the state of training at the end of the last whole epoch."""
        changes = [tuple(change) for change in fit.changes]
        state = fit._asdict() | {"history": [tuple(row) for row in fit.history], "changes": changes}
        self._write_tensors("state.pt", state)
        self._write_tensors("best.pt", fit.best_weights)
        self._write_tensors("last.pt", fit.weights)
        self._write_table("history.csv", [Epoch._fields, *fit.history])
        if fit.changes:
            self._write_table("changes.csv", [Change._fields, *fit.changes])
        seconds = sum(row.seconds for row in fit.history)
        self._write_text("run.json", _json(self.info()._replace(seconds=seconds)))

    @arguments_checked
    def save_metrics(self, evaluation: Evaluation, name: str = "metrics.json") -> None:
        """Write an evaluation as JSON."""
        self._write_text(name, evaluation.to_json() + "\n")

    @arguments_checked
    def save_failure(self, sentence: str) -> None:
        """Write the error that ended training."""
        self._write_text("failure.txt", sentence + "\n")

    def failure(self) -> str | None:
        """Return the error that ended training, as plain text, or None."""
        if not (self.path / "failure.txt").is_file():
            return None
        text = self._read_text("failure.txt").strip()
        return "".join(filter(str.isprintable, text))

    def info(self) -> RunInfo:
        """Read `run.json`.

        Raises:
            ValueError: if it is missing, damaged, or of a newer format.
        """
        text = self._read_text("run.json")
        try:
            fields = json.loads(text)
            is_newer = int(fields["format"]) > FORMAT
            if not is_newer:
                return _run_info(fields)
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.path / 'run.json'} must describe a run, but is damaged: {error}."
            ) from error
        versions = fields.get("versions")
        versions = versions if isinstance(versions, dict) else {}
        writer = versions.get("pyro_vae", "of unknown version")
        raise ValueError(
            f"{self.path} must have a run format up to {FORMAT}, got {fields['format']}: it was "
            f"written by a newer pyro_vae ({writer})."
        )

    @arguments_checked
    def settings(
        self, allow: str | Sequence[str] = (), name: str = "settings.yaml"
    ) -> dict[str, Any]:
        """Read the settings, and check the names in them before anything is imported.

        All code that makes something of the settings of a run must call this method.

        Arguments:
            allow: packages of the user's own whose classes the settings may name; a string names
                one.
            name: the file in the folder.

        Raises:
            ValueError: if `run.json` or the file is missing, damaged or of a newer format, or the
                settings name a class that is not trusted.
        """
        tree = self.plain_settings(name)
        try:
            check_trusted(tree, trusted_packages(allow))
        except RecursionError:
            raise self._endless(name) from None
        self._find_data(tree, self.info())
        return tree

    @arguments_checked
    def plain_settings(self, name: str = "settings.yaml") -> dict[str, Any]:
        """Read the settings as plain data, to show them; nothing is imported or checked.

        Arguments:
            name: the file in the folder.

        Raises:
            ValueError: if `run.json` or the file is missing, damaged or of a newer format.
        """
        info = self.info()
        text = with_public_paths(self._read_text(name))
        tree = read_yaml(text, f"{self.path / name}")
        # jsonargparse would read a file if a string stood in place of a group of settings.
        for group, value in tree.items():
            is_known = isinstance(value, dict) if group in GROUPS else group == "device"
            if not is_known:
                raise ValueError(
                    "settings may hold groups of settings, "
                    f"but '{group}' is no setting or no group."
                )
        try:
            return upgraded(tree, info.format)
        except RecursionError:
            raise self._endless(name) from None

    def _endless(self, name: str) -> ValueError:
        return ValueError(
            f"{self.path / name} must hold a tree of settings, got one that holds itself."
        )

    @arguments_checked
    def check_data(self, found: DataRecord) -> None:
        """Refuse data that are not those of the run; warn if the run keeps no record of them.

        Raises:
            ValueError: if the record of the run differs from this one.
        """
        stored = self.info().data
        if stored is None:
            warnings.warn(f"{self.path} {UNRECORDED}.", stacklevel=3)
        elif stored != found:
            raise ValueError(
                f"'data' must be those that {self.path} was trained on ({stored}), got {found}: "
                "put them back, or give other rows a file and a run of their own."
            )

    def fit(self) -> Fit:
        """Read the state that a resumed run starts from.

        Raises:
            ValueError: if `state.pt` is missing, damaged or holds something else.
        """
        state = self._read_tensors("state.pt")
        try:
            read = {
                "history": [Epoch(*row) for row in state["history"]],
                "asked": asked_with_public_paths(state.get("asked")),
                "changes": tuple(Change(*change) for change in state.get("changes", ())),
            }
            return Fit(**state | read)
        except (KeyError, RecursionError, TypeError) as error:
            raise ValueError(
                f"{self.path / 'state.pt'} must hold the state of a run, but does not: {error}."
            ) from error

    @arguments_checked
    def weights(self, name: str) -> dict[str, Any]:
        """Read the state dict `best` or `last`, on the CPU, without running code.

        Raises:
            ValueError: if the name is another, or the file is missing, truncated or holds
                something else.
        """
        if name not in WEIGHTS:
            raise ValueError(f"'weights' must be {' or '.join(WEIGHTS)}, got {name}.")
        return self._read_tensors(f"{name}.pt")

    def _read_tensors(self, name: str) -> dict[str, Any]:
        path = self.path / name
        self._require(path)
        tensors = read_tensors(path)
        if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors):
            raise ValueError(f"{path} must hold a state dict, got {type(tensors).__name__}.")
        return tensors

    def _read_text(self, name: str) -> str:
        self._require(self.path / name)
        return read_text(self.path / name)

    def _find_data(self, tree: dict[str, Any], info: RunInfo) -> None:
        """Set the path of the data file anew, since it may have moved together with the run."""
        if info.data_path is not None and data_path(tree) is not None:
            moved = (self.path / info.data_path).resolve()
            if moved.exists():
                tree["data"]["source"]["init_args"]["path"] = str(moved)

    def _require(self, path: Path) -> None:
        if not self.path.is_dir():
            state = "is a file" if self.path.exists() else "does not exist"
            is_inside = (self.path.parent / "run.json").is_file()
            advice = f": give the folder {self.path.parent}" if is_inside else ""
            raise ValueError(
                f"'run' must be the folder of a run, got {self.path}, which {state}{advice}."
            )
        if not path.is_file():
            raise ValueError(
                f"'run' must be the folder of a run, got {self.path}, which has no {path.name}."
            )

    def _write_text(self, name: str, text: str) -> None:
        encoded = text.encode(errors="surrogateescape")  # a path may be no text in the locale
        self._write(name, lambda file: file.write(encoded))

    def _write_table(self, name: str, rows: Iterable[tuple[Any, ...]]) -> None:
        table = io.StringIO()
        csv.writer(table).writerows(rows)
        self._write_text(name, table.getvalue())

    def _write_tensors(self, name: str, tensors: dict[str, Any]) -> None:
        self._write(name, lambda file: torch.save(tensors, file))

    def _write(self, name: str, write: Callable[[io.BufferedWriter], Any]) -> None:
        if not self.path.is_dir():
            raise ValueError(
                f"'run' must be a folder that begin() has made, got {self.path}, which is none."
            )
        write_atomically(self.path / name, write)


def settings_of_run(file: str | Path, allow: Sequence[str] = ()) -> dict[str, Any] | None:
    """Return the settings in a file of a run folder, or None for any other file.

    They are checked by `RunFolder.settings`.

    Arguments:
        file: the file, or YAML itself.
        allow: packages of the user's own whose classes the settings may name.
    """
    with suppress(OSError):  # YAML itself may be too long for the name of a file
        place = Path(file).resolve()
        if place.is_file() and place.with_name("run.json").exists():
            return RunFolder(place.parent).settings(allow, place.name)
    return None


def data_path(tree: dict[str, Any]) -> str | None:
    """Return the file that the source in these settings reads, or None."""
    found: Any = tree
    for name in ("data", "source", "init_args", "path"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None


def _json(info: RunInfo) -> str:
    """Return the text of `run.json`."""
    data = None if info.data is None else info.data.fields()
    return json.dumps(info._asdict() | {"data": data}, indent=2) + "\n"


def _run_info(fields: dict[str, Any]) -> RunInfo:
    """Return the facts of a run from the fields of its JSON."""
    info = RunInfo(**fields)
    data = fields.get("data")
    return RunInfo(
        x_shape=tuple(info.x_shape),
        format=int(info.format),
        versions=dict(info.versions),
        data=None if data is None else DataRecord.from_fields(data),
        data_path=None if info.data_path is None else os.fspath(info.data_path),
        command=None if info.command is None else os.fspath(info.command),
        commit=None if info.commit is None else os.fspath(info.commit),
        device=None if info.device is None else os.fspath(info.device),
        seconds=None if info.seconds is None else float(info.seconds),
    )
