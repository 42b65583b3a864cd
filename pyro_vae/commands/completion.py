"""Print the completion of the commands for a shell: `pyro-vae completion bash`."""

from argparse import ArgumentParser
from importlib import import_module
from importlib.util import find_spec
from typing import Literal

from pyro_vae.commands.root import COMMANDS
from pyro_vae.runs import SentenceParser


def main() -> None:
    """Print the completion."""
    print(script(command_parser().parse_args().shell))


def command_parser() -> SentenceParser:
    """Return the parser of the command line."""
    parser = SentenceParser(description=__doc__)
    parser.add_argument("shell", type=Literal["bash", "zsh"], help="the shell")
    return parser


def script(shell: str) -> str:
    """Return the completion of all commands, as a script for the shell.

    Raises:
        ValueError: if shtab is not installed.
    """
    if find_spec("shtab") is None:
        raise ValueError("'completion' needs shtab: pip install 'pyro_vae[completion]'.")
    import shtab

    root = ArgumentParser(prog="pyro-vae")
    commands = root.add_subparsers()
    for name, meaning in COMMANDS.items():
        module = import_module(f"pyro_vae.commands.{name}")
        add_options(commands.add_parser(name, help=meaning), module.command_parser())
    return shtab.complete(root, shell)


def add_options(plain: ArgumentParser, parser: SentenceParser) -> None:
    """Add the options of a command to a parser that completes them.

    jsonargparse would complete the arguments of every class of torch, in 70 MB.
    """
    for option, values in parser.values_by_option().items():
        if option not in ("-h", "--help"):
            plain.add_argument(option, choices=values or None)
