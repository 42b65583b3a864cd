"""Print the completion of the commands for a shell: `pyro-vae completion bash`."""

from importlib import import_module
from importlib.util import find_spec
from typing import Literal

from jsonargparse import ArgumentParser

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
    from pyro_vae.commands.root import COMMANDS

    if find_spec("shtab") is None:
        raise ValueError("'completion' needs shtab: pip install 'pyro_vae[completion]'.")
    root = ArgumentParser(prog="pyro-vae")
    commands = root.add_subcommands()
    for name, meaning in COMMANDS.items():
        module = import_module(f"pyro_vae.commands.{name}")
        commands.add_subcommand(name, module.command_parser(), help=meaning)
    return root.get_completion_script(f"shtab-{shell}")
