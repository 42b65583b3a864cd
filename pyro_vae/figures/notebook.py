"""Figures that a notebook shows, also where pyplot was never imported."""

import io

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """Figure of matplotlib that draws itself at the end of a notebook cell.

    IPython draws other figures only after pyplot or `%matplotlib inline` has told it how.
    """

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png", bbox_inches="tight")
        return picture.getvalue()
