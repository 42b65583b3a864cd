"""Reproduce the reference systems.

`reproduce.py [R0 ... R4 | anomaly | remedies | all] [--out FOLDER]`. `all` leaves out the remedies
of anomaly detection, which train twelve times.
"""

import importlib
import sys

import door
from choice import chosen

from pyro_vae.commands.page import Page
from pyro_vae.runs import SentenceParser, output_folder

ALL = ("R0", "R1", "R2", "R3", "R4", "anomaly")
SYSTEMS = (*ALL, "remedies")


def main() -> int:
    parser = SentenceParser(description=__doc__)
    parser.add_argument(
        "systems", nargs="*", default=["all"], help=f"the systems: {', '.join(SYSTEMS)}, or all"
    )
    parser.add_argument(
        "--out",
        type=str,
        default="runs/reproduce",
        help="where to write results.md and the figures",
    )
    options = parser.parse_args(sys.argv[1:])
    systems = chosen(options.systems, "systems", SYSTEMS, of_all=ALL)
    page = Page(
        output_folder(options.out, "out"), "The reference systems, published beside reached"
    )
    for system in systems:
        importlib.import_module(f"reproductions.{system.lower()}").reproduce(page)
        print(f"Wrote {page.write()}.")
    return 0


if __name__ == "__main__":
    door.run(main)
