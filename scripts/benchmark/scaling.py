"""The time of a step as the batch, the networks, the latent, the draws of z and the data grow, one at a time."""

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from page import Page

from benchmark.contest import contest
from benchmark.figures import Line, Panel, panels
from benchmark.options import Options
from benchmark.setting import Entry, Setting
from benchmark.summary import Record, as_records

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
# A block passes about this many draws of z through the networks, and has at least this many steps.
BLOCK_DRAWS, MIN_STEPS = 6400, 4


def measure(options: Options) -> dict[str, Any]:
    """For each axis and each value the records, in seconds per block; and the seconds of one permutation of the rows."""
    return {
        "axes": {
            axis: [point(options, axis, value) for value in values] for axis, values in AXES.items()
        },
        "permutation": {str(rows): permutation(rows, options.rounds) for rows in AXES["num_rows"]},
    }


def point(options: Options, axis: str, value: int) -> dict[str, Any]:
    """All contestants at one value of one axis."""
    setting = at(options.setting, axis, value)
    print(f"Measuring steps at {axis} = {value:,}")
    records = contest(ENTRIES, setting, options.rounds, options.machine)
    return {
        "value": value,
        "num_steps": setting.num_steps,
        "records": [record._asdict() for record in records],
    }


def at(setting: Setting, axis: str, value: int) -> Setting:
    """The setting with one size changed, and as many steps in a block as take about the same time."""
    changed: Setting = replace(setting, **{axis: value})  # type: ignore[arg-type]
    num_steps = max(MIN_STEPS, BLOCK_DRAWS // (changed.batch_size * changed.num_particles))
    return replace(changed, num_steps=num_steps, is_synthetic=axis == "num_rows")


def permutation(num_rows: int, times: int) -> float:
    """The median seconds of a permutation, which an epoch takes once."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        torch.randperm(num_rows)
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def report(page: Page, result: dict[str, Any]) -> None:
    """The figure of small panels, and a table for each axis."""
    page.text(
        "## How the time of a step grows",
        "Batch fetch included; sizes that are not varied are as above.",
    )
    drawn = [Panel(TITLES[axis], lines(points)) for axis, points in result["axes"].items()]
    page.figure(
        "scaling",
        panels(drawn, "milliseconds per step"),
        "Milliseconds per step, lowest to highest",
    )
    for axis, points in result["axes"].items():
        names = [line.name for line in lines(points)]
        rows = [[f"{point['value']:,}", *cells(point, names)] for point in points]
        page.table([TITLES[axis], *(f"{name} (ms)" for name in names)], rows)
    found = ", ".join(
        f"{1e3 * seconds:.3g} ms for {int(rows):,}"
        for rows, seconds in result["permutation"].items()
    )
    page.text(f"The permutation of the rows, once an epoch: {found}.")


def lines(points: Sequence[dict[str, Any]]) -> list[Line]:
    """For each contestant its line over the points where it was measured, in milliseconds per step."""
    found: dict[str, Line] = {}
    for each in points:
        for record in as_records(each["records"]):
            seconds = milliseconds(record, each["num_steps"])
            line = found.setdefault(record.name, Line(record.name, [], [], [], []))
            for values, value in zip(
                line[1:], (each["value"], median(seconds), min(seconds), max(seconds)), strict=True
            ):
                values.append(value)
    return list(found.values())


def cells(point: dict[str, Any], names: Sequence[str]) -> list[object]:
    """The medians of these contestants, in milliseconds per step."""
    by_name = {record.name: record for record in as_records(point["records"])}
    return [
        median(milliseconds(by_name[name], point["num_steps"])) if name in by_name else ""
        for name in names
    ]


def milliseconds(record: Record, num_steps: int) -> list[float]:
    """The time of a step in each round."""
    return [1e3 * seconds / num_steps for seconds in record.seconds]
