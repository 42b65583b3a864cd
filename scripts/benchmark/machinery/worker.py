"""The process of one contestant: it reads a job, then does a block on each command."""

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from benchmark.contestants.contestant import Contestant
from benchmark.machinery.setting import Entry, Setting


class Controls:
    """A contestant's `pause`: reports the last block, answers questions, and waits for the next.

    Arguments:
        replies: the stream of answers.
    """

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
        """Write one line of JSON."""
        print(json.dumps(answer), file=self.replies, flush=True)


def main() -> None:
    # Prints of libraries go to standard error, so that standard output has replies only.
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
    """Build the contestant; if it uses torch, with torch's seed from the setting."""
    module, _, name = entry.path.rpartition(".")
    made = getattr(importlib.import_module(f"benchmark.contestants.{module}"), name)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(setting.seed)
    contestant: Contestant = made(setting, **entry.options)
    return contestant


def keep_to_cores(threads: int) -> None:
    """Keep this process to as many cores as threads: XLA has no other option for it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def peak_mib() -> float:
    """Return the largest memory of this process until now.

    It is read from /proc if possible, since `ru_maxrss` begins at the value of the parent process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        (peak,) = (line for line in lines if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
