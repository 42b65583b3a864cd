"""Figures: tensors in, a matplotlib `Figure` or animation out; nothing is trained, saved or shown here."""

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

# The side of one picture of a grid, in inches.
_SIDE = 0.5


def as_images(x: Tensor) -> Tensor:
    """Rows as pictures, `(B, H, W)` or `(B, H, W, 3)`; what is no image becomes a strip of its numbers."""
    x = x.detach().cpu().float()
    if has_channels_last(x.shape[1:]):
        x = x.movedim(-1, 1)
    if x.dim() == 4 and x.shape[1] == 1:
        return x.squeeze(1)
    if x.dim() == 4 and x.shape[1] == 3:
        return x.movedim(1, -1)
    return x if x.dim() == 3 else x.flatten(1).unsqueeze(1)


def tiled(rows: Sequence[Tensor]) -> np.ndarray:
    """Rows of pictures as one picture, with a margin of one pixel between neighbours; a short row ends in blanks.

    Margins and blanks are NaN, which is no level.
    """
    images = [as_images(row) for row in rows]
    height, width, columns = images[0].shape[1] + 1, images[0].shape[2] + 1, max(map(len, images))
    size = len(images) * height - 1, columns * width - 1
    canvas = torch.full((*size, *images[0].shape[3:]), torch.nan)
    for top, row in enumerate(images):
        for left, image in enumerate(row):
            canvas[top * height : (top + 1) * height - 1, left * width : (left + 1) * width - 1] = image
    return canvas.numpy()


def image_grid(
    rows: Sequence[Tensor],
    title: str,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    max_level: float | None = None,
) -> Figure:
    """Pictures in a grid: data, reconstructions, samples, interpolations.

    Of grey pictures zero is white and the highest level black; of colours zero is dark and the highest
    level bright. Where there are values below 0, the lowest takes the place of zero, and a line under
    the pictures names the range. What is missing is white.

    Arguments:
        rows: the rows of the grid, each a batch of data, `(columns, *x_shape)`.
        title: the title.
        row_labels: what each row shows.
        column_labels: what each column shows.
        max_level: the highest level there can be; the highest there is when omitted.

    Raises:
        ValueError: if `max_level` is not above 0.
    """
    picture, (_, height, width) = tiled(rows), as_images(rows[0]).shape[:3]
    columns = max(map(len, rows))
    size = columns * _SIDE * min(width / height, 2) + (1.2 if row_labels else 0.2), len(rows) * _SIDE + 0.6
    figure = Figure(figsize=size, layout="constrained")
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
    """The decoded means over a grid of a latent plane, as one picture with the latent's axes.

    Levels are drawn as by `image_grid`.

    Arguments:
        means: E[x | z] at each point of the grid, `(side, side, *x_shape)`.
        grid: the points of the plane, `(side, side, 2)`.
        title: the title.
        dims: which two latent dimensions span the plane, counted from 0.
        max_level: the highest level there can be; the highest there is when omitted.

    Raises:
        ValueError: if `max_level` is not above 0.
    """
    side, (_, height, width) = len(grid), as_images(means[0]).shape[:3]
    figure = Figure(figsize=(6, 6.2), layout="constrained")
    axis = figure.subplots()
    picture = tiled(list(means))
    _draw(axis, picture, _Levels.of(picture, max_level))
    axis.set(title=title, xlabel=f"$z_{{{dims[0] + 1}}}$", ylabel=f"$z_{{{dims[1] + 1}}}$")
    places = np.linspace(0, side - 1, 5)
    for ticks, values, size in ((axis.set_xticks, grid[0, :, 0], width), (axis.set_yticks, grid[:, 0, 1], height)):
        labels = np.interp(places, np.arange(side), values.cpu().numpy())
        ticks(places * (size + 1) + (size - 1) / 2, [f"{label + 0.0:.2f}" for label in labels.round(2)])
    return figure


def elbo_history(history: Sequence[Epoch], title: str, published: Mapping[int, float] | None = None) -> Figure:
    """−ELBO by epoch: training rows (the objective), validation and test rows, and published figures as circles.

    Arguments:
        history: the epochs.
        title: the title.
        published: −ELBO by epoch, to compare with.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    epochs = [row.epoch for row in history]
    for name, style in (("train", "-"), ("validation", ":"), ("test", "--")):
        losses = [getattr(row, f"{name}_loss") for row in history]
        if None not in losses:
            axis.plot(epochs, losses, style, label=name)
    if published:
        axis.plot(list(published), list(published.values()), "ko", fillstyle="none", label="published")
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
    """Points of a plane by class; each class is also written at its median, so that the figure reads without colours.

    Arguments:
        z: the points, `(N, 2)`: draws, modes, or an embedding.
        labels: the class of each, `(N,)`.
        title: the title.
        axis_labels: the names of the axes.
        names: what each class is called; its number when omitted.
        colour_bar: explain the colours by a bar and not by a legend.
    """
    figure = Figure(figsize=(6.6, 5.4), layout="constrained")
    axis = figure.subplots()
    z, classes = z.detach().cpu(), labels.unique().tolist()
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
        figure.colorbar(mapping, ax=axis, label="class").set_ticks((edges[:-1] + 0.5).tolist(), labels=names)
    else:
        figure.legend(loc="outside right upper", markerscale=2, title="class")
    return figure


def kl_by_dimension(rates: Sequence[float], is_active: Sequence[bool], title: str) -> Figure:
    """The rate of each latent dimension in descending order, inactive ones hatched.

    Arguments:
        rates: KL of each dimension, in nats per row.
        is_active: which dimensions vary with x.
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
            axis.bar(places, heights, color=color, edgecolor="black", hatch=hatch, label=f"{name}: {len(places)}")
    axis.set_xticks(range(len(order)), [str(dim + 1) for dim in order], fontsize="x-small")
    axis.set(title=title, xlabel="latent dimension", ylabel="KL (nats per row)")
    axis.legend()
    return figure


def score_histogram(scores: Tensor, marked: Mapping[str, float], title: str, label: str = "KL (nats)") -> Figure:
    """How a score is spread over rows, with some rows or thresholds marked.

    Arguments:
        scores: one number for each row, `(N,)`.
        marked: scores to mark, by what they are.
        title: the title.
        label: what the score is, with its unit.
    """
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axis = figure.subplots()
    axis.hist(scores.detach().cpu().numpy(), bins=80, color="0.75", label=f"{len(scores):,} rows")
    for number, (name, value) in enumerate(marked.items()):
        axis.axvline(
            value, color=f"C{number}", linestyle=("--", ":", "-.", "-")[number % 4], label=f"{name}: {value:.1f}"
        )
    axis.set(title=title, xlabel=label, ylabel="rows")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def animation(pictures: Sequence[np.ndarray], titles: Sequence[str], milliseconds: int = 120) -> FuncAnimation:
    """Pictures one after the other, each under its title; `.save("name.gif", writer="pillow")` writes a GIF.

    Arguments:
        pictures: one for each frame, as `tiled` gives them.
        titles: what each frame shows.
        milliseconds: the time of a frame.
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
    """The range of levels that is drawn: from white to black, or from dark to bright where they are colours."""

    low: float
    high: float

    @classmethod
    def of(cls, picture: np.ndarray, max_level: float | None = None) -> "_Levels":
        """From 0, or from the lowest below it, to the highest level."""
        if max_level is not None:
            check_max_level(max_level)
        known = picture[np.isfinite(picture)]
        low = min(0.0, float(known.min(initial=0.0)))
        high = float(known.max(initial=low)) if max_level is None else max_level
        return cls(low, high if high > low else low + 1)

    def shown(self, picture: np.ndarray) -> np.ndarray:
        """Return the array for `imshow`: grey levels as they are, colours in [0, 1], missing ones white."""
        if picture.ndim == 2:
            return picture
        return np.nan_to_num((picture - self.low) / (self.high - self.low), nan=1.0).clip(0, 1)

    def name(self, picture: np.ndarray) -> str:
        """Name the two ends of the range."""
        first, last = ("white", "black") if picture.ndim == 2 else ("dark", "bright")
        return f"{first}: {self.low:.3g}, {last}: {self.high:.3g}"


def _draw(axis: Axes, picture: np.ndarray, levels: _Levels) -> AxesImage:
    # What is no image, such as a one-hot vector, is a strip of one pixel's height: stretch it.
    shown, (low, high) = levels.shown(picture), levels
    image = axis.imshow(shown, cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
    axis.set_aspect("equal" if picture.shape[0] > 8 else "auto")
    if low < 0:
        axis.figure.supxlabel(levels.name(picture), fontsize="small")
    return image


def _label(set_ticks: Callable, size: int, labels: Sequence[str]) -> None:
    set_ticks([number * (size + 1) + (size - 1) / 2 for number in range(len(labels))], list(labels))
