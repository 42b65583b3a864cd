"""Figures of data, latents and training: functions from tensors to matplotlib figures.

They train, save and show nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyro_vae.support.channels import has_channels_last
from pyro_vae.support.checks import check_max_level
from pyro_vae.training.history import Epoch

# Side of one picture of a grid, in inches.
_SIDE = 0.5


def as_images(x: Tensor) -> Tensor:
    """Return rows as pictures, `(B, H, W)` or `(B, H, W, 3)`.

    A row that is no image becomes a strip of its numbers.
    """
    x = x.detach().cpu().float()
    if has_channels_last(x.shape[1:]):
        x = x.movedim(-1, 1)
    if x.dim() == 4 and x.shape[1] == 1:
        return x.squeeze(1)
    if x.dim() == 4 and x.shape[1] == 3:
        return x.movedim(1, -1)
    return x if x.dim() == 3 else x.flatten(1).unsqueeze(1)


def tiled(rows: Sequence[Tensor]) -> np.ndarray:
    """Return rows of pictures as one picture, with a margin of one pixel between neighbours.

    A short row ends in blanks. Margins and blanks are NaN, which is no level.
    """
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
        ValueError: if `max_level` is not above 0.
    """
    picture = tiled(rows)
    height, width = as_images(rows[0]).shape[1:3]
    num_columns = max(map(len, rows))
    label_width = 1.2 if row_labels else 0.2
    figure_width = num_columns * _SIDE * min(width / height, 2) + label_width
    figure_height = len(rows) * _SIDE + 0.6
    figure = Figure(figsize=(figure_width, figure_height), layout="constrained")
    axis = figure.subplots()
    _draw(axis, picture, _Levels.of(picture, max_level))
    figure.suptitle(title, fontsize="medium")
    _label(axis.set_yticks, height, row_labels)
    _label(axis.set_xticks, width, column_labels)
    axis.set_frame_on(False)
    axis.tick_params(length=0, labelsize="small")
    return figure


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
        ValueError: if `max_level` is not above 0.
    """
    height, width = as_images(means[0]).shape[1:3]
    figure = Figure(figsize=(6, 6.2), layout="constrained")
    axis = figure.subplots()
    picture = tiled(list(means))
    _draw(axis, picture, _Levels.of(picture, max_level))
    axis.set(title=title, xlabel=f"$z_{{{dims[0] + 1}}}$", ylabel=f"$z_{{{dims[1] + 1}}}$")
    _label_latent(axis.set_xticks, grid[0, :, 0], width)
    _label_latent(axis.set_yticks, grid[:, 0, 1], height)
    return figure


def elbo_history(
    history: Sequence[Epoch], title: str, published: Mapping[int, float] | None = None
) -> Figure:
    """Draw −ELBO by epoch: training (the objective), validation, test and published values.

    Arguments:
        history: the epochs.
        title: the title.
        published: published values of −ELBO by epoch, drawn as circles.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    epochs = [row.epoch for row in history]
    for name, style in (("train", "-"), ("validation", ":"), ("test", "--")):
        losses = [getattr(row, f"{name}_loss") for row in history]
        if None not in losses:
            axis.plot(epochs, losses, style, label=name)
    if published:
        epochs = list(published)
        losses = list(published.values())
        axis.plot(epochs, losses, "ko", fillstyle="none", label="published")
    axis.set(title=title, xlabel="epoch", ylabel="−ELBO (nats per row)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend()
    return figure


def latent_scatter(
    z: Tensor,
    labels: Tensor,
    title: str,
    axis_labels: tuple[str, str] = ("$z_1$", "$z_2$"),
    names: Sequence[str] = (),
    colour_bar: bool = False,
) -> Figure:
    """Draw points of a plane by class, with the name of each class at its median.

    The names make the figure readable without colours.

    Arguments:
        z: the points, `(N, 2)`: draws, modes, or an embedding.
        labels: the class of each point, `(N,)`.
        title: the title.
        axis_labels: the names of the axes.
        names: the name of each class; its number when omitted.
        colour_bar: True explains the colours by a bar, False by a legend.
    """
    figure = Figure(figsize=(6.6, 5.4), layout="constrained")
    axis = figure.subplots()
    z = z.detach().cpu()
    classes = labels.unique().tolist()
    names = list(names) or [str(label) for label in classes]
    colours = [f"C{number % 10}" for number in range(len(classes))]
    size = min(20.0, max(3.0, 8000 / len(z)))
    for label, name, colour in zip(classes, names, colours, strict=True):
        points = z[labels == label]
        first, second = points.T.numpy()
        axis.scatter(first, second, s=size, color=colour, alpha=0.5, linewidths=0, label=name)
        middle = tuple(points.median(0).values.tolist())
        outline = [withStroke(linewidth=2.5, foreground="white")]
        axis.annotate(name, middle, ha="center", va="center", weight="bold", path_effects=outline)
    axis.set(title=title, xlabel=axis_labels[0], ylabel=axis_labels[1])
    if colour_bar:
        edges = np.arange(len(classes) + 1)
        mapping = ScalarMappable(BoundaryNorm(edges, len(classes)), ListedColormap(colours))
        bar = figure.colorbar(mapping, ax=axis, label="class")
        bar.set_ticks((edges[:-1] + 0.5).tolist(), labels=names)
    else:
        figure.legend(loc="outside right upper", markerscale=2, title="class")
    return figure


def kl_by_dimension(rates: Sequence[float], is_active: Sequence[bool], title: str) -> Figure:
    """Draw the rate of each latent dimension in descending order, inactive ones hatched.

    Arguments:
        rates: the KL of each dimension, in nats per row.
        is_active: True for the dimensions that vary with x.
        title: the title.
    """
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.subplots()
    order = sorted(range(len(rates)), key=lambda dim: -rates[dim])
    for name, active, hatch in (("active", True, ""), ("inactive", False, "////")):
        places = [place for place, dim in enumerate(order) if bool(is_active[dim]) is active]
        heights = [rates[order[place]] for place in places]
        if places:
            color = "C0" if active else "white"
            label = f"{name}: {len(places)}"
            axis.bar(places, heights, color=color, edgecolor="black", hatch=hatch, label=label)
    axis.set_xticks(range(len(order)), [str(dim + 1) for dim in order], fontsize="x-small")
    axis.set(title=title, xlabel="latent dimension", ylabel="KL (nats per row)")
    axis.legend()
    return figure


def score_histogram(
    scores: Tensor, marked: Mapping[str, float], title: str, label: str = "KL (nats)"
) -> Figure:
    """Draw a histogram of a score over rows, with some rows or thresholds marked.

    Arguments:
        scores: one number for each row, `(N,)`.
        marked: the scores to mark, by their names.
        title: the title.
        label: the name of the score, with its unit.
    """
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axis = figure.subplots()
    axis.hist(scores.detach().cpu().numpy(), bins=80, color="0.75", label=f"{len(scores):,} rows")
    for number, (name, value) in enumerate(marked.items()):
        style = ("--", ":", "-.", "-")[number % 4]
        axis.axvline(value, color=f"C{number}", linestyle=style, label=f"{name}: {value:.1f}")
    axis.set(title=title, xlabel=label, ylabel="rows")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def animation(
    pictures: Sequence[np.ndarray], titles: Sequence[str], milliseconds: int = 120
) -> FuncAnimation:
    """Animate pictures, each under its title.

    `animation(…).save("name.gif", writer="pillow")` writes a GIF.

    Arguments:
        pictures: one picture for each frame, as `tiled` returns it.
        titles: the title of each frame.
        milliseconds: the duration of a frame.
    """
    height, width = pictures[0].shape[:2]
    figure = Figure(figsize=(4.5, 4.5 * height / width + 0.4), layout="constrained")
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


def _label(set_ticks: Callable, size: int, labels: Sequence[str]) -> None:
    places = [number * (size + 1) + (size - 1) / 2 for number in range(len(labels))]
    set_ticks(places, list(labels))


def _label_latent(set_ticks: Callable, values: Tensor, size: int) -> None:
    """Label five pictures of a manifold with the latent values of their points."""
    numbers = np.linspace(0, len(values) - 1, 5)
    labels = np.interp(numbers, np.arange(len(values)), values.cpu().numpy())
    places = numbers * (size + 1) + (size - 1) / 2
    set_ticks(places, [f"{label + 0.0:.2f}" for label in labels.round(2)])
