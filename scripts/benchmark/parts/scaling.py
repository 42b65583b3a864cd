"""The time of a step as batch, networks, latent, draws of z and data grow, one at a time."""

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from benchmark.machinery.contest import contest
from benchmark.machinery.figures import Line, Panel, panels
from benchmark.machinery.options import Options
from benchmark.machinery.setting import Entry, Setting
from benchmark.machinery.summary import Record, as_records
from pyro_vae.commands.page import Page

ENTRIES = (
    Entry("stock Pyro", "steps.StockSteps", {"is_validated": True}),
    Entry("ours, traced", "steps.OurSteps", {"how": "traced"}),
    Entry("ours, compiled", "steps.OurSteps", {"how": "compiled"}),
    Entry("ours, compiled, bfloat16", "steps.OurSteps", {"how": "compiled, bfloat16"}),
)
AXES = {
    "batch_size": (32, 128, 512, 1024, 4096),
    "hidden": (100, 400, 1600),
    "latent_dim": (2, 20, 200),
    "num_particles": (1, 4, 16, 64),
    "num_rows": (10_000, 100_000, 1_000_000),
}
TITLES = {
    "batch_size": "batch (rows)",
    "hidden": "hidden width (units)",
    "latent_dim": "latent size (dimensions)",
    "num_particles": "K (draws of z for each row)",
    "num_rows": "rows in memory",
}
# Draws of z that a block passes through the networks, about.
BLOCK_DRAWS = 6400
# A block has at least this many steps.
MIN_STEPS = 4


def measure(options: Options) -> dict[str, Any]:
    """Return the records at each value of each axis, and the seconds of a permutation of the rows.

    The records are in seconds per block.
    """
    axes = {}
    for axis, values in AXES.items():
        axes[axis] = [point(options, axis, value) for value in values]
    seconds = {str(rows): permutation(rows, options.rounds) for rows in AXES["num_rows"]}
    return {"axes": axes, "permutation": seconds}


def point(options: Options, axis: str, value: int) -> dict[str, Any]:
    """Measure all contestants at one value of one axis."""
    setting = at(options.setting, axis, value)
    print(f"Measuring steps at {axis} = {value:,}")
    records = contest(ENTRIES, setting, options.rounds, options.machine)
    return {
        "value": value,
        "num_steps": setting.num_steps,
        "records": [record._asdict() for record in records],
    }


def at(setting: Setting, axis: str, value: int) -> Setting:
    """Return the setting with one size changed, and with blocks that take about the same time."""
    changed: Setting = replace(setting, **{axis: value})  # type: ignore[arg-type]
    num_steps = max(MIN_STEPS, BLOCK_DRAWS // (changed.batch_size * changed.num_particles))
    return replace(changed, num_steps=num_steps, is_synthetic=axis == "num_rows")


def permutation(num_rows: int, times: int) -> float:
    """Return the median seconds of a permutation, which an epoch needs once."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        torch.randperm(num_rows)
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def report(page: Page, result: dict[str, Any]) -> None:
    """Add the figure of small panels, and a table for each axis."""
    page.text(
        "## How the time of a step grows",
        "Batch fetch included; sizes that are not varied are as above.",
    )
    by_axis = {axis: lines(points) for axis, points in result["axes"].items()}
    drawn = [Panel(TITLES[axis], of_axis) for axis, of_axis in by_axis.items()]
    figure = panels(drawn, "milliseconds per step")
    page.figure("scaling", figure, "Milliseconds per step, lowest to highest")
    for axis, points in result["axes"].items():
        names = [line.name for line in by_axis[axis]]
        rows = [[f"{point['value']:,}", *cells(point, names)] for point in points]
        page.table([TITLES[axis], *(f"{name} (ms)" for name in names)], rows)
    found = []
    for num_rows, seconds in result["permutation"].items():
        found.append(f"{1e3 * seconds:.3g} ms for {int(num_rows):,}")
    page.text(f"The permutation of the rows, once an epoch: {', '.join(found)}.")


def lines(points: Sequence[dict[str, Any]]) -> list[Line]:
    """Return the line of each contestant over its points, in milliseconds per step."""
    found: dict[str, Line] = {}
    for point in points:
        for record in as_records(point["records"]):
            times = milliseconds(record, point["num_steps"])
            line = found.setdefault(record.name, Line(record.name, [], [], [], []))
            line.values.append(point["value"])
            line.medians.append(median(times))
            line.lowest.append(min(times))
            line.highest.append(max(times))
    return list(found.values())


def cells(point: dict[str, Any], names: Sequence[str]) -> list[object]:
    """Return the medians of these contestants, in milliseconds per step; "" if not measured."""
    by_name = {record.name: record for record in as_records(point["records"])}
    found: list[object] = []
    for name in names:
        if name in by_name:
            found.append(median(milliseconds(by_name[name], point["num_steps"])))
        else:
            found.append("")
    return found


def milliseconds(record: Record, num_steps: int) -> list[float]:
    """Return the time of a step in each round."""
    return [1e3 * seconds / num_steps for seconds in record.seconds]
