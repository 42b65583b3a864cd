"""Histories of several runs in one figure."""

import numpy as np
import pytest

from pyro_vae import Epoch
from pyro_vae.figures import loss_curves


def history(losses, validation=None, test=None):
    return [
        Epoch(number, 1e-3, 1.0, loss, validation, test, 1.0)
        for number, loss in enumerate(losses, start=1)
    ]


def axis_of(figure):
    (axis,) = figure.axes
    return axis


def test_the_losses_are_those_that_all_runs_have():
    both = {"a": history([3.0, 2.0], 9.0, 8.0), "b": history([4.0], 7.0, 6.0)}
    axis = axis_of(loss_curves(both))
    assert axis.get_ylabel().startswith("−ELBO of the validation rows")
    assert [list(line.get_ydata()) for line in axis.lines] == [[9.0, 9.0], [7.0]]
    axis = axis_of(loss_curves(both | {"c": history([5.0], None, 5.5)}))
    assert axis.get_ylabel().startswith("−ELBO of the test rows")
    assert [list(line.get_ydata()) for line in axis.lines] == [[8.0, 8.0], [6.0], [5.5]]
    axis = axis_of(loss_curves(both | {"c": history([5.0])}))
    assert axis.get_ylabel().startswith("objective of the training rows")
    assert [list(line.get_xdata()) for line in axis.lines] == [[1, 2], [1], [1]]


def test_runs_can_be_told_apart_in_grey_and_the_legend_covers_no_data():
    figure = loss_curves({f"run {number}": history([3.0, 2.0]) for number in range(24)})
    axis = axis_of(figure)
    assert len({(line.get_linestyle(), line.get_marker()) for line in axis.lines}) == 24
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"run {n}" for n in range(24)]
    box = legend.get_window_extent()
    assert box.x0 >= axis.get_window_extent().x1
    assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1


def test_a_steep_start_is_above_the_axis_and_the_end_of_every_run_is_in_it():
    runs = {"a": history([900.0, 12.0, 11.0, 10.0]), "b": history([800.0, 14.0, 13.0, 12.0])}
    low, high = axis_of(loss_curves(runs)).get_ylim()
    assert low < 10.0 < 14.0 < high < 30.0
    low, high = axis_of(loss_curves({"a": history(np.linspace(20.0, 10.0, 9).tolist())})).get_ylim()
    assert low < 10.0 < 20.0 < high


@pytest.mark.parametrize("histories", [{}, {"a": []}])
def test_runs_without_epochs_are_refused(histories):
    with pytest.raises(ValueError, match="'histories' must hold runs with at least one epoch each"):
        loss_curves(histories)
