"""Figures of measured times: dots with whiskers, and small panels with logarithmic axes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmark.machinery.summary import Record

# Marker and line style differ too, for print in grey.
_STYLES = (
    {"color": "0.1", "marker": "o", "linestyle": "-"},
    {"color": "#0072b2", "marker": "s", "linestyle": "--"},
    {"color": "#d55e00", "marker": "^", "linestyle": "-."},
    {"color": "#009e73", "marker": "D", "linestyle": ":"},
)
# Panels side by side.
_COLUMNS = 3


class Line(NamedTuple):
    """One contestant over the values of an axis: median, lowest and highest."""

    name: str
    values: list[float]
    medians: list[float]
    lowest: list[float]
    highest: list[float]


class Panel(NamedTuple):
    """The lines over one axis; the title names its unit."""

    title: str
    lines: list[Line]


def dots(records: Sequence[Record], title: str, unit: str, scale: float = 1.0) -> Figure:
    """Draw a line for each contestant, the fastest on top: median, lowest and highest.

    Arguments:
        records: the contestants.
        title: the title.
        unit: the unit of the axis, in words.
        scale: that unit in one second.
    """
    ordered = sorted(records, key=lambda record: -record.median)
    figure = Figure(figsize=(8, 1.2 + 0.32 * len(ordered)), layout="constrained")
    axes = figure.add_subplot()
    medians = np.array([scale * record.median for record in ordered])
    ends = np.array(
        [[scale * min(record.seconds), scale * max(record.seconds)] for record in ordered]
    )
    whiskers = np.abs(ends.T - medians)
    places = np.arange(len(ordered))
    axes.errorbar(
        medians, places, xerr=whiskers, fmt="o", color="0.1", ecolor="0.45", capsize=3, markersize=5
    )
    for place, value, highest in zip(places, medians, ends[:, 1], strict=True):
        axes.annotate(
            f"{value:.3g}", (highest, place), xytext=(6, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(places, [record.name for record in ordered])
    axes.set_xscale("log")
    axes.set_ylim(-0.7, len(ordered) - 0.3)
    _number_ticks(axes, "x", (1, 2, 5))
    axes.set(xlabel=f"{unit} (median, lowest to highest; logarithmic)", title=title)
    # Room for the number behind the longest whisker.
    axes.set_xlim(None, ends.max() * (ends.max() / ends.min()) ** 0.15)
    axes.grid(axis="x", which="both", color="0.9")
    axes.set_axisbelow(True)
    return figure


def panels(drawn: Sequence[Panel], unit: str) -> Figure:
    """Draw a grid of small panels with logarithmic axes, and the legend in the next free place.

    Arguments:
        drawn: the panels.
        unit: the unit of the vertical axes, in words.
    """
    num_rows = -(-(len(drawn) + 1) // _COLUMNS)
    figure = Figure(figsize=(3.6 * _COLUMNS, 3 * num_rows), layout="constrained")
    grid = figure.subplots(num_rows, _COLUMNS, squeeze=False).flatten()
    for axes, panel in zip(grid, drawn, strict=False):
        for line, style in zip(panel.lines, _STYLES, strict=False):
            axes.fill_between(
                line.values,
                line.lowest,
                line.highest,
                color=style["color"],
                alpha=0.15,
                linewidth=0,
            )
            axes.plot(line.values, line.medians, label=line.name, markersize=4, **style)
        axes.set(xscale="log", yscale="log", xlabel=panel.title, ylabel=unit)
        _number_ticks(axes, "y", (1, 1.5, 2, 3, 5, 7))
        axes.set_xticks(
            panel.lines[0].values,
            [f"{value:,}" for value in panel.lines[0].values],
            fontsize="x-small",
        )
        axes.minorticks_off()
        axes.grid(color="0.9")
    for axes in grid[len(drawn) :]:
        axes.set_axis_off()
    grid[len(drawn)].legend(*grid[0].get_legend_handles_labels(), loc="center", handlelength=4)
    return figure


def _number_ticks(axes: Axes, name: str, subs: Sequence[float]) -> None:
    """Put ticks at these multiples of powers of ten, written as plain numbers."""
    axis = getattr(axes, f"{name}axis")
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
