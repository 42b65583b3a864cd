"""Seconds per epoch of the 784-400-20 VAE on MNIST, and claims about them."""

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

# Names of the objectives, as the contestants take them.
TRACE = "Trace_ELBO"
MEAN_FIELD = "TraceMeanField_ELBO"

# Names of the contestants.
TUTORIAL = "tutorial"
HANDWRITTEN = "PyTorch by hand"
CHECKED = f"stock Pyro, {TRACE}, checks on"
UNCHECKED = f"stock Pyro, {TRACE}, checks off"
NUMPYRO = {objective: f"NumPyro, {objective}" for objective in (TRACE, MEAN_FIELD)}
FLOORS = {precision: f"matrix products alone, {precision}" for precision in ("float32", "bfloat16")}


def stock(name: str, objective: str, is_validated: bool) -> Entry:
    """Return an entry of stock Pyro."""
    options = {"objective": objective, "is_validated": is_validated}
    return Entry(name, "stock_pyro.StockEpochs", options)


def ours(name: str, objective: str, how: str) -> Entry:
    """Return an entry of this package."""
    return Entry(name, "ours.OurEpochs", {"objective": objective, "how": how})


ENTRIES = (
    Entry(TUTORIAL, "tutorial.Tutorial", {}),
    Entry(HANDWRITTEN, "handwritten.Handwritten", {}),
    stock(CHECKED, TRACE, is_validated=True),
    stock(UNCHECKED, TRACE, is_validated=False),
    stock(f"stock Pyro, {MEAN_FIELD}, checks on", MEAN_FIELD, is_validated=True),
    stock(f"stock Pyro, {MEAN_FIELD}, checks off", MEAN_FIELD, is_validated=False),
    Entry(NUMPYRO[TRACE], "numpyro_epoch.NumPyroEpochs", {"objective": TRACE}),
    Entry(NUMPYRO[MEAN_FIELD], "numpyro_epoch.NumPyroEpochs", {"objective": MEAN_FIELD}),
    ours("ours, plain", MEAN_FIELD, "plain"),
    ours("ours, traced", MEAN_FIELD, "traced"),
    ours("ours, compiled", MEAN_FIELD, "compiled"),
    ours("ours, traced, bfloat16", MEAN_FIELD, "traced, bfloat16"),
    ours("ours, compiled, bfloat16", MEAN_FIELD, "compiled, bfloat16"),
    ours(f"ours, traced, {TRACE}", TRACE, "traced"),
    ours(f"ours, compiled, {TRACE}", TRACE, "compiled"),
    Entry(FLOORS["float32"], "matmul_floor.MatmulFloor", {"precision": "float32"}),
    Entry(FLOORS["bfloat16"], "matmul_floor.MatmulFloor", {"precision": "bfloat16"}),
)

FLOAT32 = ("ours, traced", "ours, compiled")
BEST = (*FLOAT32, "ours, traced, bfloat16", "ours, compiled, bfloat16")
# The objective of stock Pyro's claims.
LIKE = tuple(f"{name}, {TRACE}" for name in FLOAT32)

CLAIMS = (
    Claim("stock Pyro, checks on", FLOAT32, [CHECKED], required=0.5, hoped=0.4),
    Claim("stock Pyro, checks on, like for like", LIKE, [CHECKED], required=0.5, hoped=0.4),
    Claim("stock Pyro, checks off", FLOAT32, [UNCHECKED], required=0.6, hoped=0.45),
    Claim("stock Pyro, checks off, like for like", LIKE, [UNCHECKED], required=0.6, hoped=0.45),
    Claim("PyTorch by hand", FLOAT32, [HANDWRITTEN], required=0.95, hoped=0.8),
    Claim("the tutorial's loop, end to end", BEST, [TUTORIAL], required=0.3, hoped=0.2),
    Claim("NumPyro, whole epoch compiled", BEST, tuple(NUMPYRO.values()), required=1.0, hoped=0.8),
    Claim("the matrix products alone", BEST, tuple(FLOORS.values()), required=4.0, hoped=2.5),
)


def measure(options: Options) -> dict[str, Any]:
    """Return the records of all contestants.

    Test losses are taken after as many epochs as there are rounds.
    """
    rounds = options.rounds
    records = contest(ENTRIES, options.setting, rounds, options.machine, look_after=rounds)
    return {
        "epochs_at_test_loss": rounds,
        "records": [record._asdict() for record in records],
    }


def report(page: Page, result: dict[str, Any]) -> None:
    """Add the claims, the figure and the table."""
    records = as_records(result["records"])
    page.text(
        "## Seconds per epoch",
        "784-400-20 on threshold-binarised MNIST, batches of 128, Adam at 1e-3.",
    )
    page.table(VERDICT_HEADER, verdict_rows(judge(CLAIMS, records)))
    figure = dots(records, "One epoch of 784-400-20 on MNIST", "seconds per epoch")
    page.figure("epochs", figure, "Seconds per epoch")
    header = [
        "",
        "median (s)",
        "lowest",
        "highest",
        "first epoch (s)",
        "of it warm-up (s)",
        "set-up (s)",
        "peak memory (MiB)",
        f"test −ELBO after {result['epochs_at_test_loss']} epochs (nats)",
        "ran as",
    ]
    page.table(header, [row(record) for record in by_median(records)])


def row(record: Record) -> list[object]:
    """Return a contestant's line of the table."""
    return [
        record.name,
        record.median,
        record.lowest,
        record.highest,
        record.first,
        record.warm_up,
        record.set_up,
        round(record.peak_mib),
        record.facts.get("test_loss", ""),
        record.facts.get("how", ""),
    ]
