"""Score rows by how unlike a run's training data they are: `detect.py RUN DATA [--out scores.csv]`.

The scores are written as CSV.
"""

import csv
from pathlib import Path
from typing import Literal

from jsonargparse.typing import OpenUnitInterval

from pyro_vae import load_data, rows_like
from pyro_vae.commands.loading import loaded_vae
from pyro_vae.evaluation import AnomalyScores, anomaly_scores, threshold
from pyro_vae.runs import SentenceParser, output_file, run_options, run_parser
from pyro_vae.support import progress_shown

# The names of the columns.
HEADER = ("row", *AnomalyScores._fields, "is_anomalous")


def main() -> int:
    """Score the rows of a file, and write the scores."""
    options = run_options(command_parser())
    out = output_file(options.out, "out", begins=",".join(HEADER))
    vae = loaded_vae(options)
    rows = rows_like(options.run, options.data, options.allow)
    vae.check(rows.batch(slice(None)))  # before the scores of the test rows, which take long
    with progress_shown(options.progress):
        test = load_data(options.run, options.allow).test
        held_out = anomaly_scores(vae, test, seed=options.seed)
        line = threshold(getattr(held_out, options.score), options.false_positive_rate)
        scores = anomaly_scores(vae, rows, seed=options.seed)
    is_anomalous = [value > line for value in getattr(scores, options.score).tolist()]
    write(scores, is_anomalous, out)
    print(
        f"{sum(is_anomalous)} of {len(rows)} rows have {options.score} above {line:.3f}; "
        f"scores are in {out}."
    )
    return 0


def command_parser() -> SentenceParser:
    """Return the parser of the command line."""
    parser = run_parser(__doc__)
    parser.add_argument(
        "data", type=str, help="a .npy or .npz file of rows, prepared as the run's data are"
    )
    parser.add_argument("--out", type=str, default="scores.csv", help="the CSV file to write")
    parser.add_argument(
        "--score",
        type=Literal[AnomalyScores._fields],
        default="negative_elbo",
        help="the score that decides which rows are anomalous",
    )
    parser.add_argument(
        "--false_positive_rate",
        type=OpenUnitInterval,
        default=0.05,
        help="the share of the run's test rows above the threshold",
    )
    return parser


def write(scores: AnomalyScores, is_anomalous: list[bool], path: Path) -> None:
    """Write a CSV line for each row: its number, its scores, and True if it is anomalous."""
    columns = [column.tolist() for column in scores]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for number, cells in enumerate(zip(*columns, is_anomalous, strict=True)):
            writer.writerow([number, *cells])
