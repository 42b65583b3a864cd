"""Look at a run: prior samples, reconstructions, an interpolation, and a manifold of z.

Each is written as PNG and as .npy.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from jsonargparse.typing import PositiveInt
from pyro.distributions import TorchDistribution

from pyro_vae import VAE, AggregatedPosterior, Rows, gaussian_mixture, load_data
from pyro_vae.commands import pictures
from pyro_vae.commands.loading import loaded_vae
from pyro_vae.figures import in_plane, quantile_grid, spherical_path, straight_path
from pyro_vae.runs import SentenceParser, output_folder, run_options, run_parser
from pyro_vae.support import stream

# Distributions of z, given the VAE and the training rows. It is None for the prior, whose draws may
# need a context.
LATENTS: dict[str, Callable[[VAE, Rows], TorchDistribution | None]] = {
    "prior": lambda vae, rows: None,
    "aggregated": AggregatedPosterior,
    "mixture": gaussian_mixture,
}

# The most images on a side of a picture; a square of so many takes some seconds and 1 GB.
MOST_ON_A_SIDE = 200


def main() -> int:
    """Draw the pictures of a run."""
    options = run_options(command_parser())
    run = Path(options.run)
    folder = output_folder(run / "samples" if options.out is None else options.out, "out")
    vae = loaded_vae(options)
    splits = load_data(options.run, options.allow)
    rows = splits.test
    for name in ("start", "end"):
        if not 0 <= options[name] < len(rows):
            raise ValueError(
                f"'{name}' must be a test row from 0 to {len(rows) - 1}, got {options[name]}."
            )
    for name in ("num_rows", "steps"):
        if options[name] > MOST_ON_A_SIDE:
            raise ValueError(
                f"'{name}' must be at most {MOST_ON_A_SIDE}, since so many images fit on a side of "
                f"a picture, got {options[name]}."
            )
    if options.steps < 2:
        raise ValueError(f"'steps' must be at least 2, for both ends, got {options.steps}.")
    y = pictures.contexts(vae, rows, options.y)
    dims = tuple(options.dims)
    if vae.latent_dim > 1:
        in_plane(quantile_grid(), vae.latent_dim, dims)  # refuses wrong dimensions
    path = spherical_path if options.spherical else straight_path
    ends = rows.take(torch.tensor([options.start, options.end]))
    with stream(options.seed), torch.no_grad():
        latent = LATENTS[options.latent](vae, splits.train)
        pictures.draw_samples(vae, latent, y, options.num_rows, folder, options.latent)
        pictures.draw_reconstructions(vae, rows.take(slice(options.num_rows)), folder)
        pictures.draw_interpolation(vae, ends, path, options.steps, folder)
        if vae.latent_dim > 1:
            first_y = None if y is None else y[0]
            pictures.draw_manifold(vae, first_y, dims, folder)
    written = sorted(file.name for file in folder.iterdir())
    print(f"Wrote {', '.join(written)} to {folder}.")
    return 0


def command_parser() -> SentenceParser:
    """Return the parser of the command line."""
    parser = run_parser(__doc__)
    parser.add_argument(
        "--out",
        type=str | None,
        default=None,
        help="where to write; the run folder's samples/ when omitted",
    )
    parser.add_argument(
        "--num_rows",
        type=PositiveInt,
        default=10,
        help="the number of rows to reconstruct, and the side of the square of draws",
    )
    parser.add_argument(
        "--latent",
        type=Literal[tuple(LATENTS)],
        default="prior",
        help="the distribution of z: the prior, the aggregated posterior of the training rows, or "
        "a mixture fitted to it",
    )
    parser.add_argument(
        "--y",
        type=float | list[float] | None,
        default=None,
        help="the context of draws: a label, or a vector; several when omitted",
    )
    parser.add_argument(
        "--start", type=int, default=0, help="the test row that the interpolation starts from"
    )
    parser.add_argument("--end", type=int, default=1, help="the test row that it ends at")
    parser.add_argument(
        "--steps",
        type=PositiveInt,
        default=9,
        help="the points of the interpolation, both ends included",
    )
    parser.add_argument("--spherical", action="store_true", help="interpolate along a great circle")
    parser.add_argument(
        "--dims", type=list[int], default=[0, 1], help="the two latent dimensions of the manifold"
    )
    return parser
