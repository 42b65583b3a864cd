"""Root of the command line: `pyro-vae COMMAND`. Only the command that is called is imported."""

import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import NoReturn

from pyro_vae import __version__
from pyro_vae.commands import door

# The commands, and what each does.
COMMANDS = {
    "train": "train a VAE: on the data of a preset, or on your own",
    "evaluate": "measure -ELBO, log p(x) and active units of a run, with their errors",
    "sample": "draw prior samples, reconstructions, an interpolation and a manifold",
    "encode": "write the codes of rows: mean and scale of q(z | x), draws, k-hat",
    "impute": "fill in missing entries of rows",
    "detect": "score rows by how unlike the training rows they are",
    "diagnose": "judge the posterior: collapse, calibration, k-hat, bounds and gaps",
    "export": "write encoder and decoder of a run for torch alone",
    "runs": "list the runs in a folder: settings that differ, -ELBO, log p(x) and commands",
    "completion": "print the completion of these commands for a shell",
}
_USAGE = """usage: pyro-vae COMMAND [arguments]

Variational autoencoders in Pyro: train them, measure them, look at them.

commands:
{commands}

options:
  --version   print the version
  --help      print this; after a command, print its arguments

The first run takes half a minute: pyro-vae train digits"""


def main(command: str | None = None) -> NoReturn:
    """Run a command, and exit with its code.

    Arguments:
        command: the name of the command; the first word of the command line when omitted.
    """
    door.watch()
    if command is not None:
        door.run(import_module(f"pyro_vae.commands.{command}").main)
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        _print(_help())
    if words[0] == "--version":
        _print(f"pyro-vae {__version__}")
    if words[0] not in COMMANDS:
        door.run(partial(_refuse, words))
    sys.argv[:2] = [f"pyro-vae {words[0]}"]
    main(words[0])


def _print(text: str) -> NoReturn:
    print(text)
    sys.exit()


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{meaning}" for name, meaning in COMMANDS.items()]
    return _USAGE.format(commands="\n".join(lines))


def _refuse(words: Sequence[str]) -> NoReturn:
    from pyro_vae.support.checks import nearest

    near = nearest(words[0], COMMANDS)
    received = words[0] or "an empty string"
    raise ValueError(f"'command' must be one of {', '.join(COMMANDS)}, got {received}{near}.")
