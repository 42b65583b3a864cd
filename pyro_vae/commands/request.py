"""Request for a training: the settings and options that a command line asks for."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import Namespace

from pyro_vae.commands.own_data import (
    OWN,
    names_context,
    names_likelihood,
    of_context,
    of_likelihood,
    with_source,
    without_auto,
)
from pyro_vae.commands.train_help import page as help_page
from pyro_vae.commands.training_parser import training_parser
from pyro_vae.commands.words import spelled_out
from pyro_vae.runs import Settings, as_yaml, instantiate, is_yaml, read_preset

# Settings that a resumed run must share with the stored one: its data, its VAE, its objective, and
# the batches and draws of its epochs. The class of the optimiser is among them, since another class
# cannot read its moments. The rest of `training` and the device may change.
FIXED = (
    "vae",
    "data",
    "training.objective",
    "training.batches",
    "training.seed",
    "training.optimizer.class_path",
)


class Request(NamedTuple):
    """Settings and options from the command line.

    Arguments:
        settings: the settings of the run.
        text: the settings as YAML.
        options: the options of this script, and `swaps`: the classes that replaced others.
    """

    settings: Settings
    text: str
    options: Namespace


def read_settings(
    preset: str,
    arguments: list[str],
    stored: dict[str, Any] | None = None,
) -> Request:
    """Read the command line after the preset. A question for help is answered, and exits.

    Arguments:
        preset: the name of a preset, or a YAML file.
        arguments: the rest of the command line.
        stored: the settings of a stored run, which replace those of the preset.
    """
    early = early_options(arguments)
    allow = early.allow
    defaults, overlay = read_preset(preset, allow)
    if stored is not None:
        defaults = stored
        overlay = []
    parser = training_parser(defaults, allow)
    if early.help is not None:
        print(help_page(early.help, parser), end="")
        sys.exit()
    words = [*overlay, *spelled_out(with_source(arguments, early.data))]
    known = without_auto(words)
    is_open = preset == OWN and stored is None and not names_likelihood(words)
    chooses_likelihood = is_open or known != words
    if chooses_likelihood or names_context(words):  # the data decide
        asked = parser.parse_args(known)
        rows, _ = instantiate(parser, asked).data.read()
        words = [*known, *of_context(rows, asked)]
        if chooses_likelihood:
            words += of_likelihood(rows)
        parser = training_parser(defaults, allow)
    options = parser.parse_args(words)
    options.swaps = parser.swaps
    path = options.get("data.source.init_args.path")
    if path is not None:
        # An absolute path is also right when the run is loaded from another folder.
        options["data.source.init_args.path"] = str(Path(path).absolute())
    settings = instantiate(parser, options)
    return Request(settings, as_yaml(options), options)


def preset_of(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the preset of a command line, and the rest of its arguments.

    Without a name it is the preset of the user's own data beside `--data PATH`, and else the
    default one.
    """
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    data = early_options(arguments).data
    return OWN if data and not is_yaml(data) else "digits", arguments


def early_options(arguments: list[str]) -> argparse.Namespace:
    """Return the options that are needed before the settings of a run are read.

    The parser of the settings refuses what is wrong with them.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--allow", nargs="*", default=[])
    for option in ("--run", "--data", "--seeds", "--init_from"):
        parser.add_argument(option, nargs="?")
    parser.add_argument("-h", "--help", nargs="?", const="")
    for flag in ("--resume", "--overwrite"):
        parser.add_argument(flag, nargs="?", const=True, default=False)
    known, _ = parser.parse_known_args(arguments)
    return known


class Difference(NamedTuple):
    """A setting that differs between two trees.

    Arguments:
        place: its whole name, with `init_args` and `class_path`.
        before: its value in the first tree; None if it has none.
        after: its value in the second tree; None if it has none.
    """

    place: str
    before: Any
    after: Any


def differences(
    before: dict[str, Any], after: dict[str, Any], prefix: str = ""
) -> Iterator[Difference]:
    """Yield the settings that differ between two trees.

    Arguments:
        before: the first tree.
        after: the second tree.
        prefix: the place of both among all settings, with a dot at its end.
    """
    for name in {**before, **after}:
        first = before.get(name)
        second = after.get(name)
        if isinstance(first, dict) and isinstance(second, dict):
            yield from differences(first, second, f"{prefix}{name}.")
        elif first != second:
            yield Difference(prefix + name, first, second)


def check_resumable(stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse a change of any setting in `FIXED`.

    Arguments:
        stored: the settings of the run.
        wanted: those asked for now.

    Raises:
        ValueError: if such a setting differs.
    """
    for place, before, after in differences(stored, wanted):
        if is_fixed(place):
            setting = place.replace(".init_args", "")
            raise ValueError(
                f"'{setting}' must be {before} as in the run that is resumed, "
                f"got {after}: to change it, begin a new run."
            )


def is_fixed(place: str) -> bool:
    """Return True for a setting in `FIXED`, and for a part of one."""
    return any(f"{place}.".startswith(f"{fixed}.") for fixed in FIXED)
