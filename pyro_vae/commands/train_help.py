"""Help of `pyro-vae train`: one screen for a beginner, and a page for each group of settings."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

from pyro_vae.commands.training_parser import add_run_options
from pyro_vae.commands.words import WORDS
from pyro_vae.runs import GROUPS, SentenceParser, presets
from pyro_vae.support.checks import nearest

# The pages besides the first one.
PAGES = (*GROUPS, "all")
_MORE = """Every other setting has its whole name, such as --training.kl_schedule. More help:
  --help=data       the settings of the data
  --help=vae        those of the VAE
  --help=training   those of training
  --help=all        all of these
  --vae.prior.help VampPrior   those of one class"""


def page(name: str, parser: SentenceParser) -> str:
    """Return a page of help.

    Arguments:
        name: one of `PAGES`, or an empty string for the first page.
        parser: the parser of all settings.

    Raises:
        ValueError: if there is no such page.
    """
    if not name:
        return _first_page()
    if name not in PAGES:
        near = nearest(name, PAGES)
        raise ValueError(f"'help' must be one of {', '.join(PAGES)}, got {name}{near}.")
    return parser.format_help() if name == "all" else parser.format_group_help(name)


def _first_page() -> str:
    parser = ArgumentParser(
        prog="pyro-vae train",
        usage="pyro-vae train [PRESET or YAML file] [--data PATH] [--any.setting VALUE]",
        description=_presets(),
        epilog=_MORE,
        add_help=False,
        formatter_class=RawDescriptionHelpFormatter,
    )
    group = parser.add_argument_group("options")
    group.add_argument("--data", metavar="PATH", help="your own data, a file")
    for name, word in WORDS.items():
        group.add_argument(f"--{name}", metavar="VALUE", help=f"{word.meaning}: {word.setting}")
    group.add_argument("--device", metavar="NAME", help="cpu, cuda, or auto, the default")
    add_run_options(group)
    return parser.format_help()


def _presets() -> str:
    known = presets()
    width = max(map(len, known)) + 2
    lines = [f"  {name:{width}}{meaning}" for name, meaning in known.items()]
    return "\n".join(["Train a VAE.", "", "presets:", *lines])
