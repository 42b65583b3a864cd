"""Look at a run: prior samples, reconstructions, an interpolation, and a manifold where z is a plane (PNG and .npy)."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae import VAE, Rows, cli, load
from pyro_vae.config import load_settings
from pyro_vae.figures import image_grid, manifold
from pyro_vae.latent import in_plane, quantile_grid, spherical_path, straight_path
from pyro_vae.parts import as_shape, distribution_mean
from pyro_vae.streams import stream


def main() -> int:
    parser = cli.run_parser(__doc__)
    parser.add_argument(
        "--out", type=str | None, default=None, help="where to write; the run folder's samples/ when omitted"
    )
    parser.add_argument(
        "--num_rows", type=int, default=10, help="how many rows to reconstruct, and to draw squared from the prior"
    )
    parser.add_argument("--start", type=int, default=0, help="the test row that the interpolation starts from")
    parser.add_argument("--end", type=int, default=1, help="the test row that it ends at")
    parser.add_argument("--steps", type=int, default=9, help="the points of the interpolation, both ends included")
    parser.add_argument("--spherical", action="store_true", help="interpolate along a great circle")
    parser.add_argument("--dims", type=list[int], default=[0, 1], help="the two latent dimensions of the manifold")
    options = parser.parse_args(sys.argv[1:])
    if options.allow:
        sys.path.append("")  # where the packages that are allowed may lie
    vae = load(options.run, options.weights, options.allow)
    rows = load_settings(options.run, options.allow).data.load().test
    for name in ("start", "end"):
        if not 0 <= options[name] < len(rows):
            raise ValueError(f"'{name}' must be a test row from 0 to {len(rows) - 1}, got {options[name]}.")
    for name in ("num_rows", "steps"):
        as_shape(options[name], name)
    folder = Path(options.out or Path(options.run) / "samples")
    folder.mkdir(parents=True, exist_ok=True)
    with stream(options.seed), torch.no_grad():
        draw_prior(vae, options.num_rows, folder)
        draw_reconstructions(vae, rows, options.num_rows, folder)
        path = spherical_path if options.spherical else straight_path
        draw_interpolation(vae, rows.batch(torch.tensor([options.start, options.end])), path, options.steps, folder)
        if vae.latent_dim > 1:
            draw_manifold(vae, tuple(options.dims), folder)
    print(f"Wrote {', '.join(sorted(file.name for file in folder.iterdir()))} to {folder}.")
    return 0


def draw_prior(vae: VAE, side: int, folder: Path) -> None:
    """The means E[x | z] and draws of x at z from the prior."""
    p_x = vae.decode(vae.prior().sample(torch.Size([side * side])))
    means = distribution_mean(p_x)
    save(folder, "prior_means", means, image_grid(means.split(side), "Means E[x | z] at z from the prior"))
    x = p_x.sample()
    save(folder, "prior_samples", x, image_grid(x.split(side), "Draws from p(z) p(x | z)"))


def draw_reconstructions(vae: VAE, rows: Rows, num_rows: int, folder: Path) -> None:
    """Test rows over their reconstructions."""
    x = rows.batch(slice(num_rows))
    pairs = torch.stack([x, vae.reconstruct(x)])
    save(
        folder,
        "reconstructions",
        pairs,
        image_grid(list(pairs), "Test rows and their reconstructions", ("x", "E[x | z]")),
    )


def draw_interpolation(vae: VAE, ends: Tensor, path: Callable, steps: int, folder: Path) -> None:
    """The decoded means on the way between the latent means of two rows."""
    means = distribution_mean(vae.decode(path(*distribution_mean(vae.encode(ends)), steps)))
    save(folder, "interpolation", means, image_grid([means], "E[x | z] on the way from one test row to another in z"))


def draw_manifold(vae: VAE, dims: tuple[int, int], folder: Path) -> None:
    """The decoded means over a plane of the latent."""
    grid = quantile_grid()
    means = distribution_mean(vae.decode(in_plane(grid, vae.latent_dim, dims)))
    save(folder, "manifold", means, manifold(means, grid, dims=dims))


def save(folder: Path, name: str, values: Tensor, figure: Figure) -> None:
    """The numbers as .npy and the figure as PNG."""
    np.save(folder / f"{name}.npy", values.numpy())
    figure.savefig(folder / f"{name}.png", dpi=120)


if __name__ == "__main__":
    cli.run(main)
