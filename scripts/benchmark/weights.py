"""Seconds to the log-weights of 100 draws for each of 10,000 test rows, against Pyro's loop on 64 of them."""

from typing import Any

from page import Page

from benchmark.contest import contest
from benchmark.options import Options
from benchmark.setting import Entry
from benchmark.summary import as_records, ratios

NUM_SAMPLES, NUM_ROWS, NUM_STOCK_ROWS = 100, 10_000, 64
# Each round of the loop takes long: rounds beyond these tell nothing more.
MAX_ROUNDS = 5
OURS, STOCK = "ours, importance_sample", "stock Pyro, a loop over Importance"


def measure(options: Options) -> dict[str, Any]:
    """The records, in seconds for the rows of each."""
    entries = (
        Entry(
            OURS, "row_weights.OurWeights", {"num_samples": NUM_SAMPLES, "num_test_rows": NUM_ROWS}
        ),
        Entry(
            STOCK,
            "row_weights.StockWeights",
            {"num_samples": NUM_SAMPLES, "num_test_rows": NUM_STOCK_ROWS},
        ),
    )
    records = contest(entries, options.setting, min(options.rounds, MAX_ROUNDS), options.machine)
    return {"records": [record._asdict() for record in records]}


def report(page: Page, result: dict[str, Any]) -> None:
    """The table of seconds, and the ratio for the same number of rows."""
    records = as_records(result["records"])
    page.text(
        "## Log-weights by row",
        f"{NUM_SAMPLES} draws of z for each MNIST test row, and a log-weight for each draw and "
        "row; ours with Pareto k-hat.",
    )
    page.table(
        ["", "rows", "median (s)", "lowest", "highest", "ms a row", "peak memory (MiB)"],
        [
            [
                *(
                    record.name,
                    record.facts["rows"],
                    record.median,
                    min(record.seconds),
                    max(record.seconds),
                ),
                *(1000 * record.median / record.facts["rows"], round(record.peak_mib)),
            ]
            for record in records
        ],
    )
    ours, stock = records
    scale = stock.facts["rows"] / ours.facts["rows"]
    found = ", ".join(f"{ratio * scale:.5f}" for ratio in ratios(ours, stock))
    page.text(f"Ours / stock for the same rows within a round: {found}.")
