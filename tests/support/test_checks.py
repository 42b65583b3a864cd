"""Checks of arguments: each names its argument, the values that it accepts, and the one that came."""

import math
import re
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn

from pyro_vae.support.checks import (
    as_shape,
    check_finite,
    check_sizes,
    described,
    exactly,
    flag,
    instance,
    made_by,
    nearest,
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


@pytest.mark.parametrize("value", [np.uint8(17), np.array(17), torch.tensor([16]).max() + 1])
def test_a_count_may_be_a_number_of_numpy_or_torch(value):
    assert (whole(value, "n", 2), as_shape((value, 4), "n")) == (17, (17, 4))


@pytest.mark.parametrize("shape", [np.array([1, 8]), torch.tensor([1, 8]), range(1, 9, 7)])
def test_a_shape_may_be_any_sequence_of_whole_numbers(shape):
    assert as_shape(shape, "x_shape") == (1, 8)


@pytest.mark.parametrize(
    "shape",
    [True, (True, 4), "64", 2.0, None, np.ones((9, 9)), np.array([True]), torch.tensor(True), {1}],
)
def test_any_other_shape_is_refused_without_its_numbers(shape):
    with pytest.raises(ValueError, match="^'x_shape' must hold positive whole numbers, got") as got:
        as_shape(shape, "x_shape")
    assert len(str(got.value)) < 120
    with pytest.raises(ValueError, match="must hold positive whole numbers"):
        as_shape((), "x_shape", least_axes=1)


@pytest.mark.parametrize("check", [positive, not_negative])
@pytest.mark.parametrize("value", [True, math.inf, [1, 2], torch.ones(2), None])
def test_a_number_is_one_finite_number(check, value):
    with pytest.raises(ValueError, match="^'rate' must be (greater than 0|0 or more|a finite)"):
        check(value, "rate")
    assert check(torch.tensor(0.5), "rate") == 0.5


@pytest.mark.parametrize("value", ["no", 1, None])
def test_a_flag_is_true_or_false(value):
    with pytest.raises(ValueError, match="^'drop_last' must be True or False, got"):
        flag(value, "drop_last")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.0000001, "1.0000001"), (255.0, "255"), (-0.0, "0"), (0.12345678, "0.123457")],
)
def test_a_number_close_to_a_whole_one_shows_that_it_is_none(value, shown):
    assert exactly(value) == shown


def test_a_value_is_shown_on_one_short_line():
    values = [torch.zeros(50, 3), "x" * 500, list(range(999)), nn.Linear(2, 3), object(), len]
    for value in values:
        assert len(described(value)) < 80
        assert "0x" not in described(value)


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (nn.ReLU(), "an object of the class ReLU"),
        ("relu", "'relu'"),
        (torch.relu, "the function relu"),
        (nn.Linear, "the class Linear: missing a required argument: 'in_features'"),
        (lambda: 3, "which makes 3"),
        (None, "None"),
    ],
)
def test_a_factory_must_make_what_is_asked(factory, words):
    with pytest.raises(ValueError, match=f"^'activation' must be a class, got .*{words}"):
        made_by(factory, nn.Module, "activation", "a class")
    assert isinstance(made_by(nn.ReLU, nn.Module, "activation", "a class"), nn.ReLU)


def test_an_object_of_several_results_is_shown_by_their_names():
    several = namedtuple("Several", "lower, upper")(torch.ones(50), torch.ones(50))
    assert described(several) == "a Several with lower, upper"


def test_an_ending_of_all_names_makes_none_similar():
    known = ["PoissonLikelihood", "NormalLikelihood"]
    assert nearest("GaussianLikelihood", known) == ""
    assert nearest("normallikelihood", known) == "; the nearest is 'NormalLikelihood'"
    assert nearest("NormalLikelihod", known) == "; the nearest is 'NormalLikelihood'"
    assert nearest("lr", ["lr"]) == "; the nearest is 'lr'"


def test_a_class_in_place_of_its_object_is_told_so():
    with pytest.raises(ValueError, match="must be a Module, got the class ReLU: make an object"):
        instance(nn.ReLU, nn.Module, "network")


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
