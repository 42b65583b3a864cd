"""Seconds to the log-weights of 100 draws for each of 10,000 test rows.

Pyro's loop is measured on 64 of the rows.
"""

from typing import Any

from benchmark.machinery.contest import contest
from benchmark.machinery.options import Options
from benchmark.machinery.setting import Entry
from benchmark.machinery.summary import Record, as_records, ratios
from pyro_vae.commands.page import Page

# Draws of z for each row.
NUM_SAMPLES = 100
# Test rows of this package, and of Pyro's loop, which takes long for each.
NUM_ROWS = 10_000
NUM_STOCK_ROWS = 64
# Each round of the loop takes long: rounds beyond these tell nothing more.
MAX_ROUNDS = 5
OURS = "ours, importance_sample"
STOCK = "stock Pyro, a loop over Importance"


def measure(options: Options) -> dict[str, Any]:
    """Return the records, in seconds for the rows of each."""
    our_counts = {"num_samples": NUM_SAMPLES, "num_test_rows": NUM_ROWS}
    stock_counts = {"num_samples": NUM_SAMPLES, "num_test_rows": NUM_STOCK_ROWS}
    entries = (
        Entry(OURS, "row_weights.OurWeights", our_counts),
        Entry(STOCK, "row_weights.StockWeights", stock_counts),
    )
    records = contest(entries, options.setting, min(options.rounds, MAX_ROUNDS), options.machine)
    return {"records": [record._asdict() for record in records]}


def report(page: Page, result: dict[str, Any]) -> None:
    """Add the table of seconds, and the ratio for the same number of rows."""
    records = as_records(result["records"])
    page.text(
        "## Log-weights by row",
        f"{NUM_SAMPLES} draws of z for each MNIST test row, and a log-weight for each draw and "
        "row; ours with Pareto k-hat.",
    )
    header = [
        "",
        "rows",
        "median (s)",
        "lowest",
        "highest",
        "ms a row",
        "peak memory (MiB)",
    ]
    page.table(header, [row(record) for record in records])
    ours, stock = records
    scale = stock.facts["rows"] / ours.facts["rows"]
    found = ", ".join(f"{ratio * scale:.5f}" for ratio in ratios(ours, stock))
    page.text(f"Ours / stock for the same rows within a round: {found}.")


def row(record: Record) -> list[object]:
    """Return a contestant's line of the table."""
    num_rows = record.facts["rows"]
    return [
        record.name,
        num_rows,
        record.median,
        record.lowest,
        record.highest,
        1000 * record.median / num_rows,
        round(record.peak_mib),
    ]
