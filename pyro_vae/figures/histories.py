"""Histories of several runs in one figure."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyro_vae.figures.notebook import NotebookFigure
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.training.history import Epoch

# The parts of the data, with the label of their loss; the first that all runs have is drawn.
_PARTS = {
    "validation": "−ELBO of the validation rows (nats per row)",
    "test": "−ELBO of the test rows (nats per row)",
    "train": "objective of the training rows (nats per row)",
}
# Line styles and markers, which tell runs apart in grey.
_STYLES = ["-", "--", "-.", ":"]
_MARKERS = ["o", "s", "^", "D", "v", "X"]
# Markers on a line, and the lines of the legend that fit into an inch.
_NUM_MARKERS = 8
_LINES_PER_INCH = 5
# The axis shows at most so many times the height of the second half of the epochs.
_STEEP = 3.0
# Space below the lowest loss, as a part of the height.
_MARGIN = 0.05
# Part of the colour map that is dark enough on white.
_DARK = 0.85


@arguments_checked
def loss_curves(histories: Mapping[str, Sequence[Epoch]], title: str = "") -> Figure:
    """Draw the losses of several runs by epoch: of validation rows, else of test or training rows.

    First losses that are much higher than the others lie above the axis, so that the ends of the
    runs can be told apart.

    Arguments:
        histories: the epochs of each run, by its name.
        title: the title.

    Raises:
        ValueError: if there is no run, or a run has no epochs.
    """
    if not histories or not all(histories.values()):
        raise ValueError("'histories' must hold runs with at least one epoch each.")
    part = next(part for part in _PARTS if _all_have(histories, part))
    height = max(4.0, 1 + len(histories) / _LINES_PER_INCH)
    figure = NotebookFigure(figsize=(8, height), layout="constrained")
    axis = figure.subplots()
    colours = colormaps["viridis"](np.linspace(0, _DARK, len(histories)))
    styles = list(product(_MARKERS, _STYLES))
    for number, (name, history) in enumerate(histories.items()):
        # Neighbours differ in both.
        marker, style = styles[number * (len(_STYLES) + 1) % len(styles)]
        axis.plot(
            [row.epoch for row in history],
            _losses(history, part),
            linestyle=style,
            marker=marker,
            markevery=max(1, len(history) // _NUM_MARKERS),
            fillstyle="none",
            color=colours[number],
            label=name.replace("$", r"\$"),
        )
    axis.set(title=title, xlabel="epoch", ylabel=_PARTS[part])
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _cut_off_the_start(axis, [_losses(history, part) for history in histories.values()])
    figure.legend(loc="outside right upper")
    return figure


def _all_have(histories: Mapping[str, Sequence[Epoch]], part: str) -> bool:
    return not any(None in _losses(history, part) for history in histories.values())


def _losses(history: Sequence[Epoch], part: str) -> list[float]:
    return [getattr(row, f"{part}_loss") for row in history]


def _cut_off_the_start(axis: Axes, losses: Sequence[Sequence[float]]) -> None:
    """End the axis below the first losses, if they would press the others into a line."""
    numbers = np.concatenate(losses)
    lowest = np.nanmin(numbers)
    usual = max(np.nanmedian(run) for run in losses)  # each run is below it for half of its epochs
    height = _STEEP * (usual - lowest)
    if np.nanmax(numbers) - lowest > height > 0:
        axis.set_ylim(lowest - _MARGIN * height, lowest + height)
