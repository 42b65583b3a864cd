"""Pareto smoothing against arviz, closed forms, and the cases where a fit has nothing to hold on to."""

import math
import warnings

import numpy as np
import pytest
import torch

from pyro_vae import pareto_smooth
from pyro_vae.inference import pareto_khat, psis


def psislw(log_weights):
    """That of arviz, which is imported here so that other tests need not wait for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # arviz announces its next version
        import arviz

    return arviz.psislw(log_weights)


def pareto(shape, *size):
    """Log-weights whose tail is exactly a generalised Pareto distribution of this shape."""
    u = torch.rand(size, dtype=torch.float64)
    return (torch.expm1(-shape * u.log()) / shape).log()


def normal(scale, *size):
    return scale * torch.randn(size, dtype=torch.float64)


def cauchy(*size):
    return torch.tan(0.5 * math.pi * torch.rand(size, dtype=torch.float64)).log()


TAILS = {
    "bounded": lambda *size: pareto(-0.4, *size),
    "k = 0.3": lambda *size: pareto(0.3, *size),
    "k = 0.9": lambda *size: pareto(0.9, *size),
    "narrow lognormal": lambda *size: normal(0.1, *size),
    "lognormal": lambda *size: normal(1.0, *size),
    "wide lognormal": lambda *size: normal(30.0, *size) - 500,
    "Cauchy": cauchy,
    "some weights are 0": lambda *size: normal(1.0, *size).masked_fill(
        torch.rand(size) < 0.3, -math.inf
    ),
    "almost all weights are 0": lambda *size: normal(400.0, *size),
}


@pytest.mark.parametrize("num_draws", [5, 20, 21, 25, 99, 225, 226, 1000, 4000])
@pytest.mark.parametrize("tail", TAILS)
def test_shape_and_weights_are_those_of_arviz(tail, num_draws):
    log_weights = TAILS[tail](num_draws, 3)
    found = pareto_smooth(log_weights)
    with np.errstate(divide="ignore"):
        smoothed, khat = psislw(log_weights.T.numpy())
    np.testing.assert_allclose(found.khat, khat, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.log_weights.T, smoothed, rtol=0, atol=1e-6)
    assert torch.equal(pareto_khat(log_weights), found.khat)


@pytest.mark.parametrize("num_draws", [100, 1000])
def test_with_ties_they_are_those_of_arviz_in_order_of_size(num_draws):
    # Which of two equal draws gets which of two neighbouring quantiles is not said.
    log_weights = (4 * normal(1.0, num_draws, 8)).round() / 4
    found = pareto_smooth(log_weights)
    smoothed, khat = psislw(log_weights.T.numpy())
    np.testing.assert_allclose(found.khat, khat, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        found.log_weights.sort(0).values.T, np.sort(smoothed), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("shape", [-0.5, 0.2, 0.5, 0.7, 1.2])
def test_the_shape_of_an_exact_pareto_tail_is_found(shape):
    # 4000 draws have a tail of 190. The prior moves the shape towards ½ by 10 draws of 200; what is left is the bias of the
    # estimate, below 0.02, and the error of the mean of 300 rows. Failure rate: below 6e-5 each (4 standard errors).
    khat = pareto_smooth(pareto(shape, 4000, 300)).khat
    expected = (190 * shape + 10 * 0.5) / 200
    assert abs(khat.mean() - expected) < 0.02 + 4 * khat.std() / 300**0.5


def test_a_row_alone_is_as_among_a_thousand():
    log_weights = torch.cat(
        [normal(1.0, 200, 600), pareto(0.8, 200, 350), normal(2.0, 200, 50).round()], dim=1
    )
    together = pareto_smooth(log_weights)
    for row in range(0, 1000, 111):
        alone = pareto_smooth(log_weights[:, [row]])
        torch.testing.assert_close(alone.khat, together.khat[[row]], atol=1e-6, rtol=0)
        torch.testing.assert_close(
            alone.log_weights.sort(0).values,
            together.log_weights[:, [row]].sort(0).values,
            atol=1e-6,
            rtol=0,
        )


@pytest.mark.parametrize("numbers", [1, 7, 100, 1000])
def test_how_many_rows_pass_at_once_changes_nothing(monkeypatch, numbers):
    log_weights = pareto(0.6, 50, 11)
    expected = pareto_smooth(log_weights)
    monkeypatch.setattr(psis, "_CHUNK", numbers)
    found = pareto_smooth(log_weights)
    torch.testing.assert_close(found.khat, expected.khat, atol=1e-10, rtol=0)
    torch.testing.assert_close(found.log_weights, expected.log_weights, atol=1e-10, rtol=0)


# Invariances


def test_a_constant_for_each_row_changes_nothing():
    log_weights, constant = (
        pareto(0.5, 300, 6),
        torch.tensor([0.0, 1.0, -80.0, 1e4, -1e4, 700.0]).double(),
    )
    expected, found = pareto_smooth(log_weights), pareto_smooth(log_weights + constant)
    torch.testing.assert_close(found.khat, expected.khat, atol=1e-8, rtol=0)
    torch.testing.assert_close(found.log_weights, expected.log_weights, atol=1e-8, rtol=0)


def test_the_order_of_draws_and_of_rows_changes_nothing():
    log_weights = pareto(0.5, 300, 6)
    draws, rows = torch.randperm(300), torch.randperm(6)
    expected, found = pareto_smooth(log_weights), pareto_smooth(log_weights[draws][:, rows])
    torch.testing.assert_close(found.khat, expected.khat[rows], atol=1e-10, rtol=0)
    torch.testing.assert_close(
        found.log_weights, expected.log_weights[draws][:, rows], atol=1e-10, rtol=0
    )


@pytest.mark.parametrize("tail", TAILS)
def test_weights_are_normalised_in_order_and_the_largest_is_no_larger_than_the_raw_one(tail):
    log_weights = TAILS[tail](500, 20)
    smoothed = pareto_smooth(log_weights).log_weights
    torch.testing.assert_close(smoothed.logsumexp(0), torch.zeros(20).double(), atol=1e-12, rtol=0)
    in_order = smoothed.gather(0, log_weights.argsort(0))
    assert (in_order[1:] >= in_order[:-1] - 1e-12).all()
    # The smallest draw is never smoothed: it tells the constant of each row.
    body = torch.arange(500 // 2)
    order = log_weights.argsort(0)
    lead = (smoothed - log_weights).gather(0, order)[body].nan_to_num(nan=-math.inf).max(0).values
    assert (smoothed.max(0).values <= log_weights.max(0).values + lead + 1e-9).all()


def test_the_draws_below_the_tail_keep_their_ratios_and_the_input_is_left_alone():
    log_weights = pareto(0.9, 400, 5)
    before, order = log_weights.clone(), log_weights.argsort(0)[: 400 - 60]
    shift = (pareto_smooth(log_weights).log_weights - log_weights).gather(0, order)
    torch.testing.assert_close(shift, shift[:1].expand_as(shift), atol=1e-10, rtol=0)
    assert (log_weights == before).all()


@pytest.mark.parametrize("offset", [0.0, -90.0])
def test_single_precision_gives_the_same_to_its_rounding(offset):
    log_weights = (
        torch.cat([pareto(0.5, 1000, 50), normal(1.0, 1000, 50)], dim=1) + offset
    ).float()
    found, expected = pareto_smooth(log_weights), pareto_smooth(log_weights.double())
    assert found.log_weights.dtype == found.khat.dtype == torch.float64
    # A draw that rounding does not tell from the cutoff leaves the tail of 95: that moves the shape by a tenth of its error.
    torch.testing.assert_close(found.khat, expected.khat, atol=0.03, rtol=0)
    torch.testing.assert_close(found.log_weights, expected.log_weights, atol=0.03, rtol=0)
    assert ((found.khat - expected.khat).abs() < 1e-6).double().mean() > 0.9


@pytest.mark.parametrize("level", [-40000.0, 40000.0])
def test_rows_of_many_elements_are_not_taken_for_constant_in_single_precision(level):
    # There a unit in the last place is 0.004 nats. The tail is shorter by some draws: that moves the shape by less than half
    # of its own error, 0.15, and in no direction.
    log_weights = normal(1.3, 1000, 50)
    found, expected = pareto_smooth((log_weights + level).float()), pareto_smooth(log_weights)
    difference = found.khat - expected.khat
    assert difference.std() < 0.07
    assert difference.mean().abs() < 0.03


# Where there is no tail


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, -1.3, -90.0, -2000.0])
@pytest.mark.parametrize("rounding", [0, 1, 8])
@pytest.mark.parametrize("num_draws", [2, 10, 500])
def test_weights_that_are_equal_up_to_rounding_have_the_shape_0(num_draws, rounding, level, dtype):
    noise = (
        rounding * torch.finfo(dtype).eps * max(1.0, -level) * (2 * torch.rand(num_draws, 9) - 1)
    )
    found = pareto_smooth(level + noise.to(dtype))
    assert (found.khat == 0).all()
    torch.testing.assert_close(
        found.log_weights.exp() * num_draws, torch.ones_like(found.log_weights), atol=1e-2, rtol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("low", [-math.inf, -100.0])
def test_a_tail_of_nothing_but_the_largest_weight_has_the_shape_0_up_to_rounding(low, dtype):
    noise = 4 * torch.finfo(dtype).eps * 90 * (2 * torch.rand(500, 9) - 1)
    for log_weights in (torch.full((500, 9), -90.0, dtype=dtype), (-90 + noise).to(dtype)):
        log_weights[torch.rand(500, 9) < 0.3] = low
        found = pareto_smooth(log_weights)
        assert (found.khat == 0).all()
        torch.testing.assert_close(
            found.log_weights.exp(), log_weights.double().softmax(0), atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_largest", [6, 30, 60, 80])
def test_weights_of_two_sizes_are_bounded_also_with_rounding(num_largest, dtype):
    # As a discrete latent gives: the smaller ones in the tail are no tail, whatever rounding has made of them.
    log_weights = torch.full((500, 9), -91.0, dtype=dtype)
    log_weights[:num_largest] = -90.0
    noise = 4 * torch.finfo(dtype).eps * 90 * (2 * torch.rand(500, 9) - 1)
    assert (pareto_smooth(log_weights).khat <= 0).all()
    assert (pareto_smooth(log_weights + noise.to(dtype)).khat <= 0.01).all()


def test_sizes_at_which_a_point_of_the_grid_is_0_have_a_shape():
    # The largest excess is three times the quartile, and the grid has 34 points: one of them is 0 / 0 if not looked after.
    weights = torch.cat(
        [torch.ones(80), torch.full((12,), 2.0), torch.full((7,), 3.0), torch.full((1,), 4.0)]
    )
    assert pareto_smooth(weights.double().log().unsqueeze(1)).khat.isfinite().all()


@pytest.mark.parametrize("num_draws", [1, 2, 19, 20])
def test_too_few_draws_tell_nothing_and_are_not_smoothed(num_draws):
    log_weights = normal(1.0, num_draws, 3)
    found = pareto_smooth(log_weights)
    assert (found.khat == math.inf).all()
    torch.testing.assert_close(found.log_weights, log_weights.log_softmax(0))


def test_a_tail_cut_short_by_weights_of_zero_tells_nothing():
    log_weights = normal(1.0, 100, 3)
    log_weights[4:] = -math.inf
    found = pareto_smooth(log_weights)
    assert (found.khat == math.inf).all()
    torch.testing.assert_close(found.log_weights, log_weights.log_softmax(0))


# What is refused


@pytest.mark.parametrize(
    "log_weights",
    [
        torch.zeros(5),
        torch.zeros(5, 2, 1),
        torch.zeros(0, 3),
        torch.zeros(3, 0),
        torch.zeros(5, 2).long(),
    ],
)
def test_other_shapes_and_whole_numbers_are_refused(log_weights):
    with pytest.raises(
        ValueError, match=r"'log_weights' must be real numbers of the shape \(draws, rows\), got"
    ):
        pareto_smooth(log_weights)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_not_a_number_and_infinity_are_refused(bad):
    log_weights = torch.zeros(50, 4)
    log_weights[3, 1] = log_weights[7, 2] = bad
    with pytest.raises(
        ValueError, match="'log_weights' must be less than infinity, .* got others in 2 of 4 rows"
    ):
        pareto_smooth(log_weights)


def test_a_row_of_zero_weights_is_refused():
    log_weights = torch.zeros(50, 4)
    log_weights[:, 1] = -math.inf
    for function in (pareto_smooth, pareto_khat):
        with pytest.raises(
            ValueError, match="finite for at least one draw of each row, got others in 1 of 4 rows"
        ):
            function(log_weights)
