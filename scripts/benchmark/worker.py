"""The process of one contestant: it reads a job from standard input, then does a block whenever it is told to."""

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from benchmark.contestant import Contestant
from benchmark.setting import Entry, Setting


class Controls:
    """A contestant's `pause`: reports the block that is done, answers questions, and returns when another is wanted."""

    def __init__(self, replies: TextIO) -> None:
        self.replies = replies
        self.contestant: Contestant | None = None
        self.started: float | None = None

    def __call__(self) -> None:
        if self.started is not None:
            self.reply({"seconds": time.perf_counter() - self.started, "peak_mib": peak_mib()})
        for command in sys.stdin:
            if command.strip() == "block":
                self.started = time.perf_counter()
                return
            self.reply({} if self.contestant is None else self.contestant.facts())
        sys.exit(0)

    def reply(self, answer: dict[str, Any]) -> None:
        """One line of JSON."""
        print(json.dumps(answer), file=self.replies, flush=True)


def main() -> None:
    # What libraries print goes to standard error, so that replies stay apart.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = json.loads(sys.stdin.readline())
    keep_to_cores(job["threads"])
    controls = Controls(replies)
    started = time.perf_counter()
    controls.contestant = build(Entry(*job["entry"]), Setting(**job["setting"]))
    controls.reply({"seconds": time.perf_counter() - started, "peak_mib": peak_mib()})
    controls.contestant.run(controls)


def build(entry: Entry, setting: Setting) -> Contestant:
    """The contestant, with torch's random numbers from the setting's seed where it uses torch."""
    module, _, name = entry.path.rpartition(".")
    made = getattr(importlib.import_module(f"benchmark.{module}"), name)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(setting.seed)
    contestant: Contestant = made(setting, **entry.options)
    return contestant


def keep_to_cores(threads: int) -> None:
    """Run on as many cores as there may be threads: XLA has no other way to be told."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def peak_mib() -> float:
    """The largest memory this process has held so far; not `ru_maxrss` where /proc tells, which keeps the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (
            line
            for line in status.read_text(encoding="utf-8").splitlines()
            if line.startswith("VmHWM:")
        )
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
