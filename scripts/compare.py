"""Compare parts on MNIST, one changed at a time: `compare.py [ROW ...] [--out FOLDER]`.

Every row is a run folder under FOLDER. After an interruption the same command continues: finished
rows are not trained again.
"""

import shlex
import sys
from pathlib import Path

import door
import torch
from choice import chosen
from comparison.measure import Counts, Measured, check, command, mean_and_error, measure
from comparison.rows import ROWS
from jsonargparse.typing import PositiveInt

from pyro_vae.commands.page import Page
from pyro_vae.runs import SentenceParser, output_folder
from pyro_vae.support.checks import one_line

HEADER = (
    "row",
    "what",
    "−log p(x)",
    "difference",
    "−ELBO",
    "KL",
    "active",
    "epochs",
    "minutes",
)


def main() -> int:
    parser = SentenceParser(description=__doc__)
    parser.add_argument(
        "rows", nargs="*", default=list(ROWS), help=f"the rows: {', '.join(ROWS)}; all when omitted"
    )
    parser.add_argument(
        "--out", type=str, default="runs/compare", help="where the run folders and results.md go"
    )
    parser.add_argument(
        "--num_rows", type=PositiveInt, default=2000, help="the first test rows, for −log p(x)"
    )
    parser.add_argument(
        "--num_importance_samples",
        type=PositiveInt,
        default=500,
        help="draws of z a row, for −log p(x)",
    )
    parser.add_argument(
        "--settings",
        type=str,
        default="",
        help="additional settings for every row, as train.py takes them",
    )
    options = parser.parse_args(sys.argv[1:])
    rows = chosen(options.rows, "rows", tuple(ROWS), of_all=())
    out = output_folder(options.out, "out")
    try:
        shlex.split(options.settings)
    except ValueError as error:
        raise ValueError(f"'settings' must be words as in a shell: {one_line(error)}.") from error
    for name in rows:
        check(ROWS[name], options.settings)
    counts = Counts(options.num_rows, options.num_importance_samples)
    measured: dict[str, Measured] = {}
    for name, row in ROWS.items():
        if name in rows or (out / name / "comparison.json").is_file():
            measured[name] = measure(row, out / name, counts, options.settings)
            print(f"Wrote {write(measured, out)}.")
    return 0


def write(measured: dict[str, Measured], out: Path) -> Path:
    """Write the table so far, and the command of each row."""
    page = Page(out, "Parts compared")
    page.text(
        "MNIST, dynamic binarisation, one seed. −log p(x) in nats by importance sampling on the "
        "same test rows, ± the standard error over rows; the difference is to the row named, on "
        "paired rows. −ELBO and KL on all test rows."
    )
    page.table(HEADER, [_cells(name, measured) for name in measured])
    for name, values in measured.items():
        words = command(ROWS[name], out / name, values.settings)
        page.text(f"`{name}`: `python {' '.join(words)}`")
    return page.write()


def _cells(name: str, measured: dict[str, Measured]) -> list[str]:
    """Return the line of the table for one row, under `HEADER`."""
    row = ROWS[name]
    values = measured[name]
    nll = torch.tensor(values.nll)
    difference = ""
    if row.sibling in measured:
        nll_of_sibling = torch.tensor(measured[row.sibling].nll)
        difference = f"{mean_and_error(nll - nll_of_sibling)} to `{row.sibling}`"
    return [
        f"`{name}`",
        row.title,
        mean_and_error(nll),
        difference,
        f"{values.negative_elbo:.2f}",
        f"{values.rate:.2f}",
        str(values.active_units),
        str(values.epochs),
        f"{values.minutes:.1f}",
    ]


if __name__ == "__main__":
    door.run(main)
