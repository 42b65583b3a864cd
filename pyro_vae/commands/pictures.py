"""Pictures of a run, with the numbers they show."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_vae import VAE, Rows
from pyro_vae.distributions import distribution_mean
from pyro_vae.figures import image_grid, in_plane, manifold, quantile_grid


def contexts(vae: VAE, rows: Rows, wanted: float | list[float] | None) -> Tensor | None:
    """Return the contexts to draw x in, `(any, Y)`; None for a VAE without a context.

    Arguments:
        vae: the VAE.
        rows: the rows whose distinct contexts are returned if none is wanted.
        wanted: a label or a vector.
    """
    size = vae.context_dim
    if wanted is None:
        context = vae.context_of(rows) if size else None
        return None if context is None else context[:, :size].unique(dim=0).flip(0)
    y = torch.tensor(wanted).reshape(-1)
    is_label = not isinstance(wanted, list) and size > 1 and wanted in range(size)
    if is_label:
        y = torch.eye(size)[y.long()].squeeze(0)
    if not size:
        raise ValueError(f"'y' is for a VAE with a context, got {_text(wanted)} for one without.")
    if len(y) != size:
        raise ValueError(
            f"'y' must be a label from 0 to {size - 1}, or a list of {size} numbers, for this VAE, "
            f"got {_text(wanted)}."
        )
    return y.unsqueeze(0)


def _text(wanted: float | list[float]) -> str:
    return str(wanted) if isinstance(wanted, list) else f"{wanted:g}"


def draw_samples(
    vae: VAE,
    latent: TorchDistribution | None,
    y: Tensor | None,
    side: int,
    folder: Path,
    name: str,
) -> None:
    """Draw a square of E[x | z] and one of draws of x, with a row of images for each context.

    Arguments:
        vae: the VAE.
        latent: the distribution of z; None for the prior.
        y: the contexts, `(any, Y)`.
        side: the images on each side of a square.
        folder: where to write.
        name: the name of the distribution of z, in titles and files.
    """
    if y is not None:
        y = y[torch.arange(side) % len(y)].repeat_interleave(side, dim=0)
    p_z = vae.p_z(y) if latent is None else latent
    z = p_z.expand(torch.Size([side * side])).sample()
    p_x = vae.decode(z, y)
    means = distribution_mean(p_x)
    x = p_x.sample()
    figure = image_grid(means.split(side), f"Means E[x | z] at z from the {name}")
    save(folder, f"{name}_means", means, figure)
    figure = image_grid(x.split(side), f"Draws of x at z from the {name}")
    save(folder, f"{name}_samples", x, figure)


def draw_reconstructions(vae: VAE, rows: Rows, folder: Path) -> None:
    """Draw rows over their reconstructions."""
    x = rows.batch(slice(None))
    pairs = torch.stack([x, vae.reconstruct(x, vae.context_of(rows))])
    title = "Test rows and their reconstructions"
    save(folder, "reconstructions", pairs, image_grid(list(pairs), title, ("x", "E[x | z]")))


def draw_interpolation(vae: VAE, ends: Rows, path: Callable, steps: int, folder: Path) -> None:
    """Draw E[x | z] at z between the latent means of two rows, in the context of the first.

    Arguments:
        vae: the VAE.
        ends: the two rows.
        path: from two z and a number of steps to the z between them.
        steps: the number of images, both ends included.
        folder: where to write.
    """
    y = vae.context_of(ends)
    first, last = distribution_mean(vae.encode(ends.batch(slice(None)), y))
    z = path(first, last, steps)
    means = distribution_mean(vae.decode(z, None if y is None else y[0]))
    title = "E[x | z] on the way from one test row to another in z"
    save(folder, "interpolation", means, image_grid([means], title))


def draw_manifold(vae: VAE, y: Tensor | None, dims: tuple[int, int], folder: Path) -> None:
    """Draw E[x | z] over a plane of the latent, in one context."""
    grid = quantile_grid()
    z = in_plane(grid, vae.latent_dim, dims)
    means = distribution_mean(vae.decode(z, y))
    save(folder, "manifold", means, manifold(means, grid, dims=dims))


def save(folder: Path, name: str, values: Tensor, figure: Figure) -> None:
    """Write the numbers as .npy and the figure as PNG, in a folder that need not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name}.npy", values.numpy())
    figure.savefig(folder / f"{name}.png", dpi=120)
