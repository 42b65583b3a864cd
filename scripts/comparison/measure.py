"""Train and measure one row: everything it leaves is in its run folder, and what is there is not done again."""

import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from comparison.rows import Row
from pyro_vae import evaluate, load
from pyro_vae.evaluation import evaluate_rows
from pyro_vae.runs import load_data

TRAIN = Path(__file__).parents[1] / "train.py"


class Measured(NamedTuple):
    """What is reported of a row; in nats per row.

    Arguments:
        nll: −log p(x) of each test row, by importance sampling.
        negative_elbo: −ELBO.
        rate: KL(q(z | x) ‖ p(z)).
        active_units: how many latent dimensions are active.
        epochs: how long it was trained.
        minutes: the time that training took.
        num_samples: the draws of z for each row, for −log p(x).
        settings: what was set besides the row's own changes.
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
    """The command that trains the row."""
    return [
        "scripts/train.py",
        row.preset,
        *shlex.split(row.changes),
        *shlex.split(settings),
        "--run",
        str(folder),
    ]


def measure(
    row: Row, folder: Path, num_rows: int, num_samples: int, settings: str = ""
) -> Measured:
    """Train what is not trained to the end, and evaluate what is not evaluated.

    Raises:
        ValueError: training ends with an error, or the folder holds the row as it was measured in another way.
    """
    result = folder / "comparison.json"
    if not result.is_file():
        go_on = "--resume" if (folder / "state.pt").is_file() else "--overwrite"
        ended = subprocess.run(
            [sys.executable, str(TRAIN), *command(row, folder, settings)[1:], go_on], check=False
        )
        if ended.returncode:
            raise ValueError(
                f"{folder} must be trained to the end, but train.py ended with the exit code {ended.returncode}."
            )
        measured = _evaluate(folder, num_rows, num_samples, settings)
        result.write_text(json.dumps(measured._asdict()), encoding="utf-8")
    measured = Measured(**json.loads(result.read_text(encoding="utf-8")))
    received = len(measured.nll), measured.num_samples, measured.settings
    if received != (num_rows, num_samples, settings):
        raise ValueError(
            f"{folder} must be measured with num_rows, num_importance_samples and settings "
            f"{num_rows, num_samples, settings}, got {received}: name another 'out', or remove it."
        )
    return measured


def _evaluate(folder: Path, num_rows: int, num_samples: int, settings: str) -> Measured:
    vae, test = load(folder), load_data(folder).test
    by_row = evaluate_rows(vae, test.take(slice(num_rows)), num_importance_samples=num_samples)
    evaluation = evaluate(vae, test, num_importance_samples=0)
    with (folder / "history.csv").open(encoding="utf-8") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return Measured(
        nll=(-by_row.log_marginal).tolist(),
        negative_elbo=evaluation.negative_elbo.mean,
        rate=evaluation.rate.mean,
        active_units=evaluation.active_units,
        epochs=len(seconds),
        minutes=sum(seconds) / 60,
        num_samples=num_samples,
        settings=settings,
    )


def mean_and_error(values: torch.Tensor) -> str:
    """A mean over rows with its standard error."""
    return f"{values.mean():.2f} ± {values.std() / len(values) ** 0.5:.2f}"
