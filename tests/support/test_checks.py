"""Checks of arguments: each names its argument, the values that it accepts, and the one that came."""

import math
import re

import numpy as np
import pytest

from pyro_vae.support.checks import as_shape, not_negative, positive, share, whole


@pytest.mark.parametrize(("value", "least"), [(1, 1), (7, 1), (0, 0), (np.int64(3), 2)])
def test_a_count_is_an_int(value, least):
    assert (whole(value, "n", least), type(whole(value, "n", least))) == (value, int)


@pytest.mark.parametrize("value", [0, -1, 1.0, math.nan, "3", None, True])
def test_any_other_count_is_refused_by_its_own_name(value):
    with pytest.raises(ValueError, match="^'num_steps' must be a whole number of at least 1, got "):
        whole(value, "num_steps")


@pytest.mark.parametrize(
    ("check", "bad", "words"),
    [
        (positive, [0, -1, math.nan, "10", None], "must be greater than 0"),
        (not_negative, [-1e-9, math.nan, "10"], "must be 0 or more"),
        (share, [0, 1.1, -1, math.nan, "1"], "must be greater than 0 and at most 1"),
    ],
)
def test_numbers_out_of_range_are_refused(check, bad, words):
    for value in bad:
        with pytest.raises(
            ValueError, match=f"^'rate' of list {words}, got {re.escape(repr(value))}.$"
        ):
            check(value, "rate", of=[])
        with pytest.raises(ValueError, match=f"^'rate' {words}, got {re.escape(repr(value))}.$"):
            check(value, "rate")
    assert check(1, "rate") == 1


def test_a_shape_takes_the_whole_numbers_of_numpy():
    assert as_shape((np.int64(2), 3), "x_shape") == (2, 3)
    with pytest.raises(ValueError, match="^'x_shape' must hold positive whole numbers, got"):
        as_shape((2, 0), "x_shape")
