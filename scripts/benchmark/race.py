"""Seconds from starting Python to a good test loss, imports and data included."""

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from page import Page

from benchmark.contest import WorkerError, environment
from benchmark.epochs import MEAN_FIELD, TUTORIAL
from benchmark.figures import dots
from benchmark.options import Options
from benchmark.setting import Entry
from benchmark.summary import VERDICT_HEADER, Claim, Record, as_records, judge, verdict_rows

# Test −ELBO in nats per row at which a runner is there, and when it gives up.
GOAL, MAX_EPOCHS = 93.0, 20
OURS = tuple(
    f"ours, {how}" for how in ("traced", "compiled", "traced, bfloat16", "compiled, bfloat16")
)
ENTRIES = (
    Entry(TUTORIAL, "tutorial.Tutorial", {}),
    *(
        Entry(name, "ours.OurEpochs", {"objective": MEAN_FIELD, "how": name.removeprefix("ours, ")})
        for name in OURS
    ),
)
CLAIMS = (
    Claim("the tutorial's loop, from start to goal", OURS, [TUTORIAL], required=0.4, hoped=0.25),
)


def measure(options: Options) -> dict[str, Any]:
    """Every runner in turn, several times over; a runner that does not arrive is left out with a word."""
    answers: dict[str, list[dict[str, Any]]] = {entry.name: [] for entry in ENTRIES}
    for number in range(options.races):
        for entry in ENTRIES:
            try:
                answers[entry.name].append(start(entry, options, number))
            except WorkerError as error:
                print(f"Left out: {error}", file=sys.stderr)
    arrived = {name: runs for name, runs in answers.items() if len(runs) == options.races}
    records = [
        Record(name, [run["seconds"] for run in runs], {"runs": runs})
        for name, runs in arrived.items()
    ]
    return {"goal": GOAL, "records": [record._asdict() for record in records]}


def start(entry: Entry, options: Options, number: int) -> dict[str, Any]:
    """The wall-clock seconds from the start of a process to the goal, with its epochs and its test loss there."""
    setting, machine = replace(options.setting, seed=options.setting.seed + number), options.machine
    job = {"entry": entry, "setting": asdict(setting), "goal": GOAL, "max_epochs": MAX_EPOCHS}
    command = [
        sys.executable,
        "-m",
        "benchmark.racer",
        json.dumps({**job, "threads": machine.threads}),
    ]
    folder, variables = Path(__file__).parents[1], environment(setting, machine.threads)
    with machine.log.open("a", encoding="utf-8") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert process.stdout is not None
        with process.stdout as replies:
            for line in replies:
                answer: dict[str, Any] = json.loads(line)
                if answer["is_there"]:
                    seconds = time.perf_counter() - started
                    process.wait()
                    return {**answer, "seconds": seconds}
    raise WorkerError(
        f"{entry.name} ended with code {process.wait()} before its goal: see {machine.log}."
    )


def report(page: Page, result: dict[str, Any]) -> None:
    """The claim, the figure and the table."""
    records = as_records(result["records"])
    goal = f"test −ELBO of {result['goal']:g} nats per row"
    page.text(
        "## The race", f"Seconds from the start of Python to a {goal}, evaluated after every epoch."
    )
    page.table(VERDICT_HEADER, verdict_rows(judge(CLAIMS, records)))
    page.figure(
        "race", dots(records, f"From the start of Python to a {goal}", "seconds"), "The race"
    )
    page.table(
        ["", "median (s)", "lowest", "highest", "epochs", "test −ELBO there (nats)"],
        [
            [
                *(record.name, record.median, min(record.seconds), max(record.seconds)),
                ", ".join(str(run["epochs"]) for run in record.facts["runs"]),
                ", ".join(f"{run['test_loss']:.2f}" for run in record.facts["runs"]),
            ]
            for record in sorted(records, key=lambda record: record.median)
        ],
    )
