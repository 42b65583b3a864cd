"""Figures at the end of a notebook cell."""

import io
import re
from pathlib import Path

import matplotlib.image
import torch

from pyro_vae import figures
from pyro_vae.figures.notebook import NotebookFigure


def test_a_figure_draws_itself_as_a_picture():
    figure = figures.image_grid([torch.eye(8).reshape(1, 1, 8, 8)], "An eye")
    assert isinstance(figure, NotebookFigure)
    picture = matplotlib.image.imread(io.BytesIO(figure._repr_png_()))
    assert picture.ndim == 3
    assert picture.min() < 0.1 < 0.9 < picture.max()


def test_every_figure_of_the_folder_is_one_for_notebooks():
    for file in Path(figures.__file__).parent.glob("*.py"):
        made = re.findall(r"= (\w*Figure)\(", file.read_text(encoding="utf-8"))
        assert set(made) <= {"NotebookFigure"}, file.name
