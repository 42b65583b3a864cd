"""What the figures draw: how many pictures, in which order, between which limits, under which names."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from pyro_vae import Epoch
from pyro_vae.figures import (
    animation,
    as_images,
    elbo_history,
    image_grid,
    kl_by_dimension,
    latent_scatter,
    manifold,
    score_histogram,
    tiled,
)
from pyro_vae.latent import linear_grid


def picture_of(figure):
    (axis,) = figure.axes
    (image,) = axis.images
    return np.asarray(image.get_array())


@pytest.mark.parametrize(
    ("x_shape", "picture"),
    [((1, 3, 4), (3, 4)), ((3, 3, 4), (3, 4, 3)), ((3, 4), (3, 4)), ((4,), (1, 4)), ((2, 3, 4), (1, 24))],
)
def test_rows_become_pictures(x_shape, picture):
    assert as_images(torch.zeros(5, *x_shape)).shape == (5, *picture)


def test_tiles_stand_in_reading_order_with_a_margin_between_them():
    rows = torch.arange(1, 7).float().reshape(6, 1, 1, 1).expand(6, 1, 2, 3).split(3)
    canvas = tiled(rows)
    assert canvas.shape == (2 * 3 - 1, 3 * 4 - 1)
    assert canvas[::3, ::4].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (canvas[2] == 0).all()
    assert (canvas[:, 3] == 0).all()


def test_a_short_row_ends_in_blanks():
    canvas = tiled([torch.ones(3, 1, 2, 2), torch.ones(1, 1, 2, 2)])
    assert canvas[3:, :2].min() == 1
    assert canvas[3:, 2:].max() == 0


def test_a_grid_shows_every_picture_and_names_rows_and_columns():
    rows = [torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8)]
    figure = image_grid(rows, "pairs", ("x", "E[x | z]"), "abcd", max_level=2.0)
    assert np.array_equal(picture_of(figure), tiled(rows))
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["x", "E[x | z]"]
    assert [text.get_text() for text in axis.get_xticklabels()] == list("abcd")
    assert axis.get_yticks().tolist() == [3.5, 12.5]
    assert axis.images[0].get_clim() == (0, 2.0)
    assert figure.get_suptitle() == "pairs"


def test_a_manifold_has_its_highest_second_coordinate_on_top_and_its_axes_labelled_with_z():
    grid = linear_grid(side=5, extent=2.0)
    means = grid[..., 1].reshape(5, 5, 1, 1, 1).expand(5, 5, 1, 9, 9)
    figure = manifold(means, grid, dims=(3, 1))
    (axis,) = figure.axes
    assert picture_of(figure)[::10, 0].tolist() == [2, 1, 0, -1, -2]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["-2.00", "-1.00", "0.00", "1.00", "2.00"]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["2.00", "1.00", "0.00", "-1.00", "-2.00"]
    assert axis.get_xticks().tolist() == [4, 14, 24, 34, 44]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("$z_{4}$", "$z_{2}$")


@pytest.fixture
def history():
    return [Epoch(number, 1e-3, 1.0, 100.0 - number, None, 101.0 - number, 1.0) for number in range(1, 4)]


def test_a_history_has_a_line_for_each_loss_there_is_and_circles_for_published_ones(history):
    (axis,) = elbo_history(history, "title", {1: 98.0, 3: 96.0}).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert lines == {
        "train": [[1, 99], [2, 98], [3, 97]],
        "test": [[1, 100], [2, 99], [3, 98]],
        "published": [[1, 98], [3, 96]],
    }
    assert "nats" in axis.get_ylabel()
    assert len({line.get_linestyle() for line in axis.lines}) == 3  # readable in grey


def test_a_scatter_has_each_class_in_a_colour_of_its_own_and_its_name_at_its_median():
    z, labels = torch.randn(60, 2), torch.arange(60) % 3
    figure = latent_scatter(z, labels, "title", names=("a", "b", "c"))
    (axis,) = figure.axes
    for number, points in enumerate(axis.collections):
        assert np.allclose(points.get_offsets(), z[labels == number])
        assert tuple(points.get_facecolor()[0][:3]) == to_rgba(f"C{number}")[:3]
    assert [text.get_text() for text in axis.texts] == ["a", "b", "c"]
    assert np.allclose(axis.texts[1].xy, z[labels == 1].median(0).values)
    (legend,) = figure.legends  # outside the axes
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]


def test_a_colour_bar_names_the_classes_in_the_colours_of_their_points():
    labels = torch.arange(60) % 3
    figure = latent_scatter(torch.randn(60, 2), labels, "title", names=("a", "b", "c"), colour_bar=True)
    _, bar = figure.axes
    assert [text.get_text() for text in bar.get_yticklabels()] == ["a", "b", "c"]
    assert not figure.legends


def test_dimensions_stand_by_falling_rate_and_inactive_ones_are_hatched():
    (axis,) = kl_by_dimension([0.5, 3.0, 0.001, 2.0], [True, True, False, True], "title").axes
    assert [text.get_text() for text in axis.get_xticklabels()] == ["2", "4", "1", "3"]
    heights = {bar.get_x() + bar.get_width() / 2: (bar.get_height(), bar.get_hatch()) for bar in axis.patches}
    assert {round(place): height for place, height in heights.items()} == {
        0: (3.0, ""),
        1: (2.0, ""),
        2: (0.5, ""),
        3: (0.001, "////"),
    }


def test_a_histogram_counts_every_row_and_marks_what_is_asked():
    figure = score_histogram(torch.randn(500), {"noise": 7.25, "threshold": 2.0}, "title", "KL (nats)")
    (axis,) = figure.axes
    assert sum(bar.get_height() for bar in axis.patches) == 500
    assert [line.get_xdata()[0] for line in axis.lines] == [7.25, 2.0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["500 rows", "noise: 7.2", "threshold: 2.0"]


def test_an_animation_shows_each_picture_under_its_title(tmp_path):
    from PIL import Image

    pictures = [np.full((20, 30), level) for level in (0.0, 0.5, 1.0)]
    animated = animation(pictures, ["step 0", "step 1", "step 2"])
    animated.save(tmp_path / "frames.gif", writer="pillow")
    (axis,) = animated._fig.axes
    assert axis.get_title() == "step 2"
    assert axis.images[0].get_clim() == (0, 1)
    with Image.open(tmp_path / "frames.gif") as image:
        assert image.n_frames == 3
