"""Evaluate a run: -ELBO, rate, distortion, log p(x) and active units.

The first four are in nats per row, with their errors.
"""

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt

from pyro_vae import (
    VAE,
    Evaluation,
    Rows,
    TotalCorrelationELBO,
    evaluate,
)
from pyro_vae.commands.loading import add_rows, chosen_rows, loaded_vae
from pyro_vae.evaluation import ACTIVE_VARIANCE
from pyro_vae.figures import kl_by_dimension
from pyro_vae.runs import RunFolder, SentenceParser, load_settings, run_options, run_parser
from pyro_vae.support import progress_shown, stream

# Rows for the parts of the rate: the work grows with the square of their number.
RATE_ROWS = 1_000


def main() -> int:
    """Evaluate a run on rows of its data, or on others."""
    options = run_options(command_parser())
    vae = loaded_vae(options)
    rows = chosen_rows(options).take(slice(options.num_rows))
    with progress_shown(options.progress):
        evaluation = evaluate(
            vae,
            rows,
            num_samples=options.num_samples,
            num_importance_samples=options.num_importance_samples,
            seed=options.seed,
        )
    print(evaluation.table())
    objective = load_settings(options.run, options.allow).training.objective
    if isinstance(objective, TotalCorrelationELBO):
        print(rate_terms(vae, rows.take(slice(RATE_ROWS)), objective, options.seed))
    if options.data is None and options.num_rows is None and options.split in (None, "test"):
        save(evaluation, RunFolder(options.run))
    return 0


def command_parser() -> SentenceParser:
    """Return the parser of the command line."""
    parser = run_parser(__doc__)
    add_rows(parser, "--data")
    parser.add_argument(
        "--num_rows",
        type=PositiveInt | None,
        default=None,
        help="only the first rows; all when omitted",
    )
    parser.add_argument(
        "--num_samples",
        type=PositiveInt,
        default=10,
        help="draws of z a row for -ELBO, rate and distortion",
    )
    parser.add_argument(
        "--num_importance_samples",
        type=NonNegativeInt,
        default=100,
        help="draws of z a row for log p(x), or 0",
    )
    return parser


@torch.no_grad()
def rate_terms(vae: VAE, rows: Rows, objective: TotalCorrelationELBO, seed: int) -> str:
    """Write the rate of these rows in the three parts that the objective weights."""
    with stream(seed):
        x = rows.batch(slice(None))
        y = vae.context_of(rows)
        terms = objective.terms(vae.model, vae.guide, x, y)
    parts = []
    for name, value in terms._asdict().items():
        parts.append(f"{name.replace('_', ' ')} {value.item():.3f}")
    return f"rate of {len(rows)} rows in nats: {', '.join(parts)}"


def save(evaluation: Evaluation, folder: RunFolder) -> None:
    """Save the metrics, and a figure of the KL of each latent dimension if it is known."""
    folder.save_metrics(evaluation)
    if evaluation.rate_by_dim is not None:
        rates = [estimate.mean for estimate in evaluation.rate_by_dim]
        is_active = [variance > ACTIVE_VARIANCE for variance in evaluation.active_variance]
        figure = kl_by_dimension(rates, is_active, "KL by latent dimension, test rows")
        figure.savefig(folder.path / "kl_by_dimension.png", dpi=120)
