"""Figures: tensors in, a matplotlib `Figure` out; nothing is saved or shown here."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

# The side of one picture of a grid, in inches.
_SIDE = 0.5


def as_images(x: Tensor) -> Tensor:
    """Rows as pictures, `(B, H, W)` or `(B, H, W, 3)`; what is no image becomes a strip of its numbers."""
    if x.dim() >= 4 and x.shape[-3] == 1:
        return x.squeeze(-3)
    if x.dim() >= 4 and x.shape[-3] == 3:
        return x.movedim(-3, -1)
    return x.flatten(1).unsqueeze(-2) if x.dim() != 3 else x


def image_grid(
    rows: Sequence[Tensor], title: str, row_labels: Sequence[str] = (), max_level: float | None = None
) -> Figure:
    """Pictures in a grid, zero white and the highest level black.

    Arguments:
        rows: the rows of the grid, each a batch of data, `(columns, *x_shape)`.
        title: the title.
        row_labels: what each row shows.
        max_level: the level that is drawn black; the highest there is when omitted.

    Returns:
        The figure.
    """
    images = [as_images(row.detach().cpu().float()) for row in rows]
    high = max(float(row.max()) for row in images) if max_level is None else max_level
    aspect = images[0].shape[2] / images[0].shape[1]
    columns = max(len(row) for row in images)
    figure = Figure(
        figsize=(columns * _SIDE * min(aspect, 2) + (1.2 if row_labels else 0.2), len(images) * _SIDE + 0.5),
        layout="constrained",
    )
    figure.suptitle(title, fontsize="medium")
    axes = figure.subplots(len(images), columns, squeeze=False)
    for number, row in enumerate(images):
        for column in range(columns):
            axis = axes[number, column]
            axis.set(xticks=[], yticks=[])
            axis.set_frame_on(column < len(row))
            if column < len(row):
                axis.imshow(
                    row[column].numpy(),
                    cmap="gray_r",
                    vmin=0,
                    vmax=high,
                    aspect="auto" if images[0].shape[1] == 1 else "equal",
                )
        if row_labels:
            axes[number, 0].set_ylabel(row_labels[number], rotation=0, ha="right", va="center", fontsize="small")
    return figure


def manifold_grid(side: int = 20) -> Tensor:
    """Points of a two-dimensional latent at normal quantiles from 0.05 to 0.95, `(side, side, 2)`, top row first."""
    quantiles = torch.distributions.Normal(0.0, 1.0).icdf(torch.linspace(0.05, 0.95, side))
    second, first = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")
    return torch.stack([first, second], dim=-1)


def manifold(means: Tensor, grid: Tensor) -> Figure:
    """The decoded means over a grid of a two-dimensional latent, as one picture with the latent's axes.

    Arguments:
        means: E[x | z] at each point of the grid, `(side, side, *x_shape)`.
        grid: the points, `(side, side, 2)`, as `manifold_grid` gives them.
    """
    side = grid.shape[0]
    # A margin of one pixel keeps neighbours apart where the data fill their frame.
    images = torch.nn.functional.pad(as_images(means.detach().cpu().flatten(0, 1).float()), (1, 1, 1, 1))
    height, width = images.shape[1:3]
    picture = images.reshape(side, side, height, width).movedim(2, 1).reshape(side * height, side * width)
    figure = Figure(figsize=(6, 6.2), layout="constrained")
    axis = figure.subplots()
    axis.imshow(picture.numpy(), cmap="gray_r", vmin=0, aspect="equal" if height > 1 else "auto")
    axis.set(
        title="Decoded means E[x | z] over the latent plane",
        xlabel="$z_1$ (at normal quantiles 0.05 to 0.95)",
        ylabel="$z_2$",
    )
    places = np.linspace(0, side - 1, 5)
    for set_ticks, values, size in ((axis.set_xticks, grid[0, :, 0], width), (axis.set_yticks, grid[:, 0, 1], height)):
        labels = np.interp(places, np.arange(side), values.cpu().numpy())
        set_ticks((places + 0.5) * size - 0.5, [f"{label:.2f}" for label in labels])
    return figure
