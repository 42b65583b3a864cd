"""The step with many draws of z for each row at once."""

from dataclasses import replace
from typing import Any

from benchmark.machinery.contest import contest
from benchmark.machinery.figures import dots
from benchmark.machinery.options import Options
from benchmark.machinery.setting import Entry
from benchmark.machinery.summary import (
    VERDICT_HEADER,
    Claim,
    Record,
    as_records,
    by_median,
    judge,
    verdict_rows,
)
from pyro_vae.commands.page import Page

NUM_PARTICLES = 50
# Steps of a block.
NUM_STEPS = 5
CHECKED = "stock Pyro, checks on"
UNCHECKED = "stock Pyro, checks off"
STOCK = (CHECKED, UNCHECKED)
EXECUTIONS = ("traced", "compiled", "traced, bfloat16", "compiled, bfloat16")
ENTRIES = (
    Entry(CHECKED, "steps.StockSteps", {"is_validated": True}),
    Entry(UNCHECKED, "steps.StockSteps", {"is_validated": False}),
    *(Entry(f"ours, {how}", "steps.OurSteps", {"how": how}) for how in EXECUTIONS),
)
FLOAT32 = ("ours, traced", "ours, compiled")
BEST = (*FLOAT32, "ours, traced, bfloat16", "ours, compiled, bfloat16")
CLAIMS = (
    Claim(f"K = {NUM_PARTICLES}, any precision", BEST, STOCK, required=0.5),
    Claim(f"K = {NUM_PARTICLES}, float32", FLOAT32, STOCK, required=0.8),
)


def measure(options: Options) -> dict[str, Any]:
    """Return the records, in seconds per block of steps."""
    setting = replace(options.setting, num_particles=NUM_PARTICLES, num_steps=NUM_STEPS)
    records = contest(ENTRIES, setting, options.rounds, options.machine)
    return {"num_steps": NUM_STEPS, "records": [record._asdict() for record in records]}


def report(page: Page, result: dict[str, Any]) -> None:
    """Add the claims, the figure and the table."""
    records = [per_step(record, result["num_steps"]) for record in as_records(result["records"])]
    page.text(
        f"## A step with {NUM_PARTICLES} draws of z",
        "Trace_ELBO with vectorised particles, batches of 128.",
    )
    page.table(VERDICT_HEADER, verdict_rows(judge(CLAIMS, records)))
    title = f"One step with {NUM_PARTICLES} draws of z for each row"
    figure = dots(records, title, "milliseconds per step", 1e3)
    page.figure("particles", figure, "Milliseconds per step")
    header = [
        "",
        "median (ms)",
        "lowest",
        "highest",
        "warm-up (s)",
        "peak memory (MiB)",
        "ran as",
    ]
    page.table(header, [row(record) for record in by_median(records)])


def row(record: Record) -> list[object]:
    """Return a contestant's line of the table."""
    return [
        record.name,
        1e3 * record.median,
        1e3 * record.lowest,
        1e3 * record.highest,
        record.warm_up,
        round(record.peak_mib),
        record.facts.get("how", ""),
    ]


def per_step(record: Record, num_steps: int) -> Record:
    """Return the record in seconds of a step; the first block keeps its seconds."""
    return record._replace(seconds=[seconds / num_steps for seconds in record.seconds])
