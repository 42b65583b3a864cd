"""Loading of the VAE of a run, and of rows for it."""

from typing import Literal

from jsonargparse import Namespace

from pyro_vae.data import Rows
from pyro_vae.runs import SentenceParser, device, load, load_data, rows_like
from pyro_vae.vae import VAE


def loaded_vae(options: Namespace) -> VAE:
    """Return the VAE of a run, on the device that is asked for."""
    place = device(options.device)
    return load(options.run, options.weights, options.allow).to(place)


def add_rows(parser: SentenceParser, data: str) -> None:
    """Add the arguments that choose rows.

    Arguments:
        parser: the parser.
        data: the argument that names a file of other rows: `data`, or the option `--data`.
    """
    meaning = "other rows, prepared as the run's data are; rows of the run when omitted"
    if data.startswith("-"):
        parser.add_argument(data, type=str | None, default=None, help=meaning)
    else:
        parser.add_argument(data, nargs="?", type=str, default=None, help=meaning)
    parser.add_argument(
        "--split",
        type=Literal["train", "validation", "test"] | None,
        default=None,
        help="the part of the run's data; test when omitted",
    )


def chosen_rows(options: Namespace) -> Rows:
    """Return the rows of a file, or of a split of the run's data.

    Raises:
        ValueError: if both are asked for, or the run has no validation rows.
    """
    if options.data is not None and options.split is not None:
        raise ValueError(
            f"'split' chooses rows of the run and 'data' names others: leave out one, "
            f"got {options.split} and {options.data}."
        )
    if options.data is not None:
        return rows_like(options.run, options.data, options.allow)
    rows = getattr(load_data(options.run, options.allow), options.split or "test")
    if rows is None:
        raise ValueError(
            "'split' must be train or test, since the run set no validation rows apart, "
            "got validation."
        )
    return rows
