"""What the command line says to every part of the benchmark."""

from pathlib import Path
from typing import NamedTuple

from benchmark.contest import Machine
from benchmark.setting import Setting


class Options(NamedTuple):
    """How to measure.

    Arguments:
        setting: the common setting.
        rounds: the measured, interleaved rounds.
        races: how often each contestant of the race starts.
        machine: threads and log.
        out: where results go.
    """

    setting: Setting
    rounds: int
    races: int
    machine: Machine
    out: Path
