"""What the figures of the diagnostics draw: every row once, in the right group, order and place."""

import math

import numpy as np
import pytest
import torch

from pyro_vae.diagnostics import Calibration
from pyro_vae.figures import (
    coverage_curve,
    khat_histogram,
    rank_histograms,
    sandwich,
    tiled,
    worst_rows,
)
from pyro_vae.figures import diagnosis as figures


def legend_of(figure):
    (legend,) = figure.legends  # outside the axes
    return [text.get_text() for text in legend.get_texts()]


def lines_of(axis):
    return {line.get_label(): line.get_xydata() for line in axis.lines}


@pytest.fixture
def calibration():
    """Uniform ranks of 14 latent dimensions and of log p(x, z); those of z_4 are too often 0."""
    ranks = torch.stack([torch.arange(20).repeat(10).roll(shift) for shift in range(15)], dim=1)
    ranks[:60, 3] = 0
    return Calibration.from_ranks(ranks, 19)


# Pareto k-hat


def test_a_histogram_of_khat_draws_each_row_in_its_group_and_counts_those_without():
    khat = torch.tensor([0.1, 0.2, 0.5, 0.51, 0.69, 0.71, 1.3, -0.3, math.inf, math.nan])
    figure = khat_histogram(khat, "title")
    (axis,) = figure.axes
    assert sum(patch.get_height() for patch in axis.patches) == 8
    counts = {}
    for patch in axis.patches:
        counts[patch.get_facecolor()] = counts.get(patch.get_facecolor(), 0) + patch.get_height()
    assert list(counts.values()) == [4, 2, 2]  # three greys
    assert [line.get_xdata()[0] for line in axis.lines[:2]] == [0.5, 0.7]
    assert legend_of(figure) == [
        "$\\hat{k} \\leq 0.5$: 4 rows, 40.0 %",
        "$0.5 < \\hat{k} \\leq 0.7$: 2 rows, 20.0 %",
        "$\\hat{k} > 0.7$: 2 rows, 20.0 %",
        "no $\\hat{k}$, too few tail draws: 2 rows, 20.0 %",
    ]


def test_a_histogram_of_khat_is_drawn_though_no_row_has_one():
    figure = khat_histogram(torch.full((3,), math.inf), "title")
    assert legend_of(figure)[-1].endswith("3 rows, 100.0 %")


@pytest.mark.parametrize("highest", [0.6, 1.0, 4.0, 40.0])
def test_bins_of_khat_hold_all_rows_and_are_not_too_many(highest):
    figure = khat_histogram(torch.tensor([-0.22, 0.3, highest]), "title")
    (axis,) = figure.axes
    assert sum(patch.get_height() for patch in axis.patches) == 3
    assert len(axis.patches) <= 3 * (figures._MAX_KHAT_BINS + 1)


def test_the_worst_rows_stand_from_infinity_down_over_their_reconstructions():
    images, khat = torch.rand(30, 1, 8, 8), torch.linspace(-1, 1, 30).roll(7)
    khat[3] = math.inf
    figure = worst_rows(images, images / 2, khat, "title")
    (axis,) = figure.axes
    order = [3, *[row for row in khat.argsort(descending=True).tolist() if row != 3][:11]]
    assert np.array_equal(
        np.asarray(axis.images[0].get_array()),
        tiled([images[order], images[order] / 2]),
        equal_nan=True,
    )
    labels = [text.get_text() for text in axis.get_xticklabels()]
    assert labels == ["∞"] + [f"{khat[row]:.2f}" for row in order[1:]]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["x", "E[x | z]"]


def test_fewer_rows_than_there_is_room_for_are_all_shown():
    figure = worst_rows(torch.rand(3, 6), torch.rand(3, 6), torch.tensor([0.1, math.nan, 0.3]))
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["∞", "0.30", "0.10"]


# Calibration


def test_rank_histograms_show_the_worst_quantities_and_the_joint_density(calibration):
    figure = rank_histograms(calibration, "title")
    assert len(figure.axes) == 12
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[0] == "$z_{4}$: rejected"
    assert figure.axes[0].title.get_weight() == "bold"
    assert titles[-1] == "log p(x, z): p = 1"
    assert figure.axes[-1].title.get_weight() == "normal"
    for axis, column in ((figure.axes[0], 3), (figure.axes[-1], 14)):
        heights = axis.patches[-1].get_data().values
        assert heights.tolist() == calibration.histogram()[column].tolist()
        assert heights.sum() == 200
    assert legend_of(figure) == ["99 % of the bins of uniform ranks", "rows in a bin"]


@pytest.mark.parametrize("num_dims", [1, 2, 5, 12])
def test_there_is_a_panel_for_each_quantity_and_every_column_of_panels_names_the_rank(num_dims):
    ranks = torch.arange(20).repeat(10)[:, None].expand(-1, num_dims + 1)
    figure = rank_histograms(Calibration.from_ranks(ranks, 19), "title")
    assert len(figure.axes) == min(12, num_dims + 1)
    assert any(axis.get_title().startswith("log p(x, z)") for axis in figure.axes)
    labelled = [axis for axis in figure.axes if axis.get_xlabel() == "rank among 19 draws"]
    assert len(labelled) == min(4, num_dims + 1)


@pytest.mark.parametrize(("num_trials", "probability"), [(1000, 0.05), (200, 0.2), (37, 0.5)])
def test_the_band_is_the_smallest_central_one_that_holds_99_percent(num_trials, probability):
    low, high = figures._binomial_interval(num_trials, probability, 0.99)
    chances = [
        math.comb(num_trials, count)
        * probability**count
        * (1 - probability) ** (num_trials - count)
        for count in range(num_trials + 1)
    ]
    assert sum(chances[:low]) < 0.005 <= sum(chances[: low + 1])
    assert sum(chances[high + 1 :]) <= 0.005 < sum(chances[high:])


def test_the_band_is_drawn_where_it_is(calibration):
    band = rank_histograms(calibration, "title").axes[0].patches[0]
    assert (band.get_y(), band.get_y() + band.get_height()) == figures._binomial_interval(
        200, 1 / 5, 0.99
    )


def test_a_coverage_curve_has_a_line_for_each_dimension_their_mean_and_the_diagonal(calibration):
    figure = coverage_curve(calibration, "title")
    (axis,) = figure.axes
    assert len(axis.lines) == 14 + 2
    results = calibration.coverage([0.1, 0.5, 0.9])
    mean = dict(lines_of(axis)["mean over dimensions ± 2 standard errors"].round(6))
    for result in results:
        assert mean[round(result.nominal, 6)] == pytest.approx(result.mean, abs=1e-6)
    worst = dict(axis.lines[3].get_xydata().round(6))
    assert worst[0.9] == pytest.approx(results[-1].by_dim[3], abs=1e-6)
    assert lines_of(axis)["exact posterior"].tolist() == [[0, 0], [1, 1]]
    assert list(mean) == pytest.approx([0.1 * number for number in range(1, 10)])


@pytest.mark.parametrize("num_draws", [19, 99, 999])
def test_a_coverage_curve_asks_for_no_more_levels_than_the_eye_can_use(num_draws):
    ranks = (torch.arange(1000) % (num_draws + 1))[:, None].expand(-1, 2)
    (axis,) = coverage_curve(Calibration.from_ranks(ranks, num_draws), "title").axes
    assert 9 <= len(axis.lines[0].get_xdata()) <= 50


# Bounds


@pytest.mark.parametrize("has_upper", [True, False])
def test_a_sandwich_has_the_rows_by_rising_lower_bound_and_their_distances_from_it(has_upper):
    lower, slack = torch.tensor([-90.0, -120.0, -100.0]), torch.tensor([8.0, 0.25, 1.0])
    figure = sandwich(lower, lower + slack if has_upper else None, lower - 2 * slack, "title")
    above, below = figure.axes
    drawn = [line.get_ydata().tolist() for line in above.lines]
    distances = [line.get_ydata().tolist() for line in below.lines]
    assert drawn == [[-119.75, -99, -82]] * has_upper + [[-120, -100, -90], [-120.5, -102, -106]]
    assert distances == [[0.25, 1, 8]] * has_upper + [[0, 0, 0], [-0.5, -2, -16]]
    names = legend_of(figure)
    assert len(names) == 2 + has_upper
    assert names[-1] == "importance bound of q(z | x): -109.50 on average"
    assert "(nats)" in above.get_ylabel()
    assert "(nats)" in below.get_ylabel()
