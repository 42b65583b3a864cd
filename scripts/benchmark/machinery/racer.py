"""The process of one runner of the race: it trains until its test loss is low enough.

It writes a line of JSON after every epoch.
"""

import json
import os
import sys
from dataclasses import dataclass
from typing import TextIO

from benchmark.contestants.contestant import Contestant
from benchmark.machinery.setting import Entry, Setting
from benchmark.machinery.worker import build, keep_to_cores


@dataclass
class Finish:
    """A contestant's `pause`: evaluates after each epoch, and ends the process at the goal.

    Arguments:
        contestant: the runner.
        goal: the test loss to reach, in nats per row.
        max_epochs: the last epoch, at which the process ends too.
        replies: the stream of the lines of JSON.
        epochs: those that are done; −1 before the first call, which precedes training.
    """

    contestant: Contestant
    goal: float
    max_epochs: int
    replies: TextIO
    epochs: int = -1

    def __call__(self) -> None:
        self.epochs += 1
        if self.epochs == 0:
            return
        loss = self.contestant.facts()["test_loss"]
        answer = {"epochs": self.epochs, "test_loss": loss, "is_there": loss <= self.goal}
        print(json.dumps(answer), file=self.replies, flush=True)
        if loss <= self.goal or self.epochs >= self.max_epochs:
            sys.exit(0)


def main() -> None:
    # Prints of libraries go to standard error, so that standard output has replies only.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = json.loads(sys.argv[1])
    keep_to_cores(job["threads"])
    contestant = build(Entry(*job["entry"]), Setting(**job["setting"]))
    contestant.run(Finish(contestant, job["goal"], job["max_epochs"], replies))


if __name__ == "__main__":
    main()
