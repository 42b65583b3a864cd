"""Options of the command line for every part of the benchmark."""

from pathlib import Path
from typing import NamedTuple

from benchmark.machinery.contest import Machine
from benchmark.machinery.setting import Setting


class Options(NamedTuple):
    """Options of a measurement.

    Arguments:
        setting: that of all contestants.
        rounds: the number of measured rounds.
        races: the number of starts of each runner of the race.
        machine: threads and log.
        out: the folder of the results.
    """

    setting: Setting
    rounds: int
    races: int
    machine: Machine
    out: Path
