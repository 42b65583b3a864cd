"""Pictures of rows and of decoded latents: functions from tensors to matplotlib figures.

They train, save and show nothing.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from pyro_vae.figures.notebook import NotebookFigure
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.channels import has_channels_last
from pyro_vae.support.checks import check_max_level, check_sizes, whole

# Side of one picture of a grid, in inches.
_SIDE = 0.5


@arguments_checked
def as_images(x: Tensor) -> Tensor:
    """Return rows as pictures, `(B, H, W)` or `(B, H, W, 3)`.

    A row that is no image becomes a strip of its numbers.

    Raises:
        ValueError: if the rows have no axis besides their number.
    """
    if x.dim() < 2:
        raise ValueError(f"'x' must have the shape (B, *x_shape), got {tuple(x.shape)}.")
    x = x.detach().cpu().float()
    if has_channels_last(x.shape[1:]):
        x = x.movedim(-1, 1)
    if x.dim() == 4 and x.shape[1] == 1:
        return x.squeeze(1)
    if x.dim() == 4 and x.shape[1] == 3:
        return x.movedim(1, -1)
    return x if x.dim() == 3 else x.flatten(1).unsqueeze(1)


@arguments_checked
def tiled(rows: Sequence[Tensor]) -> np.ndarray:
    """Return rows of pictures as one picture, with a margin of one pixel between neighbours.

    A short row ends in blanks. Margins and blanks are NaN, which is no level.

    Raises:
        ValueError: if there are no pictures, or pictures of several shapes.
    """
    shapes = {tuple(row.shape[1:]) for row in rows}
    if len(shapes) != 1 or not all(len(row) and row.dim() > 1 and row.numel() for row in rows):
        got = ", ".join(str(tuple(row.shape)) for row in rows) or "none"
        raise ValueError(
            "'rows' must be batches of pictures of one shape, each (columns, *x_shape), got the "
            f"shapes {got}."
        )
    images = [as_images(row) for row in rows]
    height, width, *channels = images[0].shape[1:]
    num_columns = max(map(len, images))
    size = (len(images) * (height + 1) - 1, num_columns * (width + 1) - 1)
    canvas = torch.full((*size, *channels), torch.nan)
    for line, row in enumerate(images):
        top = line * (height + 1)
        for column, image in enumerate(row):
            left = column * (width + 1)
            canvas[top : top + height, left : left + width] = image
    return canvas.numpy()


@arguments_checked
def image_grid(
    rows: Sequence[Tensor],
    title: str,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    max_level: float | None = None,
) -> Figure:
    """Draw pictures in a grid, such as data, reconstructions, samples and interpolations.

    In grey pictures zero is white and the highest level black. In colour pictures zero is dark and
    the highest level bright. If there are values below 0, the lowest one takes the place of zero,
    and a line under the pictures shows the range. Missing entries are white.

    Arguments:
        rows: the rows of the grid, each a batch of data, `(columns, *x_shape)`.
        title: the title.
        row_labels: the labels of the rows.
        column_labels: the labels of the columns.
        max_level: the highest possible level; the highest one present when omitted.

    Raises:
        ValueError: if pictures have several shapes, there are more labels than pictures, or
            `max_level` is not above 0.
    """
    picture = tiled(rows)
    height, width = as_images(rows[0]).shape[1:3]
    num_columns = max(map(len, rows))
    _check_labels("row_labels", row_labels, len(rows))
    _check_labels("column_labels", column_labels, num_columns)
    label_width = 1.2 if row_labels else 0.2
    figure_width = num_columns * _SIDE * min(width / height, 2) + label_width
    figure_height = len(rows) * _SIDE + 0.6
    figure = NotebookFigure(figsize=(figure_width, figure_height), layout="constrained")
    axis = figure.subplots()
    _draw(axis, picture, _Levels.of(picture, max_level))
    figure.suptitle(title, fontsize="medium")
    _label(axis.set_yticks, height, row_labels)
    _label(axis.set_xticks, width, column_labels)
    axis.set_frame_on(False)
    axis.tick_params(length=0, labelsize="small")
    return figure


@arguments_checked
def manifold(
    means: Tensor,
    grid: Tensor,
    title: str = "Decoded means E[x | z]",
    dims: tuple[int, int] = (0, 1),
    max_level: float | None = None,
) -> Figure:
    """Draw the decoded means over a grid of a latent plane, as one picture with latent axes.

    Levels have the colours of `image_grid`.

    Arguments:
        means: E[x | z] at each point of the grid, `(side, side, *x_shape)`.
        grid: the points of the plane, `(side, side, 2)`.
        title: the title.
        dims: the two latent dimensions that span the plane, counted from 0.
        max_level: the highest possible level; the highest one present when omitted.

    Raises:
        ValueError: if `grid` does not fit `means`, or `max_level` is not above 0.
    """
    check_sizes(grid, "grid", "side", "side", 2)
    if means.dim() < 3 or means.shape[:2] != grid.shape[:2]:
        wanted = ", ".join(map(str, grid.shape[:2]))
        raise ValueError(
            f"'means' must have the shape ({wanted}, *x_shape), as the grid, got "
            f"{tuple(means.shape)}."
        )
    picture = tiled(list(means))
    height, width = as_images(means[0]).shape[1:3]
    figure = NotebookFigure(figsize=(6, 6.2), layout="constrained")
    axis = figure.subplots()
    _draw(axis, picture, _Levels.of(picture, max_level))
    axis.set(title=title, xlabel=f"$z_{{{dims[0] + 1}}}$", ylabel=f"$z_{{{dims[1] + 1}}}$")
    _label_latent(axis.set_xticks, grid[0, :, 0], width)
    _label_latent(axis.set_yticks, grid[:, 0, 1], height)
    return figure


@arguments_checked
def animation(
    pictures: Sequence[np.ndarray], titles: Sequence[str], milliseconds: int = 120
) -> FuncAnimation:
    """Animate pictures, each under its title.

    `animation(…).save("name.gif", writer="pillow")` writes a GIF.

    Arguments:
        pictures: one picture for each frame, as `tiled` returns it.
        titles: the title of each frame.
        milliseconds: the duration of a frame.

    Raises:
        ValueError: if pictures have several shapes, or another number of titles.
    """
    shapes = {picture.shape for picture in pictures}
    if len(shapes) != 1 or len(pictures[0].shape) not in (2, 3):
        got = ", ".join(str(picture.shape) for picture in pictures) or "none"
        raise ValueError(
            f"'pictures' must be pictures of one shape, (H, W) or (H, W, 3), got {got}."
        )
    if len(titles) != len(pictures):
        raise ValueError(
            f"'titles' must have one title for each of {len(pictures)} pictures, got {len(titles)}."
        )
    whole(milliseconds, "milliseconds")
    height, width = pictures[0].shape[:2]
    figure = NotebookFigure(figsize=(4.5, 4.5 * height / width + 0.4), layout="constrained")
    axis = figure.subplots()
    levels = _Levels.of(np.stack(pictures))
    image = _draw(axis, pictures[0], levels)
    axis.set(xticks=[], yticks=[])

    def show(frame: int) -> list:
        image.set_data(levels.shown(pictures[frame]))
        axis.set_title(titles[frame], fontsize="medium")
        return [image]

    return FuncAnimation(figure, show, frames=len(pictures), interval=milliseconds)


class _Levels(NamedTuple):
    """Range of drawn levels: from white to black for grey, from dark to bright for colours."""

    low: float
    high: float

    @classmethod
    def of(cls, picture: np.ndarray, max_level: float | None = None) -> "_Levels":
        """Return the range from 0, or from a lower lowest level, to the highest level."""
        if max_level is not None:
            check_max_level(max_level)
        known = picture[np.isfinite(picture)]
        low = min(0.0, float(known.min(initial=0.0)))
        high = float(known.max(initial=low)) if max_level is None else max_level
        return cls(low, high if high > low else low + 1)

    def shown(self, picture: np.ndarray) -> np.ndarray:
        """Return the array for `imshow`: grey levels unchanged, or colours in [0, 1].

        Missing colours are white.
        """
        if picture.ndim == 2:
            return picture
        colours = (picture - self.low) / (self.high - self.low)
        return np.nan_to_num(colours, nan=1.0).clip(0, 1)

    def name(self, picture: np.ndarray) -> str:
        """Name the two ends of the range."""
        first, last = ("white", "black") if picture.ndim == 2 else ("dark", "bright")
        return f"{first}: {self.low:.3g}, {last}: {self.high:.3g}"


def _draw(axis: Axes, picture: np.ndarray, levels: _Levels) -> AxesImage:
    low, high = levels
    shown = levels.shown(picture)
    image = axis.imshow(shown, cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
    # Stretch a strip of one pixel's height, which shows a row that is no image, such as one-hot.
    axis.set_aspect("equal" if picture.shape[0] > 8 else "auto")
    if low < 0:
        axis.figure.supxlabel(levels.name(picture), fontsize="small")
    return image


def _check_labels(name: str, labels: Sequence[str], most: int) -> None:
    if len(labels) > most:
        raise ValueError(f"'{name}' must be at most {most} labels, got {len(labels)}.")


def _label(set_ticks: Callable, size: int, labels: Sequence[str]) -> None:
    places = [number * (size + 1) + (size - 1) / 2 for number in range(len(labels))]
    set_ticks(places, list(labels))


def _label_latent(set_ticks: Callable, values: Tensor, size: int) -> None:
    """Label five pictures of a manifold with the latent values of their points."""
    numbers = np.linspace(0, len(values) - 1, 5)
    labels = np.interp(numbers, np.arange(len(values)), values.cpu().numpy())
    places = numbers * (size + 1) + (size - 1) / 2
    set_ticks(places, [f"{label + 0.0:.2f}" for label in labels.round(2)])
