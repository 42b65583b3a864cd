"""Seconds per epoch of the 784-400-20 VAE on MNIST, and what may be claimed of them."""

from typing import Any

from page import Page

from benchmark.contest import contest
from benchmark.figures import dots
from benchmark.options import Options
from benchmark.setting import Entry
from benchmark.summary import VERDICT_HEADER, Claim, Record, as_records, judge, verdict_rows

TRACE, MEAN_FIELD = "Trace_ELBO", "TraceMeanField_ELBO"
STOCK = {
    (objective, is_validated): f"stock Pyro, {objective}, checks {'on' if is_validated else 'off'}"
    for objective in (TRACE, MEAN_FIELD)
    for is_validated in (True, False)
}
FLOORS = {precision: f"matrix products alone, {precision}" for precision in ("float32", "bfloat16")}
NUMPYRO = {objective: f"NumPyro, {objective}" for objective in (TRACE, MEAN_FIELD)}
TUTORIAL, HANDWRITTEN = "tutorial", "PyTorch by hand"

ENTRIES = (
    Entry(TUTORIAL, "tutorial.Tutorial", {}),
    Entry(HANDWRITTEN, "handwritten.Handwritten", {}),
    *(
        Entry(
            name, "stock_pyro.StockEpochs", {"objective": objective, "is_validated": is_validated}
        )
        for (objective, is_validated), name in STOCK.items()
    ),
    *(
        Entry(name, "numpyro_epoch.NumPyroEpochs", {"objective": objective})
        for objective, name in NUMPYRO.items()
    ),
    *(
        Entry(f"ours, {how}", "ours.OurEpochs", {"objective": MEAN_FIELD, "how": how})
        for how in ("plain", "traced", "compiled", "traced, bfloat16", "compiled, bfloat16")
    ),
    *(
        Entry(f"ours, {how}, {TRACE}", "ours.OurEpochs", {"objective": TRACE, "how": how})
        for how in ("traced", "compiled")
    ),
    *(
        Entry(name, "matmul_floor.MatmulFloor", {"precision": precision})
        for precision, name in FLOORS.items()
    ),
)

FLOAT32 = ("ours, traced", "ours, compiled")
BEST = (*FLOAT32, "ours, traced, bfloat16", "ours, compiled, bfloat16")
LIKE = tuple(f"{name}, {TRACE}" for name in FLOAT32)

CLAIMS = (
    Claim("stock Pyro, checks on", FLOAT32, [STOCK[TRACE, True]], required=0.5, hoped=0.4),
    Claim(
        "stock Pyro, checks on, like for like", LIKE, [STOCK[TRACE, True]], required=0.5, hoped=0.4
    ),
    Claim("stock Pyro, checks off", FLOAT32, [STOCK[TRACE, False]], required=0.6, hoped=0.45),
    Claim(
        "stock Pyro, checks off, like for like",
        LIKE,
        [STOCK[TRACE, False]],
        required=0.6,
        hoped=0.45,
    ),
    Claim("PyTorch by hand", FLOAT32, [HANDWRITTEN], required=0.95, hoped=0.8),
    Claim("the tutorial's loop, end to end", BEST, [TUTORIAL], required=0.3, hoped=0.2),
    Claim("NumPyro, whole epoch compiled", BEST, tuple(NUMPYRO.values()), required=1.0, hoped=0.8),
    Claim("the matrix products alone", BEST, tuple(FLOORS.values()), required=4.0, hoped=2.5),
)


def measure(options: Options) -> dict[str, Any]:
    """The records of all contestants; test losses are taken after as many epochs as there are rounds."""
    records = contest(
        ENTRIES, options.setting, options.rounds, options.machine, look_after=options.rounds
    )
    return {
        "epochs_at_test_loss": options.rounds,
        "records": [record._asdict() for record in records],
    }


def report(page: Page, result: dict[str, Any]) -> None:
    """The claims, the figure and the table."""
    records = as_records(result["records"])
    page.text(
        "## Seconds per epoch",
        "784-400-20 on threshold-binarised MNIST, batches of 128, Adam at 1e-3.",
    )
    page.table(VERDICT_HEADER, verdict_rows(judge(CLAIMS, records)))
    page.figure(
        "epochs",
        dots(records, "One epoch of 784-400-20 on MNIST", "seconds per epoch"),
        "Seconds per epoch",
    )
    page.table(
        [
            *(
                "",
                "median (s)",
                "lowest",
                "highest",
                "first epoch (s)",
                "of it warm-up (s)",
                "set-up (s)",
            ),
            *(
                "peak memory (MiB)",
                f"test −ELBO after {result['epochs_at_test_loss']} epochs (nats)",
                "ran as",
            ),
        ],
        [row(record) for record in sorted(records, key=lambda record: record.median)],
    )


def row(record: Record) -> list[object]:
    """A contestant's line of the table."""
    seconds = record.seconds
    return [
        *(
            record.name,
            record.median,
            min(seconds),
            max(seconds),
            record.first,
            record.warm_up,
            record.set_up,
        ),
        *(round(record.peak_mib), record.facts.get("test_loss", ""), record.facts.get("how", "")),
    ]
