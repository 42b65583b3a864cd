"""The step with many draws of z for each row at once."""

from dataclasses import replace
from typing import Any

from page import Page

from benchmark.contest import contest
from benchmark.figures import dots
from benchmark.options import Options
from benchmark.setting import Entry
from benchmark.summary import VERDICT_HEADER, Claim, Record, as_records, judge, verdict_rows

NUM_PARTICLES, NUM_STEPS = 50, 5
STOCK = {True: "stock Pyro, checks on", False: "stock Pyro, checks off"}
ENTRIES = (
    *(
        Entry(name, "steps.StockSteps", {"is_validated": is_validated})
        for is_validated, name in STOCK.items()
    ),
    *(
        Entry(f"ours, {how}", "steps.OurSteps", {"how": how})
        for how in ("traced", "compiled", "traced, bfloat16", "compiled, bfloat16")
    ),
)
FLOAT32 = ("ours, traced", "ours, compiled")
BEST = (*FLOAT32, "ours, traced, bfloat16", "ours, compiled, bfloat16")
CLAIMS = (
    Claim(f"K = {NUM_PARTICLES}, any precision", BEST, tuple(STOCK.values()), required=0.5),
    Claim(f"K = {NUM_PARTICLES}, float32", FLOAT32, tuple(STOCK.values()), required=0.8),
)


def measure(options: Options) -> dict[str, Any]:
    """The records, in seconds per block of steps."""
    setting = replace(options.setting, num_particles=NUM_PARTICLES, num_steps=NUM_STEPS)
    records = contest(ENTRIES, setting, options.rounds, options.machine)
    return {"num_steps": NUM_STEPS, "records": [record._asdict() for record in records]}


def report(page: Page, result: dict[str, Any]) -> None:
    """The claims, the figure and the table."""
    records = [per_step(record, result["num_steps"]) for record in as_records(result["records"])]
    page.text(
        f"## A step with {NUM_PARTICLES} draws of z",
        "Trace_ELBO with vectorised particles, batches of 128.",
    )
    page.table(VERDICT_HEADER, verdict_rows(judge(CLAIMS, records)))
    figure = dots(
        records,
        f"One step with {NUM_PARTICLES} draws of z for each row",
        "milliseconds per step",
        1e3,
    )
    page.figure("particles", figure, "Milliseconds per step")
    page.table(
        ["", "median (ms)", "lowest", "highest", "warm-up (s)", "peak memory (MiB)", "ran as"],
        [
            [
                *(
                    record.name,
                    1e3 * record.median,
                    1e3 * min(record.seconds),
                    1e3 * max(record.seconds),
                ),
                *(record.warm_up, round(record.peak_mib), record.facts.get("how", "")),
            ]
            for record in sorted(records, key=lambda record: record.median)
        ],
    )


def per_step(record: Record, num_steps: int) -> Record:
    """The same record in seconds of a step; the first block stays what it was."""
    return record._replace(seconds=[seconds / num_steps for seconds in record.seconds])
