"""A page of results: text, tables and figures in one folder, as Markdown."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure


class Page:
    """A Markdown file and the figures beside it.

    Arguments:
        folder: where to write.
        title: the title of the page.
        name: the name of the file.
    """

    def __init__(self, folder: Path, title: str, name: str = "results.md") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name, self.lines = folder, name, [f"# {title}", ""]

    def text(self, *paragraphs: str) -> None:
        """Add paragraphs."""
        for paragraph in paragraphs:
            self.lines += [paragraph, ""]

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add a table; numbers are written to three digits."""
        self.lines += [_row(header), _row(["---"] * len(header)), *map(_row, rows), ""]

    def figure(self, name: str, figure: Figure | FuncAnimation, caption: str) -> None:
        """Save a figure as PNG, or an animation as GIF, and show it."""
        if isinstance(figure, Figure):
            figure.savefig(self.folder / f"{name}.png", dpi=110)
        else:
            figure.save(self.folder / f"{name}.gif", writer="pillow", dpi=80)
        ending = "png" if isinstance(figure, Figure) else "gif"
        self.text(f"![{caption}]({name}.{ending})", f"*{caption}*")

    def write(self) -> Path:
        """Write the page."""
        path = self.folder / self.name
        path.write_text("\n".join(self.lines), encoding="utf-8")
        return path


def _row(cells: Sequence[object]) -> str:
    return (
        "| "
        + " | ".join(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells)
        + " |"
    )
