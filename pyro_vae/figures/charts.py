"""Charts of training, latents and scores: functions from numbers to matplotlib figures.

They train, save and show nothing.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyro_vae.figures.notebook import NotebookFigure
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import check_finite, check_sizes
from pyro_vae.training.history import Epoch


@arguments_checked
def elbo_history(
    history: Sequence[Epoch], title: str, published: Mapping[int, float] | None = None
) -> Figure:
    """Draw −ELBO by epoch: training (the objective), validation, test and published values.

    Arguments:
        history: the epochs.
        title: the title.
        published: published values of −ELBO by epoch, drawn as circles.

    Raises:
        ValueError: if there are no epochs.
    """
    if not history:
        raise ValueError("'history' must have at least one epoch, got none.")
    figure = NotebookFigure(figsize=(6, 4), layout="constrained")
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


@arguments_checked
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

    Raises:
        ValueError: if points, labels or names do not fit together.
    """
    check_sizes(z, "z", "N", 2)
    check_sizes(labels, "labels", len(z))
    figure = NotebookFigure(figsize=(6.6, 5.4), layout="constrained")
    axis = figure.subplots()
    z = z.detach().cpu()
    classes = labels.unique().tolist()
    if names and len(names) != len(classes):
        raise ValueError(
            f"'names' must have one name for each of {len(classes)} classes, got {len(names)}."
        )
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


@arguments_checked
def kl_by_dimension(rates: Sequence[float], is_active: Sequence[bool], title: str) -> Figure:
    """Draw the rate of each latent dimension in descending order, inactive ones hatched.

    Arguments:
        rates: the KL of each dimension, in nats per row.
        is_active: True for the dimensions that vary with x.
        title: the title.

    Raises:
        ValueError: if rates and marks are not as many.
    """
    if not len(rates):
        raise ValueError("'rates' must have at least one dimension, got none.")
    if len(rates) != len(is_active):
        raise ValueError(
            f"'is_active' must have one mark for each of {len(rates)} rates, got {len(is_active)}."
        )
    figure = NotebookFigure(figsize=(6, 3.5), layout="constrained")
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


@arguments_checked
def score_histogram(
    scores: Tensor, marked: Mapping[str, float], title: str, label: str = "KL (nats)"
) -> Figure:
    """Draw a histogram of a score over rows, with some rows or thresholds marked.

    Arguments:
        scores: one number for each row, `(N,)`.
        marked: the scores to mark, by their names.
        title: the title.
        label: the name of the score, with its unit.

    Raises:
        ValueError: if scores have another shape, or are not finite.
    """
    check_sizes(scores, "scores", "N")
    check_finite(scores, "scores")
    figure = NotebookFigure(figsize=(6.4, 4), layout="constrained")
    axis = figure.subplots()
    axis.hist(scores.detach().cpu().numpy(), bins=80, color="0.75", label=f"{len(scores):,} rows")
    for number, (name, value) in enumerate(marked.items()):
        style = ("--", ":", "-.", "-")[number % 4]
        axis.axvline(value, color=f"C{number}", linestyle=style, label=f"{name}: {value:.1f}")
    axis.set(title=title, xlabel=label, ylabel="rows")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
