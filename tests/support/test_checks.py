"""Checks of arguments: each names its argument, the values that it accepts, and the one that came."""

import math

import numpy as np
import pytest
import torch

from pyro_vae.support.checks import (
    as_shape,
    check_finite,
    check_sizes,
    not_negative,
    positive,
    share,
    whole,
)


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
        with pytest.raises(ValueError, match=f"^'rate' of list {words}, got {value}.$"):
            check(value, "rate", of=[])
        with pytest.raises(ValueError, match=f"^'rate' {words}, got {value}.$"):
            check(value, "rate")
    assert check(1, "rate") == 1


def test_a_shape_takes_the_whole_numbers_of_numpy():
    assert as_shape((np.int64(2), 3), "x_shape") == (2, 3)
    with pytest.raises(ValueError, match="^'x_shape' must hold positive whole numbers, got"):
        as_shape((2, 0), "x_shape")


def test_sizes_are_numbers_or_letters():
    check_sizes(torch.zeros(3, 2), "z", "N", 2)
    for value, sizes, words in [
        (torch.zeros(3, 4), ("N", 2), r"\(N, 2\), got \(3, 4\)"),
        (torch.zeros(0, 2), ("N", 2), r"\(N, 2\), got \(0, 2\)"),
        (torch.zeros(3), ("N", 2), r"\(N, 2\), got \(3,\)"),
        (torch.zeros(3, 2), ("N",), r"\(N,\), got \(3, 2\)"),
    ]:
        with pytest.raises(ValueError, match=f"^'z' must have the shape {words}.$"):
            check_sizes(value, "z", *sizes)


def test_finite_numbers_pass():
    check_finite(torch.zeros(3), "z")
    check_finite(3, "z")
    for value in (math.inf, math.nan, torch.tensor([0.0, -math.inf])):
        with pytest.raises(ValueError, match="^'z' must be finite, got NaN or infinity.$"):
            check_finite(value, "z")
