"""Diagnose a run: collapse, calibration, k-hat by row, bounds on log p(x), and gaps.

The result is written as JSON, and as a page with figures.
"""

from pathlib import Path

import torch
from jsonargparse.typing import PositiveInt
from matplotlib.figure import Figure

from pyro_vae import VAE, figures, load_data
from pyro_vae.commands.loading import loaded_vae
from pyro_vae.commands.page import Page
from pyro_vae.diagnostics import Diagnosis, diagnose
from pyro_vae.runs import SentenceParser, output_folder, run_options, run_parser, write_atomically
from pyro_vae.support import evaluating, progress_shown

# Number of rows in the figure of the rows with the highest k-hat.
NUM_WORST = 12


def main() -> int:
    """Diagnose a run, and write the page."""
    options = run_options(command_parser())
    run = Path(options.run)
    folder = output_folder(run / "diagnosis" if options.out is None else options.out, "out")
    vae = loaded_vae(options)
    rows = load_data(options.run, options.allow).test
    with progress_shown(options.progress):
        found = diagnose(
            vae,
            rows,
            num_rows=options.num_rows,
            num_samples=options.num_samples,
            num_annealed=options.num_annealed,
            num_temperatures=options.num_temperatures,
            seed=options.seed,
        )
    page = write_page(found, vae, folder, options.run)
    write_atomically(folder / "diagnosis.json", lambda file: file.write(found.to_json().encode()))
    print("\n".join([*found.verdict(), found.advice(), f"The figures are in {page}."]))
    return 0


def command_parser() -> SentenceParser:
    """Return the parser of the command line."""
    parser = run_parser(__doc__)
    parser.add_argument(
        "--num_rows",
        type=PositiveInt,
        default=1000,
        help="the number of test rows, and of simulated rows",
    )
    parser.add_argument(
        "--num_samples", type=PositiveInt, default=1000, help="draws of z a row behind its k-hat"
    )
    parser.add_argument(
        "--num_annealed",
        type=PositiveInt,
        default=100,
        help="rows whose log p(x) is bounded by annealing",
    )
    parser.add_argument(
        "--num_temperatures", type=PositiveInt, default=200, help="steps of annealing"
    )
    parser.add_argument(
        "--out",
        type=str | None,
        default=None,
        help="the folder to write; RUN/diagnosis when omitted",
    )
    return parser


def write_page(found: Diagnosis, vae: VAE, folder: Path, run: str) -> Path:
    """Write the verdict, the numbers, and the figures."""
    page = Page(folder, f"Diagnosis of {run}", "diagnosis.md")
    page.text(*found.verdict(), f"**{found.advice()}**")
    page.table(["part", "seconds"], [[name, seconds] for name, seconds in found.seconds.items()])
    khat = figures.khat_histogram(found.weights.khat, "Pareto k-hat of test rows")
    page.figure("khat", khat, "k-hat by row")
    worst = worst_rows(found, vae)
    page.figure("worst_rows", worst, "the rows with the highest k-hat, over their reconstructions")
    title = "Ranks of the true z among draws of q(z | x)"
    ranks = figures.rank_histograms(found.calibration, title)
    page.figure("ranks", ranks, "calibration")
    coverage = figures.coverage_curve(found.calibration, "Intervals of q(z | x)")
    page.figure("coverage", coverage, "coverage")
    bounds = found.simulated
    title = "log p(x) of simulated rows"
    sandwich = figures.sandwich(bounds.lower, bounds.upper, found.simulated_bound, title)
    page.figure("sandwich", sandwich, "bounds")
    return page.write()


@torch.no_grad()
def worst_rows(found: Diagnosis, vae: VAE) -> Figure:
    """Show the rows with the highest k-hat over their reconstructions."""
    index = found.weights.khat.argsort(descending=True)[:NUM_WORST]
    x = found.x[index]
    y = None if found.y is None else found.y[index]
    with evaluating(vae):
        means = vae.reconstruct(x, y)
    title = "The rows with the highest k-hat"
    return figures.worst_rows(x, means, found.weights.khat[index], title)
