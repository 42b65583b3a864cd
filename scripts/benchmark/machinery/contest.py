"""The contest: each contestant has its own process, one works at a time, and all in each round."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmark.machinery.setting import Entry, Setting
from benchmark.machinery.summary import Record


class Machine(NamedTuple):
    """Threads of a worker, and the file for its prints."""

    threads: int
    log: Path


class WorkerError(Exception):
    """Raised if a worker ends before it is told to."""


class Worker:
    """A contestant's process, seen from outside.

    Arguments:
        entry: the contestant.
        setting: that of all contestants.
        machine: threads and log.

    Raises:
        WorkerError: if the contestant cannot be built.
    """

    def __init__(self, entry: Entry, setting: Setting, machine: Machine) -> None:
        self.entry = entry
        self.machine = machine
        with machine.log.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmark.machinery.worker"],
                cwd=Path(__file__).parents[2],
                env=environment(setting, machine.threads),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.set_up = self.ask(
            json.dumps({"entry": entry, "setting": asdict(setting), "threads": machine.threads})
        )

    def ask(self, line: str) -> dict[str, Any]:
        """Send a line, and wait for the answer.

        Raises:
            WorkerError: if the process has ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            print(line, file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise WorkerError(
                f"{self.entry.name} ended with code {self.process.wait()}: see {self.machine.log}."
            )
        answered: dict[str, Any] = json.loads(answer)
        return answered

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def environment(setting: Setting, threads: int) -> dict[str, str]:
    """Return the environment of a worker: the threads of torch, and the folder of MNIST."""
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    return {**os.environ, **counts, "PYRO_VAE_DATA": setting.folder}


def contest(
    entries: Sequence[Entry],
    setting: Setting,
    rounds: int,
    machine: Machine,
    look_after: int | None = None,
) -> list[Record]:
    """Run one block of each contestant unmeasured, then measured rounds of one block each.

    Every round has a new order.

    Arguments:
        entries: the contestants; one that cannot be built, such as without its library, is left
            out with a message.
        setting: that of all contestants.
        rounds: the number of measured rounds.
        machine: threads and log.
        look_after: ask for the facts after this many blocks in all; after the last by default.
    """
    workers: list[Worker] = []
    try:
        for entry in tqdm(entries, desc="set-up", disable=not sys.stderr.isatty()):
            try:
                workers.append(Worker(entry, setting, machine))
            except WorkerError as error:
                print(f"Left out: {error}", file=sys.stderr)
        return play(workers, rounds, look_after or rounds + 1)
    finally:
        for worker in workers:
            worker.close()


def play(workers: Sequence[Worker], rounds: int, look_after: int) -> list[Record]:
    """Run the rounds; the first of them is not measured."""
    blocks: dict[str, list[dict[str, Any]]] = {worker.entry.name: [] for worker in workers}
    facts: dict[str, dict[str, Any]] = {}
    for number in tqdm(range(1, rounds + 2), desc="rounds", disable=not sys.stderr.isatty()):
        for worker in random.Random(number).sample(workers, len(workers)):
            name = worker.entry.name
            blocks[name].append(worker.ask("block"))
            if number == look_after:
                facts[name] = worker.ask("facts")
    records = []
    for worker in workers:
        name = worker.entry.name
        records.append(record(worker, blocks[name], facts[name]))
    return records


def record(worker: Worker, blocks: Sequence[dict[str, Any]], facts: dict[str, Any]) -> Record:
    """Return the record of a contestant, from the answers of its worker."""
    first, *seconds = (block["seconds"] for block in blocks)
    return Record(
        name=worker.entry.name,
        set_up=worker.set_up["seconds"],
        set_up_mib=worker.set_up["peak_mib"],
        first=first,
        seconds=seconds,
        peak_mib=blocks[-1]["peak_mib"],
        facts=facts,
    )
