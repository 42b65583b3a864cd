"""Measure the speed of training and evaluation.

`run_benchmark.py [epochs | particles | ... | all] [--out FOLDER]`. Each part writes its raw numbers
as JSON. The page and its figures show all JSON in the folder; `page` draws them again without
measuring.
"""

import importlib
import json
import os
import sys
from pathlib import Path

import door
from benchmark.machinery.contest import Machine
from benchmark.machinery.machine import machine_facts
from benchmark.machinery.options import Options
from benchmark.machinery.setting import Setting
from choice import chosen
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from pyro_vae import MNIST
from pyro_vae.commands.page import Page
from pyro_vae.data import data_folder
from pyro_vae.runs import SentenceParser, output_folder

PARTS = ("epochs", "particles", "likelihood", "weights", "race", "scaling")


def main() -> int:
    options = read_options()
    parts = chosen(options.parts, "parts", (*PARTS, "page"), of_all=PARTS)
    parts = [part for part in parts if part != "page"]
    out = output_folder(options.out, "out")
    for part in parts:
        measure(part, out, options)
        print(f"Wrote {write_page(out)}.")
    if not parts:
        if not any((out / f"{part}.json").is_file() for part in PARTS):
            raise ValueError(f"'out' must hold the JSON of a part to draw, got {out} without any.")
        print(f"Wrote {write_page(out)}.")
    return 0


def read_options() -> Namespace:
    """Return the options of the command line."""
    parser = SentenceParser(description=__doc__)
    parser.add_argument(
        "parts", nargs="*", default=["all"], help=f"the parts: {', '.join(PARTS)}, page, or all"
    )
    parser.add_argument(
        "--out",
        type=str,
        default="runs/benchmark",
        help="where to write JSON, figures and the page",
    )
    parser.add_argument(
        "--rounds",
        type=PositiveInt,
        default=10,
        help="measured rounds, in which the contestants take turns",
    )
    parser.add_argument(
        "--races", type=PositiveInt, default=3, help="how often each runner of the race starts"
    )
    parser.add_argument(
        "--rows", type=PositiveInt, default=60_000, help="the training rows; fewer for a quick try"
    )
    parser.add_argument(
        "--threads",
        type=PositiveInt,
        default=os.cpu_count() or 1,
        help="the threads of each contestant",
    )
    return parser.parse_args(sys.argv[1:])


def measure(part: str, out: Path, options: Namespace) -> None:
    """Measure a part, and write the result as JSON, with the facts of the machine."""
    MNIST().read()  # any download happens before anything is timed
    out.mkdir(parents=True, exist_ok=True)
    setting = Setting(folder=str(data_folder().absolute()), num_rows=options.rows)
    machine = Machine(options.threads, out / f"{part}.log")
    machine.log.unlink(missing_ok=True)
    part_options = Options(setting, options.rounds, options.races, machine, out)
    result = importlib.import_module(f"benchmark.parts.{part}").measure(part_options)
    facts = {**machine_facts(options.threads), "rows": options.rows}
    stored = json.dumps({"machine": facts, "result": result}, indent=1)
    (out / f"{part}.json").write_text(stored, encoding="utf-8")


def write_page(out: Path) -> Path:
    """Write the page of all parts whose JSON the folder holds."""
    page = Page(out, "The speed benchmark")
    for part in PARTS:
        path = out / f"{part}.json"
        if not path.exists():
            continue
        stored = json.loads(path.read_text(encoding="utf-8"))
        importlib.import_module(f"benchmark.parts.{part}").report(page, stored["result"])
        page.text(describe(stored["machine"]))
    return page.write()


def describe(machine: dict[str, object]) -> str:
    """Write one sentence on the machine and the versions."""
    versions = machine["versions"]
    assert isinstance(versions, dict)
    names = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"*{machine['processor']}, {machine['threads']} of {machine['cores']} cores, "
        f"{machine['rows']:,} training rows; Python {machine['python']}, {names}.*"
    )


if __name__ == "__main__":
    door.run(main)
