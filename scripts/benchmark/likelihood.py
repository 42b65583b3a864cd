"""Seconds to log p(x) by 5,000 importance samples for each of 500 test rows."""

from typing import Any

from page import Page

from benchmark.contest import contest
from benchmark.options import Options
from benchmark.setting import Entry
from benchmark.summary import as_records, ratios

NUM_SAMPLES, NUM_TEST_ROWS = 5000, 500
# An evaluation takes long: rounds beyond these tell nothing more.
MAX_ROUNDS = 3
OURS = {"ours, as it comes": "auto", "ours, traced": False, "ours, compiled": True}
STOCK = "stock Pyro, vectorized_importance_weights"


def measure(options: Options) -> dict[str, Any]:
    """The records, in seconds per evaluation, and the counts."""
    counts = {"num_samples": NUM_SAMPLES, "num_test_rows": NUM_TEST_ROWS}
    entries = (
        *(
            Entry(name, "importance.OurLikelihood", {**counts, "compile": how})
            for name, how in OURS.items()
        ),
        Entry(STOCK, "importance.StockLikelihood", counts),
    )
    records = contest(entries, options.setting, min(options.rounds, MAX_ROUNDS), options.machine)
    return {**counts, "records": [record._asdict() for record in records]}


def report(page: Page, result: dict[str, Any]) -> None:
    """The table of seconds and of values with their errors."""
    records = as_records(result["records"])
    page.text(
        "## log p(x)",
        f"{result['num_samples']:,} importance samples for each of {result['num_test_rows']} "
        "MNIST test rows, in nats.",
    )
    page.table(
        [
            "",
            "median (s)",
            "lowest",
            "highest",
            "first (s)",
            "peak memory (MiB)",
            "log p(x)",
            "MC error",
            "row error",
        ],
        [
            [
                *(
                    record.name,
                    record.median,
                    min(record.seconds),
                    max(record.seconds),
                    record.first,
                ),
                round(record.peak_mib),
                *(
                    record.facts.get(name, "")
                    for name in ("mean", "monte_carlo_error", "row_error")
                ),
            ]
            for record in records
        ],
    )
    stock = records[-1]
    for record in records[:-1]:
        found = ", ".join(f"{ratio:.3f}" for ratio in ratios(record, stock))
        page.text(f"{record.name} / stock within a round: {found}.")
