"""A page of results: text, tables and figures in one folder, as Markdown."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure


class Page:
    """A Markdown file, with its figures in the same folder.

    Arguments:
        folder: where to write; it comes into being with the first file.
        title: the title of the page.
        name: the name of the file.
    """

    def __init__(self, folder: Path, title: str, name: str = "results.md") -> None:
        self.folder = folder
        self.name = name
        self.lines = [f"# {title}", ""]

    def text(self, *paragraphs: str) -> None:
        """Add paragraphs."""
        for paragraph in paragraphs:
            self.lines += [paragraph, ""]

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add a table; numbers are written to three digits."""
        self.lines += [_row(header), _row(["---"] * len(header)), *map(_row, rows), ""]

    def figure(self, name: str, figure: Figure | FuncAnimation, caption: str) -> None:
        """Save a figure as PNG, or an animation as GIF, and show it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if isinstance(figure, Figure):
            file = f"{name}.png"
            figure.savefig(self.folder / file, dpi=110)
        else:
            file = f"{name}.gif"
            figure.save(self.folder / file, writer="pillow", dpi=80)
        self.text(f"![{caption}]({file})", f"*{caption}*")

    def write(self) -> Path:
        """Write the page, and return its path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / self.name
        path.write_text("\n".join(self.lines), encoding="utf-8")
        return path


def _row(cells: Sequence[object]) -> str:
    texts = [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells]
    return "| " + " | ".join(texts) + " |"
