"""Seconds from starting Python to a good test loss, imports and data included."""

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmark.machinery.contest import WorkerError, environment
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
from benchmark.parts.epochs import MEAN_FIELD, TUTORIAL, ours
from pyro_vae.commands.page import Page

# Test −ELBO in nats per row at which a runner has arrived.
GOAL = 93.0
# Epochs after which a runner gives up.
MAX_EPOCHS = 20
EXECUTIONS = ("traced", "compiled", "traced, bfloat16", "compiled, bfloat16")
OURS = tuple(f"ours, {how}" for how in EXECUTIONS)
ENTRIES = (
    Entry(TUTORIAL, "tutorial.Tutorial", {}),
    *(ours(name, MEAN_FIELD, how) for name, how in zip(OURS, EXECUTIONS, strict=True)),
)
CLAIMS = (
    Claim("the tutorial's loop, from start to goal", OURS, [TUTORIAL], required=0.4, hoped=0.25),
)


def measure(options: Options) -> dict[str, Any]:
    """Start every runner in turn, several times.

    A runner that does not arrive is left out with a message.
    """
    answers: dict[str, list[dict[str, Any]]] = {entry.name: [] for entry in ENTRIES}
    for number in range(options.races):
        for entry in ENTRIES:
            try:
                answers[entry.name].append(start(entry, options, number))
            except WorkerError as error:
                print(f"Left out: {error}", file=sys.stderr)
    arrived = {name: runs for name, runs in answers.items() if len(runs) == options.races}
    records = []
    for name, runs in arrived.items():
        records.append(Record(name, [run["seconds"] for run in runs], {"runs": runs}))
    return {"goal": GOAL, "records": [record._asdict() for record in records]}


def start(entry: Entry, options: Options, number: int) -> dict[str, Any]:
    """Start a runner, and return the last line of its replies with the seconds to its goal.

    Seconds are those of a wall clock, from the start of its process.

    Arguments:
        entry: the runner.
        options: of the command line.
        number: that of the race, which changes the seed.

    Raises:
        WorkerError: if it ends before its goal.
    """
    machine = options.machine
    setting = replace(options.setting, seed=options.setting.seed + number)
    job = {
        "entry": entry,
        "setting": asdict(setting),
        "goal": GOAL,
        "max_epochs": MAX_EPOCHS,
        "threads": machine.threads,
    }
    command = [sys.executable, "-m", "benchmark.machinery.racer", json.dumps(job)]
    folder = Path(__file__).parents[2]
    variables = environment(setting, machine.threads)
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
    """Add the claim, the figure and the table."""
    records = as_records(result["records"])
    goal = f"test −ELBO of {result['goal']:g} nats per row"
    text = f"Seconds from the start of Python to a {goal}, evaluated after every epoch."
    page.text("## The race", text)
    page.table(VERDICT_HEADER, verdict_rows(judge(CLAIMS, records)))
    figure = dots(records, f"From the start of Python to a {goal}", "seconds")
    page.figure("race", figure, "The race")
    header = ["", "median (s)", "lowest", "highest", "epochs", "test −ELBO there (nats)"]
    page.table(header, [row(record) for record in by_median(records)])


def row(record: Record) -> list[object]:
    """Return a runner's line of the table."""
    runs = record.facts["runs"]
    return [
        record.name,
        record.median,
        record.lowest,
        record.highest,
        ", ".join(str(run["epochs"]) for run in runs),
        ", ".join(f"{run['test_loss']:.2f}" for run in runs),
    ]
