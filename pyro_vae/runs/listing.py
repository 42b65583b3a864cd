"""Listing of the runs below a folder. Their files are read as plain data, and no VAE is built."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from pyro_vae.evaluation.results import Estimate
from pyro_vae.runs.folder import RunFolder, RunInfo
from pyro_vae.runs.reading import read_text
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import one_line
from pyro_vae.training.history import Epoch

# The files that tell a run folder from others.
_SIGNS = ("run.json", "settings.yaml")
# Levels of folders below the given one that are searched.
_DEPTH = 4


class ListedRun(NamedTuple):
    """A run, as its files tell it.

    Arguments:
        name: its folder, relative to the one that was searched.
        info: the facts of the run.
        settings: the value of each setting by its whole name; a class stands under the name of the
            setting that it is given for.
        history: the epochs.
        negative_elbo: −ELBO of the last evaluation; None if the run was not evaluated.
        log_marginal: log p(x) of the last evaluation; None if it was not measured.
        failure: the error that ended training, or None.
    """

    name: str
    info: RunInfo
    settings: dict[str, Any]
    history: list[Epoch]
    negative_elbo: Estimate | None
    log_marginal: Estimate | None
    failure: str | None

    @property
    def seconds(self) -> float:
        """The duration of all epochs, in seconds."""
        return sum(row.seconds for row in self.history)


class Listing(NamedTuple):
    """Runs below a folder.

    Arguments:
        runs: those that can be read, by name.
        unread: the other folders, each with a sentence that says why.
    """

    runs: list[ListedRun]
    unread: dict[str, str]


@arguments_checked
def list_runs(folder: str | PathLike) -> Listing:
    """Return the runs below a folder; a run folder itself is the only run of the list.

    A folder that is damaged, foreign or cannot be read is named in `unread`. Links to folders are
    followed only if they lead to a run.

    Raises:
        ValueError: if there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        state = "is a file" if root.exists() else "does not exist"
        raise ValueError(f"'folder' must be a folder with runs, got {folder}, which {state}.")
    listing = Listing([], {})
    for place in sorted(_places(root), key=_natural):
        name = place.relative_to(root) if place != root else root.resolve().name
        try:
            listing.runs.append(_read(place, str(name)))
        except (OSError, ValueError) as error:
            listing.unread[str(name)] = one_line(error)
    return listing


def read_metrics(folder: str | PathLike) -> dict[str, Estimate | None]:
    """Return −ELBO and log p(x) of the last evaluation of a run, each None if not measured.

    Arguments:
        folder: the run folder.

    Raises:
        ValueError: if the file of the evaluation is damaged.
    """
    file = Path(folder) / "metrics.json"
    names = ("negative_elbo", "log_marginal")
    if not file.is_file():
        return dict.fromkeys(names)
    try:
        fields = json.loads(read_text(file))
        return {name: _estimate(fields.get(name)) for name in names}
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} must hold an evaluation, but is damaged: {one_line(error)}."
        ) from None


def differing(runs: Sequence[ListedRun]) -> dict[str, list[Any]]:
    """Return the settings that differ among the runs that have them, with a value for each run.

    The value is None for a run that lacks the setting.
    """
    found: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for run in runs for name in run.settings):
        values = [run.settings[name] for run in runs if name in run.settings]
        if len(set(map(repr, values))) > 1:
            found[name] = [run.settings.get(name) for run in runs]
    return found


def short_names(names: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """Return each name of a setting from the last dot on that makes it unambiguous.

    Arguments:
        names: whole names, such as `training.optimizer.lr`.
        taken: names that mean something else.
    """
    return [_short(name, [*(other for other in names if other != name), *taken]) for name in names]


def _short(name: str, others: list[str]) -> str:
    parts = name.split(".")
    for start in reversed(range(1, len(parts))):
        ending = ".".join(parts[start:])
        if not any(f".{other}".endswith(f".{ending}") for other in others):
            return ending
    return name


def _places(folder: Path) -> Iterator[Path]:
    """Yield the run folders below a folder, and each direct subfolder that holds none."""
    if _is_run(folder):
        yield folder
        return
    for child in _subfolders(folder):
        yield from list(_runs_in(child, _DEPTH - 1)) or [child]


def _runs_in(folder: Path, depth: int) -> Iterator[Path]:
    if _is_run(folder):
        yield folder
    elif depth > 0 and not folder.is_symlink():
        for child in _subfolders(folder):
            yield from _runs_in(child, depth - 1)


def _subfolders(folder: Path) -> list[Path]:
    with suppress(OSError):
        inner = [place for place in folder.iterdir() if not place.name.startswith(".")]
        return [place for place in inner if place.is_dir()]
    return []


def _is_run(folder: Path) -> bool:
    with suppress(OSError):
        return any((folder / name).is_file() for name in _SIGNS)
    return False


def _natural(place: Path) -> list[tuple[int, str]]:
    """Return a key that sorts seed-2 before seed-10."""
    parts = re.findall(r"\d+|\D+", str(place))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _read(place: Path, name: str) -> ListedRun:
    if not _is_run(place):
        raise ValueError("This folder holds no run.")
    folder = RunFolder(place)
    try:
        settings = dict(_flat(folder.plain_settings()))
    except RecursionError:
        raise ValueError(f"{place} must hold a tree of settings.") from None
    return ListedRun(
        name=name,
        info=folder.info(),
        settings=settings,
        history=_history(place / "history.csv"),
        failure=folder.failure(),
        **read_metrics(place),
    )


def _flat(tree: dict[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each setting with its whole name."""
    for key, value in tree.items():
        is_inner = key in ("class_path", "init_args", "dict_kwargs")
        name = place if is_inner else f"{place}.{key}".lstrip(".")
        if isinstance(value, dict):
            yield from _flat(value, name)
        else:
            yield name, value


def _history(file: Path) -> list[Epoch]:
    """Return the epochs in a table of them.

    Raises:
        ValueError: if it is missing or damaged.
    """
    lines = csv.DictReader(read_text(file).splitlines())
    try:
        return [_epoch(fields) for fields in lines]
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} must be a table of epochs, but is damaged: {one_line(error)}."
        ) from None


def _epoch(fields: dict[str, str]) -> Epoch:
    """Return an epoch; a number that older versions did not write is NaN."""
    return Epoch(
        epoch=int(fields["epoch"]),
        learning_rate=float(fields.get("learning_rate", "nan")),
        scheduled=float(fields.get("scheduled", "nan")),
        train_loss=float(fields["train_loss"]),
        validation_loss=_number(fields.get("validation_loss")),
        test_loss=_number(fields.get("test_loss")),
        seconds=float(fields["seconds"]),
    )


def _estimate(fields: Any) -> Estimate | None:
    if fields is None:
        return None
    return Estimate(
        mean=float(fields["mean"]),
        monte_carlo_error=_number(fields.get("monte_carlo_error")),
        row_error=_number(fields.get("row_error")),
        num_samples=int(fields.get("num_samples", 0)),
        num_rows=int(fields.get("num_rows", 0)),
    )


def _number(value: Any) -> float | None:
    return None if value in (None, "") else float(value)
