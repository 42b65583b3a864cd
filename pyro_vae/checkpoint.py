"""The run folder: what a run leaves on disk, written so that no file is ever half there, and read without running code."""

import csv
import io
import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.estimates import Evaluation
from pyro_vae.training import Epoch, Fit

# Raised when a change makes older code misread a folder.
FORMAT = 2
_FIGURES = ("history.png", "manifold.png", "kl_by_dimension.png")
_PACKAGES = ("pyro_vae", "pyro-ppl", "torch", "numpy")


class RunInfo(NamedTuple):
    """What the settings do not say and a VAE cannot be rebuilt without.

    Arguments:
        x_shape: the shape of one row of data.
        format: the version of the folder's layout.
        versions: of Python and of the packages that wrote it.
    """

    x_shape: tuple[int, ...]
    format: int
    versions: dict[str, str]


class RunFolder:
    """The files of a run: `settings.yaml`, `run.json`, `best.pt`, `last.pt`, `state.pt`, `history.csv`, `metrics.json`.

    `best.pt` and `last.pt` are state dicts of the VAE; `state.pt` also has what a resumed run goes on from.

    Arguments:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def check_free(self, overwrite: bool) -> None:
        """Refuse a folder that a run cannot be written to; writes nothing.

        Raises:
            ValueError: it holds a run and may not be overwritten, or nothing can be written there.
        """
        if not overwrite and self.path.is_dir() and any(self.path.iterdir()):
            raise ValueError(
                f"'run' must be a new or empty folder, got {self.path}, which holds files: name another, or pass "
                "--overwrite."
            )
        existing = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise ValueError(f"'run' must be a folder that can be written, got {self.path}.")

    def save_settings(self, settings: str) -> None:
        """Write the settings as YAML."""
        self._write_text("settings.yaml", settings)

    def begin(self, settings: str, x_shape: tuple[int, ...]) -> None:
        """Write what is known before training, and remove what an earlier run left."""
        self.path.mkdir(parents=True, exist_ok=True)
        for name in ("state.pt", "best.pt", "last.pt", "history.csv", "metrics.json", *_FIGURES):
            (self.path / name).unlink(missing_ok=True)
        versions = {"python": platform.python_version()} | {package: version(package) for package in _PACKAGES}
        info = RunInfo(tuple(x_shape), FORMAT, versions)
        self.save_settings(settings)
        self._write_text("run.json", json.dumps(info._asdict(), indent=2) + "\n")

    def save(self, fit: Fit, weights: dict[str, Tensor]) -> None:
        """Write where training has got to; `weights` are the VAE's own, which an interrupted epoch may have moved on."""
        state = fit._asdict() | {"history": [tuple(row) for row in fit.history]}
        self._write_tensors("state.pt", state)
        self._write_tensors("best.pt", fit.best_weights)
        self._write_tensors("last.pt", weights)
        table = io.StringIO()
        csv.writer(table).writerows([Epoch._fields, *fit.history])
        self._write_text("history.csv", table.getvalue())

    def save_metrics(self, evaluation: Evaluation, name: str = "metrics.json") -> None:
        """Write an evaluation as JSON."""
        self._write_text(name, evaluation.to_json() + "\n")

    def info(self) -> RunInfo:
        """Read `run.json`.

        Raises:
            ValueError: it is missing, damaged, or of a newer format.
        """
        text = self.read_text("run.json")
        try:
            fields = json.loads(text)
            is_newer = int(fields["format"]) > FORMAT
            info = RunInfo((), FORMAT, fields.get("versions") or {}) if is_newer else RunInfo(**fields)
            info = RunInfo(tuple(info.x_shape), int(info.format), dict(info.versions))
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path / 'run.json'} must describe a run, but is damaged: {error}.") from error
        if is_newer:
            writer = info.versions.get("pyro_vae", "of unknown version")
            raise ValueError(
                f"{self.path} must have a run format up to {FORMAT}, got {fields['format']}: it was written by a newer "
                f"pyro_vae ({writer})."
            )
        return info

    def fit(self) -> Fit:
        """Read what a resumed run goes on from."""
        state = self.weights("state")
        try:
            return Fit(**state | {"history": [Epoch(*row) for row in state["history"]]})
        except (TypeError, KeyError) as error:
            raise ValueError(
                f"{self.path / 'state.pt'} must hold the state of a run, but does not: {error}."
            ) from error

    def weights(self, name: str) -> dict[str, Any]:
        """Read the state dict `best` or `last`, on the CPU, without running code.

        Raises:
            ValueError: the file is missing, truncated or holds something else.
        """
        path = self.path / f"{name}.pt"
        self._require(path)
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(
                f"{path} must be a file of weights, but is truncated or foreign ({type(error).__name__})."
            ) from error
        if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
            raise ValueError(f"{path} must hold a state dict, got {type(weights).__name__}.")
        return weights

    def read_text(self, name: str) -> str:
        """Read one of the text files.

        Raises:
            ValueError: it is missing or damaged.
        """
        self._require(self.path / name)
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path / name} must be text, but is damaged: {error}.") from error

    def _require(self, path: Path) -> None:
        if not self.path.is_dir():
            raise ValueError(f"'run' must be the folder of a run, got {self.path}, which does not exist.")
        if not path.is_file():
            raise ValueError(f"'run' must be the folder of a run, got {self.path}, which has no {path.name}.")

    def _write_text(self, name: str, text: str) -> None:
        write_atomically(self.path / name, lambda file: file.write(text.encode()))

    def _write_tensors(self, name: str, tensors: dict[str, Any]) -> None:
        write_atomically(self.path / name, lambda file: torch.save(tensors, file))


def write_atomically(path: Path, write: Callable[[io.BufferedWriter], Any]) -> None:
    """Write a file beside its place and move it there: whoever reads sees the old file or the new one, whole."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def upgraded(tree: dict[str, Any], written_in: int) -> dict[str, Any]:
    """Return settings of an older format as this one writes them."""
    if written_in > 1 or not isinstance(tree.get("vae"), dict):
        return tree
    return tree | {"vae": _vae_of_format_1(tree["vae"])}


def _vae_of_format_1(vae: dict[str, Any]) -> dict[str, Any]:
    """The encoder saw x as it is, and one number was the dispersion of all counts where nothing else was said."""
    likelihood = _with_one_dispersion(vae.get("likelihood"))
    return {"encoder_sees": "pyro_vae.inputs.AsIs"} | vae | {"likelihood": likelihood}


def _with_one_dispersion(likelihood: Any) -> Any:
    """The settings of a likelihood, or of the groups of columns of a product, with the dispersion in words."""
    if isinstance(likelihood, str):
        return _with_one_dispersion({"class_path": likelihood, "init_args": {}})
    if not isinstance(likelihood, dict):
        return likelihood
    options = dict(likelihood.get("init_args") or {})
    if isinstance(options.get("columns"), list):
        options["columns"] = [
            group | {"likelihood": _with_one_dispersion(group.get("likelihood"))} if isinstance(group, dict) else group
            for group in options["columns"]
        ]
    if str(likelihood.get("class_path")).endswith("NegativeBinomialLikelihood") and options.get("dispersion") is None:
        options["dispersion"] = {"class_path": "pyro_vae.likelihoods.LearnedScale"}
    return likelihood | {"init_args": options}
