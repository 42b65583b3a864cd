"""Evaluate a run: -ELBO, rate, distortion and log p(x) in nats per row with their errors, and active units."""

import sys

import torch
from jsonargparse import Namespace

from pyro_vae import VAE, Evaluation, TotalCorrelationELBO, evaluate, load, load_data, rows_like
from pyro_vae.data import Rows
from pyro_vae.evaluation import ACTIVE_VARIANCE
from pyro_vae.figures import kl_by_dimension
from pyro_vae.runs import RunFolder, load_settings, run, run_parser
from pyro_vae.support import as_shape, stream

# The rows among which the parts of the rate are estimated: the work grows with their square.
RATE_ROWS = 1_000


def main() -> int:
    options = read_options()
    if options.num_rows is not None:
        as_shape(options.num_rows, "num_rows")
    vae = load(options.run, options.weights, options.allow)
    rows = read_rows(options.run, options.split, options.data, options.allow).take(
        slice(options.num_rows)
    )
    counts = {
        "num_samples": options.num_samples,
        "num_importance_samples": options.num_importance_samples,
    }
    evaluation = evaluate(vae, rows, **counts, seed=options.seed)
    print(evaluation.table())
    objective = load_settings(options.run, options.allow).training.objective
    if isinstance(objective, TotalCorrelationELBO):
        print(rate_terms(vae, rows.take(slice(RATE_ROWS)), objective, options.seed))
    if options.data is None and options.num_rows is None and options.split == "test":
        save(evaluation, RunFolder(options.run))
    return 0


def read_options() -> Namespace:
    """What the command line says."""
    parser, splits = run_parser(__doc__), ("train", "validation", "test")
    parser.add_argument(
        "--split", type=str, choices=splits, default="test", help="which rows of the run's data"
    )
    parser.add_argument(
        "--data",
        type=str | None,
        default=None,
        help="a .npy or .npz file of other rows, made x alike",
    )
    parser.add_argument(
        "--num_rows", type=int | None, default=None, help="only the first rows; all when omitted"
    )
    parser.add_argument(
        "--num_samples",
        type=int,
        default=10,
        help="draws of z a row for -ELBO, rate and distortion",
    )
    parser.add_argument(
        "--num_importance_samples",
        type=int,
        default=100,
        help="draws of z a row for log p(x), or 0",
    )
    options = parser.parse_args(sys.argv[1:])
    if options.allow:
        sys.path.append("")  # where the packages that are allowed may lie
    return options


@torch.no_grad()
def rate_terms(vae: VAE, rows: Rows, objective: TotalCorrelationELBO, seed: int) -> str:
    """The rate of these rows in the three parts that the objective weighs."""
    with stream(seed):
        terms = objective.terms(
            vae.model, vae.guide, rows.batch(slice(None)), rows.context(vae.context_dim)
        )
    parts = ", ".join(
        f"{name.replace('_', ' ')} {value.item():.3f}" for name, value in terms._asdict().items()
    )
    return f"rate of {len(rows)} rows in nats: {parts}"


def save(evaluation: Evaluation, folder: RunFolder) -> None:
    """The metrics, and the KL of each latent dimension where there is such a thing."""
    folder.save_metrics(evaluation)
    if evaluation.rate_by_dim is not None:
        rates = [estimate.mean for estimate in evaluation.rate_by_dim]
        is_active = [variance > ACTIVE_VARIANCE for variance in evaluation.active_variance]
        figure = kl_by_dimension(rates, is_active, "KL by latent dimension, test rows")
        figure.savefig(folder.path / "kl_by_dimension.png", dpi=120)


def read_rows(run: str, split: str, path: str | None, allow: list[str]) -> Rows:
    """The rows of a split of the run's data, or of a file."""
    if path is not None:
        return rows_like(run, path, allow)
    rows = getattr(load_data(run, allow), split)
    if rows is None:
        raise ValueError(
            "'split' must be train or test, since the run set no validation rows apart, got validation."
        )
    return rows


if __name__ == "__main__":
    run(main)
