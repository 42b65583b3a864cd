"""List the runs in a folder, and draw their histories: `pyro-vae runs [FOLDER]`."""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pyro_vae import Epoch, Estimate
from pyro_vae.runs import (
    ListedRun,
    SentenceParser,
    differing,
    list_runs,
    output_file,
    short_names,
)

# Columns of text where the output is no terminal.
_WIDTH = 100
# Characters of the name of a run, and of any other cell but the last column's.
_LONGEST_NAME = 40
_LONGEST = 24
_GAP = "  "
_PNG = b"\x89PNG\r\n\x1a\n"
_ERRORS = "Errors: Monte Carlo, then rows. Both numbers are in nats per row of the last evaluation."


class Column(NamedTuple):
    """A column of the table: its title, and a cell for each run."""

    title: str
    cells: list[str]

    @property
    def width(self) -> int:
        return max(map(len, [self.title, *self.cells]))

    def lines(self) -> list[str]:
        """Return title and cells, all of the same length."""
        return [text.ljust(self.width) for text in (self.title, *self.cells)]

    def cut(self, width: int, at_start: bool = False) -> "Column":
        """Return the column with cells of at most this width."""
        return Column(self.title, [_cut(cell, width, at_start) for cell in self.cells])


def main() -> int:
    """Print the table, and draw the histories if a file is named for them."""
    options = command_parser().parse_args()
    file = None if options.plot is None else plot_file(options.plot)
    found = list_runs(options.folder)
    histories = {run.name: run.history for run in found.runs if run.history}
    if file is not None and not histories:
        raise ValueError(f"'folder' must hold a run with an epoch to plot, got {options.folder}.")
    if found.runs:
        print(table(found.runs, shutil.get_terminal_size((_WIDTH, 0)).columns))
    elif not found.unread:
        print(f"{options.folder} holds no runs.")
    for name, problem in found.unread.items():
        print(_plain(f"{name}: {problem}"))
    if file is not None:
        draw(histories, file)
        print(f"The histories are in {file}.")
    return 0


def command_parser() -> SentenceParser:
    """Return the parser of the command line."""
    parser = SentenceParser(description=__doc__)
    parser.add_argument(
        "folder", nargs="?", type=str, default="runs", help="the folder of the runs"
    )
    parser.add_argument(
        "--plot", type=str | None, default=None, metavar="FILE", help="draw -ELBO by epoch, as .png"
    )
    return parser


def draw(histories: Mapping[str, Sequence[Epoch]], file: Path) -> None:
    """Draw the histories of the runs into a file, by their names."""
    from pyro_vae.figures import loss_curves  # matplotlib takes longer to import than the table

    file.parent.mkdir(parents=True, exist_ok=True)
    loss_curves(histories).savefig(file, dpi=120)


def plot_file(path: str) -> Path:
    """Return the file of the picture.

    Raises:
        ValueError: if it has another ending, cannot be written, or holds something else.
    """
    file = output_file(path, "plot", begins=_PNG)
    if file.suffix.lower() != ".png":
        raise ValueError(f"'plot' must be a file that ends in .png, got {path}.")
    return file


def table(runs: Sequence[ListedRun], width: int) -> str:
    """Return a table of the runs; what is too wide goes on in a further table below.

    Arguments:
        runs: the runs.
        width: the most characters of a line. Names and settings that are long are cut.
    """
    name = Column("run", [_plain(run.name) for run in runs]).cut(_LONGEST_NAME, at_start=True)
    columns = [column.cut(_LONGEST) for column in _columns(runs)]
    commit = Column("commit", [_commit(run.info.commit) for run in runs])
    command = Column("command", [_plain(run.info.command or "-") for run in runs])
    room = width - name.width - len(_GAP)
    left = max(room - commit.width - len(_GAP), _LONGEST)
    blocks = [*_blocks(columns, room), [commit, command.cut(left)]]
    texts = [_text([name, *block]) for block in blocks]
    failures = [_plain(f"{run.name} failed: {run.failure}") for run in runs if run.failure]
    return "\n\n".join([*texts, "\n".join([_ERRORS, *failures])])


def _columns(runs: Sequence[ListedRun]) -> Iterator[Column]:
    """Yield the settings that differ, and the numbers."""
    numbers = {
        "epochs": [str(len(run.history)) for run in runs],
        "-ELBO": [_estimate(run.negative_elbo) for run in runs],
        "log p(x)": [_estimate(run.log_marginal) for run in runs],
        "time": [_duration(run.seconds) for run in runs],
    }
    settings = differing(runs)
    titles = short_names(list(settings), taken=tuple(numbers))
    for title, values in zip(titles, settings.values(), strict=True):
        yield Column(_plain(title), _short(list(map(_value, values))))
    for title, cells in numbers.items():
        yield Column(title, cells)


def _blocks(columns: Sequence[Column], width: int) -> Iterator[list[Column]]:
    """Yield the columns in groups that fit a width; a wider column is a group of its own."""
    block: list[Column] = []
    for column in columns:
        used = sum(other.width + len(_GAP) for other in block)
        if block and used + column.width > width:
            yield block
            block = []
        block.append(column)
    if block:
        yield block


def _text(columns: Sequence[Column]) -> str:
    lines = zip(*(column.lines() for column in columns), strict=True)
    return "\n".join(_GAP.join(line).rstrip() for line in lines)


def _estimate(estimate: Estimate | None) -> str:
    """Return a mean with its errors, the first of which is from the draws."""
    if estimate is None:
        return "-"
    errors = (estimate.monte_carlo_error, estimate.row_error)
    return " ± ".join([f"{estimate.mean:.2f}", *("?" if e is None else f"{e:.2f}" for e in errors)])


def _duration(seconds: float) -> str:
    if not seconds < 60:
        minutes = round(seconds / 60)
        return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
    return f"{seconds:.1f} s"


def _commit(commit: str | None) -> str:
    """Return the first digits of a commit, and a + if files had changed."""
    if commit is None:
        return "-"
    digits, dash, _ = _plain(commit).partition("-")
    return digits[:7] + ("+" if dash else "")


def _value(value: Any) -> str:
    """Return a value as YAML shows it, and a dash if there is none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "-" if value is None else _plain(str(value))


def _short(cells: list[str]) -> list[str]:
    """Return the last parts of the paths in these cells, if they still differ."""
    lasts = [_last(cell) for cell in cells]
    return lasts if len(set(lasts)) == len(set(cells)) else cells


def _last(text: str) -> str:
    """Return the name of a class or file without its path."""
    is_class = re.fullmatch(r"(\w+\.)+[A-Z]\w*", text)
    return re.split(r"\." if is_class else r"[/\\]", text)[-1]


def _plain(text: str) -> str:
    """Return text of a folder without signs that would steer the terminal."""
    return "".join(filter(str.isprintable, text))


def _cut(text: str, width: int, at_start: bool) -> str:
    if len(text) <= width:
        return text
    return f"…{text[1 - width :]}" if at_start else f"{text[: width - 1]}…"
