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
    linear_grid,
    manifold,
    score_histogram,
    tiled,
    worst_rows,
)


def picture_of(figure):
    (axis,) = figure.axes
    (image,) = axis.images
    return np.asarray(image.get_array())


@pytest.mark.parametrize(
    ("x_shape", "picture"),
    [
        *[
            ((1, 3, 4), (3, 4)),
            ((3, 3, 4), (3, 4, 3)),
            ((3, 4), (3, 4)),
            ((4,), (1, 4)),
            ((2, 3, 4), (1, 24)),
        ],
        *[((5, 4, 3), (5, 4, 3)), ((5, 4, 1), (5, 4))],  # channels last
    ],
)
def test_rows_become_pictures(x_shape, picture):
    assert as_images(torch.zeros(5, *x_shape)).shape == (5, *picture)


def test_tiles_stand_in_reading_order_with_a_margin_between_them():
    rows = torch.arange(1, 7).float().reshape(6, 1, 1, 1).expand(6, 1, 2, 3).split(3)
    canvas = tiled(rows)
    assert canvas.shape == (2 * 3 - 1, 3 * 4 - 1)
    assert canvas[::3, ::4].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert np.isnan(canvas[2]).all()
    assert np.isnan(canvas[:, 3]).all()


def test_a_short_row_ends_in_blanks():
    canvas = tiled([torch.ones(3, 1, 2, 2), torch.ones(1, 1, 2, 2)])
    assert canvas[3:, :2].min() == 1
    assert np.isnan(canvas[3:, 2:]).all()


def test_a_grid_shows_every_picture_and_names_rows_and_columns():
    rows = [torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8)]
    figure = image_grid(rows, "pairs", ("x", "E[x | z]"), "abcd", max_level=2.0)
    assert np.array_equal(picture_of(figure), tiled(rows), equal_nan=True)
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["x", "E[x | z]"]
    assert [text.get_text() for text in axis.get_xticklabels()] == list("abcd")
    assert axis.get_yticks().tolist() == [3.5, 12.5]
    assert axis.images[0].get_clim() == (0, 2.0)
    assert figure.get_suptitle() == "pairs"


# The range of levels that is drawn

COLOURS = torch.rand(6, 3, 8, 9, generator=torch.Generator().manual_seed(0))
GRID = linear_grid(side=3, extent=2.0)


def grid_of(x, **options):
    return image_grid(list(x.split(3)), "title", **options)


def manifold_of(x, **options):
    return manifold(x[[0, 1, 2, 3, 4, 5, 0, 1, 2]].reshape(3, 3, *x.shape[1:]), GRID, **options)


def worst_of(x):
    return worst_rows(x[:3], x[3:], torch.arange(3.0))


def animation_of(x):
    animated = animation([tiled(list(x.split(3)))] * 2, ["first", "second"])
    animated._func(1)
    animated._draw_was_started = True  # what is left undrawn warns
    return animated._fig


DRAWN = [grid_of, manifold_of, worst_of, animation_of]


@pytest.mark.parametrize("draw", DRAWN)
@pytest.mark.parametrize("highest", [255.0, 0.01])
def test_colours_are_drawn_from_dark_to_bright_whatever_their_highest_level(draw, highest):
    x = COLOURS / COLOURS.max()
    picture = picture_of(draw(x * highest))
    assert ((picture >= 0) & (picture <= 1)).all()
    np.testing.assert_allclose(
        picture[:8, :9], x[2 if draw is worst_of else 0].movedim(0, -1), atol=1e-6
    )
    assert (picture[8] == 1).all()  # the margin
    assert (picture == 1).mean() < 0.3


@pytest.mark.parametrize("draw", [grid_of, manifold_of])
def test_the_highest_level_that_is_given_is_the_brightest(draw):
    picture = picture_of(draw(COLOURS * 100, max_level=200.0))
    np.testing.assert_allclose(picture[:8, :9], COLOURS[0].movedim(0, -1) / 2, atol=1e-6)
    for max_level in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="'max_level' must be a finite number above 0"):
            draw(COLOURS, max_level=max_level)


@pytest.mark.parametrize("draw", DRAWN)
@pytest.mark.parametrize("shift", [0.6])
def test_levels_below_zero_are_drawn_in_a_range_that_is_named(draw, shift):
    grey, colours = draw(COLOURS[:, :1] - shift), draw(COLOURS - shift)
    low, high = grey.axes[0].images[0].get_clim()
    values = picture_of(grey)[:8, :9]
    assert low <= values.min() < 0
    assert values.max() <= high
    assert (values > low + (high - low) / 10).mean() > 0.5
    assert grey.get_supxlabel() == f"white: {low:.3g}, black: {high:.3g}"
    assert colours.get_supxlabel().startswith("dark: -")
    assert 0 < picture_of(colours)[:8, :9].mean() < 0.9
    assert draw(COLOURS).get_supxlabel() == ""


def test_what_is_missing_is_white():
    colours = COLOURS.clone()
    colours[0, :, :4] = torch.nan
    assert (picture_of(grid_of(colours * 255))[:4, :9] == 1).all()
    grey = grid_of(colours[:, :1])
    grey.canvas.draw()  # a warning would be an error
    assert grey.axes[0].images[0].get_array().mask[:4, :9].all()


@pytest.mark.parametrize("level", [0.0, -2.0, 3.0])
def test_a_picture_of_one_level_has_a_range(level):
    low, high = grid_of(torch.full((3, 1, 4, 4), level)).axes[0].images[0].get_clim()
    assert low <= level <= high
    assert low < high


def test_a_manifold_has_its_highest_second_coordinate_on_top_and_its_axes_labelled_with_z():
    grid = linear_grid(side=5, extent=2.0)
    means = grid[..., 1].reshape(5, 5, 1, 1, 1).expand(5, 5, 1, 9, 9)
    figure = manifold(means, grid, dims=(3, 1))
    (axis,) = figure.axes
    assert picture_of(figure)[::10, 0].tolist() == [2, 1, 0, -1, -2]
    assert [text.get_text() for text in axis.get_xticklabels()] == [
        "-2.00",
        "-1.00",
        "0.00",
        "1.00",
        "2.00",
    ]
    assert [text.get_text() for text in axis.get_yticklabels()] == [
        "2.00",
        "1.00",
        "0.00",
        "-1.00",
        "-2.00",
    ]
    assert axis.get_xticks().tolist() == [4, 14, 24, 34, 44]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("$z_{4}$", "$z_{2}$")


@pytest.fixture
def history():
    return [
        Epoch(number, 1e-3, 1.0, 100.0 - number, None, 101.0 - number, 1.0)
        for number in range(1, 4)
    ]


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
    figure = latent_scatter(
        torch.randn(60, 2), labels, "title", names=("a", "b", "c"), colour_bar=True
    )
    _, bar = figure.axes
    assert [text.get_text() for text in bar.get_yticklabels()] == ["a", "b", "c"]
    assert not figure.legends


def test_dimensions_stand_by_falling_rate_and_inactive_ones_are_hatched():
    (axis,) = kl_by_dimension([0.5, 3.0, 0.001, 2.0], [True, True, False, True], "title").axes
    assert [text.get_text() for text in axis.get_xticklabels()] == ["2", "4", "1", "3"]
    heights = {
        bar.get_x() + bar.get_width() / 2: (bar.get_height(), bar.get_hatch())
        for bar in axis.patches
    }
    assert {round(place): height for place, height in heights.items()} == {
        0: (3.0, ""),
        1: (2.0, ""),
        2: (0.5, ""),
        3: (0.001, "////"),
    }


def test_a_histogram_counts_every_row_and_marks_what_is_asked():
    figure = score_histogram(
        torch.randn(500), {"noise": 7.25, "threshold": 2.0}, "title", "KL (nats)"
    )
    (axis,) = figure.axes
    assert sum(bar.get_height() for bar in axis.patches) == 500
    assert [line.get_xdata()[0] for line in axis.lines] == [7.25, 2.0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "500 rows",
        "noise: 7.2",
        "threshold: 2.0",
    ]


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
