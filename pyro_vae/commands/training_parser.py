"""Parser of `pyro-vae train`: all settings, and the options of a run."""

from collections.abc import Sequence
from typing import Any

from pyro_vae.runs import SentenceParser, settings_parser


def training_parser(
    defaults: dict[str, Any] | None = None, allow: Sequence[str] = ()
) -> SentenceParser:
    """Return a parser of all settings and of the options of a run.

    Arguments:
        defaults: default settings, as `read_preset` returns them; none by default.
        allow: packages of the user's own that the settings of a run may name.
    """
    parser = settings_parser(defaults, allow)
    parser.usage = "pyro-vae train [PRESET or YAML file] [--any.setting VALUE]"
    add_run_options(parser)
    return parser


def add_run_options(parser: Any) -> None:
    """Add the options of a run to a parser, or to a group of its arguments."""
    parser.add_argument("--run", metavar="FOLDER", help="the run folder; runs/PRESET when omitted")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in the folder")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in the folder; most settings of training may change",
    )
    parser.add_argument(
        "--seeds",
        metavar="LIST",
        help="train once for each seed, such as 1,2,3, in FOLDER/seed-1 and so on",
    )
    parser.add_argument(
        "--init_from",
        metavar="RUN",
        help="start from the best weights of another run, whose VAE has the same settings",
    )
    parser.add_argument(
        "--allow",
        nargs="*",
        default=[],
        metavar="PACKAGE",
        help="packages of your own whose classes a run may name",
    )
