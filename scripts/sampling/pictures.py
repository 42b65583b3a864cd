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
    """The contexts to draw x in, `(any, Y)`: the label or vector that is wanted, or those of the rows, each once."""
    size = vae.context_dim
    if wanted is None:
        context = rows.context(size)
        return None if context is None else context.unique(dim=0).flip(0)
    is_label = not isinstance(wanted, list) and size > 1 and wanted in range(size)
    y = (
        torch.eye(size)[torch.tensor(wanted).long()]
        if is_label
        else torch.tensor(wanted).reshape(-1)
    )
    if len(y) != size:
        raise ValueError(f"'y' must be a label or a vector for a context of {size}, got {wanted}.")
    return y.unsqueeze(0)


def draw_samples(
    vae: VAE, latent: TorchDistribution | None, y: Tensor | None, side: int, folder: Path, name: str
) -> None:
    """The means E[x | z] and draws of x at z from the prior or from another latent; a row of images for each context."""
    if y is not None:
        y = y[torch.arange(side) % len(y)].repeat_interleave(side, dim=0)
    z = (vae.prior(y) if latent is None else latent).expand(torch.Size([side * side])).sample()
    p_x = vae.decode(z, y)
    means, x = distribution_mean(p_x), p_x.sample()
    save(
        folder,
        f"{name}_means",
        means,
        image_grid(means.split(side), f"Means E[x | z] at z from the {name}"),
    )
    save(
        folder, f"{name}_samples", x, image_grid(x.split(side), f"Draws of x at z from the {name}")
    )


def draw_reconstructions(vae: VAE, rows: Rows, folder: Path) -> None:
    """Test rows over their reconstructions."""
    x = rows.batch(slice(None))
    pairs = torch.stack([x, vae.reconstruct(x, rows.context(vae.context_dim))])
    save(
        folder,
        "reconstructions",
        pairs,
        image_grid(list(pairs), "Test rows and their reconstructions", ("x", "E[x | z]")),
    )


def draw_interpolation(vae: VAE, ends: Rows, path: Callable, steps: int, folder: Path) -> None:
    """The decoded means on the way between the latent means of two rows, in the context of the first."""
    y = ends.context(vae.context_dim)
    z = path(*distribution_mean(vae.encode(ends.batch(slice(None)), y)), steps)
    means = distribution_mean(vae.decode(z, None if y is None else y[0]))
    save(
        folder,
        "interpolation",
        means,
        image_grid([means], "E[x | z] on the way from one test row to another in z"),
    )


def draw_manifold(vae: VAE, y: Tensor | None, dims: tuple[int, int], folder: Path) -> None:
    """The decoded means over a plane of the latent, in one context."""
    grid = quantile_grid()
    means = distribution_mean(vae.decode(in_plane(grid, vae.latent_dim, dims), y))
    save(folder, "manifold", means, manifold(means, grid, dims=dims))


def save(folder: Path, name: str, values: Tensor, figure: Figure) -> None:
    """The numbers as .npy and the figure as PNG."""
    np.save(folder / f"{name}.npy", values.numpy())
    figure.savefig(folder / f"{name}.png", dpi=120)
