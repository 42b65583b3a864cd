"""Train and measure one row of the table, in its run folder.

A run that the folder holds is continued, and a measurement that it holds is read.
"""

import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from comparison.rows import Row
from pyro_vae import Estimate, evaluate, load, load_data
from pyro_vae.commands.request import read_settings
from pyro_vae.evaluation import evaluate_rows
from pyro_vae.runs import check_settings

TRAIN = Path(__file__).parents[1] / "train.py"


class Counts(NamedTuple):
    """Sizes of the estimate of −log p(x).

    Arguments:
        num_rows: the first test rows, this many.
        num_samples: the draws of z for each row.
    """

    num_rows: int
    num_samples: int


class Measured(NamedTuple):
    """Results of a row, in nats per row.

    Arguments:
        nll: −log p(x) of each test row, by importance sampling.
        negative_elbo: −ELBO.
        rate: KL(q(z | x) ‖ p(z)).
        active_units: the number of active latent dimensions.
        epochs: the epochs of its training.
        minutes: the time that training took.
        num_samples: the draws of z for each row, for −log p(x).
        settings: the settings in addition to the row's own changes, as `train.py` takes them.
    """

    nll: list[float]
    negative_elbo: float
    rate: float
    active_units: int
    epochs: int
    minutes: float
    num_samples: int
    settings: str


def command(row: Row, folder: Path, settings: str = "") -> list[str]:
    """Return the command that trains the row, without "python"."""
    return [
        "scripts/train.py",
        row.preset,
        *shlex.split(row.changes),
        *shlex.split(settings),
        "--run",
        str(folder),
    ]


def check(row: Row, settings: str) -> None:
    """Refuse settings that train.py would refuse for a row, before any row is trained.

    Raises:
        ValueError: if it refuses them.
    """
    words = [*shlex.split(row.changes), *shlex.split(settings)]
    try:
        check_settings(read_settings(row.preset, words).settings)
    except ValueError as error:
        raise ValueError(f"'settings' must be those of train.py, but: {error}") from error


def measure(row: Row, folder: Path, counts: Counts, settings: str = "") -> Measured:
    """Train to the end, and evaluate: each only if the folder does not hold it yet.

    Arguments:
        row: the row of the table.
        folder: its run folder.
        counts: the test rows and the draws for −log p(x).
        settings: the settings in addition to the row's own changes, as `train.py` takes them.

    Raises:
        ValueError: if training ends with an error, or the folder holds another measurement.
    """
    result = folder / "comparison.json"
    if not result.is_file():
        train(row, folder, settings)
        measured = _evaluate(folder, counts, settings)
        result.write_text(json.dumps(measured._asdict()), encoding="utf-8")
    measured = Measured(**json.loads(result.read_text(encoding="utf-8")))
    wanted = (counts.num_rows, counts.num_samples, settings)
    received = (len(measured.nll), measured.num_samples, measured.settings)
    if received != wanted:
        raise ValueError(
            f"{folder} must be measured with num_rows, num_importance_samples and settings "
            f"{wanted}, got {received}: name another 'out', or remove it."
        )
    return measured


def train(row: Row, folder: Path, settings: str) -> None:
    """Train in a process of its own, from where the folder's run was interrupted.

    Raises:
        ValueError: if training is killed.
        SystemExit: if training ends with an error, which it has told itself.
    """
    go_on = "--resume" if (folder / "state.pt").is_file() else "--overwrite"
    _, *arguments = command(row, folder, settings)
    ended = subprocess.run([sys.executable, str(TRAIN), *arguments, go_on], check=False)
    if ended.returncode > 0:
        sys.exit(ended.returncode)
    if ended.returncode:
        raise ValueError(
            f"{folder} must be trained to the end, but train.py ended with the exit code "
            f"{ended.returncode}."
        )


def _evaluate(folder: Path, counts: Counts, settings: str) -> Measured:
    vae = load(folder)
    test = load_data(folder).test
    first_rows = test.take(slice(counts.num_rows))
    by_row = evaluate_rows(vae, first_rows, num_importance_samples=counts.num_samples)
    evaluation = evaluate(vae, test, num_importance_samples=0)
    with (folder / "history.csv").open(encoding="utf-8") as file:
        seconds = [float(epoch["seconds"]) for epoch in csv.DictReader(file)]
    return Measured(
        nll=(-by_row.log_marginal).tolist(),
        negative_elbo=evaluation.negative_elbo.mean,
        rate=evaluation.rate.mean,
        active_units=evaluation.active_units,
        epochs=len(seconds),
        minutes=sum(seconds) / 60,
        num_samples=counts.num_samples,
        settings=settings,
    )


def mean_and_error(values: torch.Tensor) -> str:
    """Write a mean over rows with its standard error, which a single row does not have."""
    estimate = Estimate.over_rows(values)
    error = torch.nan if estimate.row_error is None else estimate.row_error
    return f"{estimate.mean:.2f} ± {error:.2f}"
