"""Seconds to log p(x) by 5,000 importance samples for each of 500 test rows."""

from typing import Any

from benchmark.machinery.contest import contest
from benchmark.machinery.options import Options
from benchmark.machinery.setting import Entry
from benchmark.machinery.summary import Record, as_records, ratios
from pyro_vae.commands.page import Page

# Importance samples for each row.
NUM_SAMPLES = 5000
NUM_TEST_ROWS = 500
# An evaluation takes long: rounds beyond these tell nothing more.
MAX_ROUNDS = 3
# Each entry of this package, and how it compiles.
OURS = {"ours, as it comes": "auto", "ours, traced": False, "ours, compiled": True}
STOCK = "stock Pyro, vectorized_importance_weights"


def measure(options: Options) -> dict[str, Any]:
    """Return the records, in seconds per evaluation, and the counts."""
    counts = {"num_samples": NUM_SAMPLES, "num_test_rows": NUM_TEST_ROWS}
    entries = []
    for name, how in OURS.items():
        entries.append(Entry(name, "importance.OurLikelihood", {**counts, "compile": how}))
    entries.append(Entry(STOCK, "importance.StockLikelihood", counts))
    records = contest(entries, options.setting, min(options.rounds, MAX_ROUNDS), options.machine)
    return {**counts, "records": [record._asdict() for record in records]}


def report(page: Page, result: dict[str, Any]) -> None:
    """Add the table of seconds, and of values with their errors."""
    records = as_records(result["records"])
    page.text(
        "## log p(x)",
        f"{result['num_samples']:,} importance samples for each of {result['num_test_rows']} "
        "MNIST test rows, in nats.",
    )
    header = [
        "",
        "median (s)",
        "lowest",
        "highest",
        "first (s)",
        "peak memory (MiB)",
        "log p(x)",
        "MC error",
        "row error",
    ]
    page.table(header, [row(record) for record in records])
    stock = records[-1]
    for record in records[:-1]:
        found = ", ".join(f"{ratio:.3f}" for ratio in ratios(record, stock))
        page.text(f"{record.name} / stock within a round: {found}.")


def row(record: Record) -> list[object]:
    """Return a contestant's line of the table."""
    return [
        record.name,
        record.median,
        record.lowest,
        record.highest,
        record.first,
        round(record.peak_mib),
        record.facts.get("mean", ""),
        record.facts.get("monte_carlo_error", ""),
        record.facts.get("row_error", ""),
    ]
