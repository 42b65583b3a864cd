"""Write encoder and decoder of a run for torch alone, by `torch.export`."""

from pathlib import Path

from pyro_vae.commands.loading import loaded_vae
from pyro_vae.runs import SentenceParser, export, output_folder, run_options, run_parser


def main() -> int:
    """Export the run."""
    options = run_options(command_parser())
    place = Path(options.run) / "exported" if options.out is None else options.out
    folder = output_folder(place, "out")
    exported = export(loaded_vae(options), folder)
    print(f"Wrote {', '.join(map(str, exported))}.")
    return 0


def command_parser() -> SentenceParser:
    """Return the parser of the command line."""
    parser = run_parser(__doc__)
    parser.add_argument(
        "--out", type=str | None, default=None, help="the folder; RUN/exported when omitted"
    )
    return parser
