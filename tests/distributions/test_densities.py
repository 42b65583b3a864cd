import pyro.distributions as dist
import pytest
import references
import torch

from pyro_vae import Concatenation, ContinuousBernoulli, DiscretizedLogistic
from pyro_vae.distributions import densities

LOGITS = [0.0, 1e-8, 1e-3, 0.1, 0.4999, 0.5, 0.5001, 1.0, 5.0, 16.0, 20.0, 40.0, 100.0, 200.0]
SIGNED = LOGITS + [-logit for logit in LOGITS[1:]]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-11}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("x", [0.0, 0.25, 0.5, 1.0])
def test_continuous_bernoulli_value_and_gradient_are_right_for_every_logit(x, dtype):
    logits = torch.tensor(SIGNED, dtype=dtype, requires_grad=True)
    x = torch.tensor(x, dtype=dtype)
    log_prob = ContinuousBernoulli(logits).log_prob(x)
    (gradient,) = torch.autograd.grad(log_prob.sum(), logits)
    exact = [float(logit) for logit in logits.detach()]
    expected = torch.tensor(
        [references.continuous_bernoulli(float(x), logit) for logit in exact], dtype=dtype
    )
    slope = torch.tensor(
        [float(x) - references.continuous_bernoulli_mean(logit) for logit in exact], dtype=dtype
    )
    torch.testing.assert_close(
        log_prob.detach(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype]
    )
    torch.testing.assert_close(gradient, slope, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("logit", [0.0, 0.3, -2.0, 10.0, -40.0])
def test_continuous_bernoulli_integrates_to_one_and_has_its_mean_and_variance(logit):
    x = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    p_x = ContinuousBernoulli(torch.tensor(logit, dtype=torch.float64))
    density = p_x.log_prob(x).exp()
    mean = torch.trapezoid(x * density, x)
    assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-6)
    assert p_x.mean.item() == pytest.approx(mean.item(), abs=1e-6)
    assert p_x.variance.item() == pytest.approx(
        torch.trapezoid((x - mean) ** 2 * density, x).item(), abs=1e-6
    )


@pytest.mark.parametrize("logit", [0.0, 1e-6, 0.3, -2.0, 30.0, -200.0])
def test_continuous_bernoulli_draws_have_its_distribution(logit):
    # Kolmogorov-Smirnov at 2.2 / sqrt(n): fails for one seed in 8,000.
    p_x = ContinuousBernoulli(torch.tensor(logit, dtype=torch.float64))
    draws = p_x.sample((20_000,)).sort().values
    exact = (
        draws
        if logit == 0
        else torch.expm1(draws * -abs(logit)) / torch.expm1(torch.tensor(-abs(logit)))
    )
    if logit > 0:
        exact = 1 - torch.expm1((1 - draws) * -logit) / torch.expm1(torch.tensor(-logit))
    ranks = torch.arange(1, 20_001, dtype=torch.float64) / 20_000
    assert (ranks - exact).abs().max() < 2.2 / 20_000**0.5
    assert p_x.support.check(draws).all()


def test_continuous_bernoulli_draws_are_differentiable():
    logits = torch.tensor([-3.0, 0.0, 3.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(
        ContinuousBernoulli(logits).rsample((1000,)).mean(0).sum(), logits
    )
    assert torch.isfinite(gradient).all()
    # d E[x] / dl is the variance: 1/12 at 0. Five standard errors of 1,000 draws.
    torch.testing.assert_close(
        gradient, ContinuousBernoulli(logits.detach()).variance, atol=0.02, rtol=0
    )


def test_continuous_bernoulli_refuses_values_outside_the_unit_interval():
    with pytest.raises(ValueError, match="within the support"):
        ContinuousBernoulli(torch.zeros(1), validate_args=True).log_prob(torch.tensor([1.5]))


# The discretised logistic

NUM_LEVELS = 16
LOCS = [-100.0, -0.5, 0.0, 3.2, 7.5, 15.0, 40.0]
SCALES = [0.05, 0.3, 2.0, 50.0]


def discretized_logistics(dtype=torch.float64, num_levels=NUM_LEVELS, locs=LOCS, scales=SCALES):
    """One distribution for each pair of a loc and a scale, `(L, S)`, and the levels, `(num_levels, 1, 1)`."""
    loc = (
        torch.tensor(locs, dtype=dtype)
        .unsqueeze(1)
        .expand(-1, len(scales))
        .clone()
        .requires_grad_()
    )
    scale = torch.tensor(scales, dtype=dtype).expand(len(locs), -1).clone().requires_grad_()
    return DiscretizedLogistic(loc, scale, num_levels), torch.arange(
        num_levels, dtype=dtype
    ).reshape(-1, 1, 1)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_discretized_logistic_is_the_difference_of_two_distribution_functions(dtype):
    p_x, levels = discretized_logistics(dtype)
    expected = [
        [references.discretized_logistic(level, *pair, NUM_LEVELS) for level in range(NUM_LEVELS)]
        for pair in zip(p_x.loc.flatten().tolist(), p_x.scale.flatten().tolist(), strict=True)
    ]
    expected = torch.tensor(expected, dtype=dtype).T.reshape(NUM_LEVELS, *p_x.batch_shape)
    torch.testing.assert_close(
        p_x.log_prob(levels).detach(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype]
    )


@pytest.mark.parametrize("num_levels", [1, 2, 7, 256])
def test_the_probabilities_of_all_levels_add_up_to_one(num_levels):
    locs, scales = [-1e4, 0.0, 0.5, 100.0, 1e4], [1e-3, 0.5, 30.0, 1e3]
    p_x, levels = discretized_logistics(num_levels=num_levels, locs=locs, scales=scales)
    total = p_x.log_prob(levels).exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-12, rtol=0)


def test_a_discretized_logistic_has_finite_values_and_gradients_far_out():
    locs, scales = [-1e6, -300.0, 0.0, 0.5, 127.0, 255.0, 1e6], [1e-3, 0.1, 1.0, 1e3]
    p_x, levels = discretized_logistics(torch.float32, 256, locs, scales)
    log_prob = p_x.log_prob(levels)
    gradients = torch.autograd.grad(log_prob.sum(), [p_x.loc, p_x.scale])
    assert torch.isfinite(log_prob).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_the_gradients_of_a_discretized_logistic_are_those_of_its_values():
    p_x, levels = discretized_logistics(locs=[-3.0, 7.2, 16.0])
    assert torch.autograd.gradcheck(
        lambda loc, scale: DiscretizedLogistic(loc, scale, NUM_LEVELS).log_prob(levels),
        (p_x.loc, p_x.scale),
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_discretized_logistic_has_the_mean_and_variance_of_its_probabilities(dtype):
    exact, levels = discretized_logistics()
    probs = exact.log_prob(levels).exp()
    mean = (levels * probs).sum(0)
    variance = ((levels - mean) ** 2 * probs).sum(0)
    p_x, _ = discretized_logistics(dtype)
    torch.testing.assert_close(p_x.mean.double(), mean, atol=20 * TOLERANCE[dtype], rtol=0)
    torch.testing.assert_close(p_x.variance.double(), variance, atol=100 * TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_mean_of_many_levels_is_exact_in_pieces(dtype, monkeypatch):
    """The first and the last level have the mass beyond them, and scales reach over all levels."""
    monkeypatch.setattr(densities, "_CHUNK", 50_000)
    loc = torch.tensor([-100.0, 0.0, 100.25, 30_000.5, 65_535.0, 70_000.0], dtype=dtype)
    scale = torch.tensor([1.0, 1e-3, 20.0, 3e3, 1e5, 500.0], dtype=dtype)
    levels = torch.arange(65_536, dtype=torch.float64).unsqueeze(1)
    exact = DiscretizedLogistic(loc.double(), scale.double(), 65_536)
    probs = exact.log_prob(levels).exp()
    mean = (levels * probs).sum(0)
    p_x = DiscretizedLogistic(loc, scale, 65_536)
    torch.testing.assert_close(p_x.mean.double(), mean, rtol=TOLERANCE[dtype], atol=1e-30)
    variance = ((levels - mean) ** 2 * probs).sum(0)
    torch.testing.assert_close(p_x.variance.double(), variance, rtol=1e-3, atol=1e-3)


def test_no_rows_have_no_means():
    none = torch.zeros(0, 3)
    assert DiscretizedLogistic(none, none + 1, 4).mean.shape == (0, 3)


@pytest.mark.parametrize(("loc", "scale"), [(-2.0, 3.0), (3.3, 1.0), (3.5, 0.6), (9.0, 2.0)])
def test_the_draws_of_a_discretized_logistic_have_its_probabilities(loc, scale):
    p_x = DiscretizedLogistic(torch.tensor(loc), torch.tensor(scale), 8)
    draws = p_x.sample((20_000,))
    expected = 20_000 * p_x.log_prob(torch.arange(8.0)).exp()
    counts = torch.stack([(draws == level).sum() for level in range(8)])
    # Chi-square with 7 degrees of freedom: fails for one seed in a million.
    assert ((counts - expected) ** 2 / expected).sum() < 40.5
    assert counts.sum() == 20_000


def test_a_discretized_logistic_expands_and_knows_its_support():
    p_x = DiscretizedLogistic(
        torch.tensor([0.0, 3.0]), torch.tensor(1.0), 4, validate_args=True
    ).expand([3, 2])
    assert p_x.log_prob(torch.zeros(3, 2)).shape == (3, 2)
    assert p_x.sample((5,)).shape == (5, 3, 2)
    assert (p_x.has_rsample, p_x.support.is_discrete) == (False, True)
    for value in (-1.0, 0.5, 4.0):
        with pytest.raises(ValueError, match="within the support"):
            p_x.log_prob(torch.full((3, 2), value))


# Concatenation


def parts_of_three_kinds(batch_shape=(5,)):
    return [
        dist.Normal(torch.randn(*batch_shape, 2), 1.0).to_event(1),
        dist.Poisson(torch.rand(*batch_shape, 1) + 0.5).to_event(1),
        dist.OneHotCategorical(logits=torch.randn(*batch_shape, 3)),
    ]


@pytest.mark.parametrize("batch_shape", [(), (5,), (2, 5)])
def test_a_concatenation_is_its_parts_side_by_side(batch_shape):
    parts = parts_of_three_kinds(batch_shape)
    p_x = Concatenation(parts)
    assert (p_x.batch_shape, p_x.event_shape) == (batch_shape, (6,))
    x = p_x.sample((4,))
    slices = x[..., :2], x[..., 2:3], x[..., 3:]
    assert x.shape == (4, *batch_shape, 6)
    torch.testing.assert_close(
        p_x.log_prob(x), sum(part.log_prob(s) for part, s in zip(parts, slices, strict=True))
    )
    assert torch.equal(p_x.mean, torch.cat([part.mean for part in parts], -1))
    assert torch.equal(p_x.variance, torch.cat([part.variance for part in parts], -1))
    assert p_x.support.check(x).shape == (4, *batch_shape)


def test_a_concatenation_expands():
    p_x = Concatenation(parts_of_three_kinds()).expand([3, 5])
    assert p_x.batch_shape == (3, 5)
    assert p_x.log_prob(p_x.sample()).shape == (3, 5)


def test_a_concatenation_is_reparameterised_where_all_of_its_parts_are():
    loc = torch.zeros(5, 2, requires_grad=True)
    smooth = [dist.Normal(loc, 1.0).to_event(1), dist.Laplace(loc, 1.0).to_event(1)]
    assert Concatenation(smooth).has_rsample
    assert not Concatenation([*smooth, parts_of_three_kinds()[1]]).has_rsample
    (gradient,) = torch.autograd.grad(Concatenation(smooth).rsample((7,)).sum(), loc)
    assert torch.equal(gradient, torch.full((5, 2), 14.0))


def test_the_support_of_a_concatenation_is_that_of_every_part():
    p_x = Concatenation(parts_of_three_kinds(()), validate_args=True)
    inside, outside = (
        torch.tensor([[0.5, -1, 3, 0, 1, 0]]),
        torch.tensor([[0.5, -1, 3, 0, 1, 1], [0.5, -1, 0.5, 0, 1, 0]]),
    )
    assert p_x.support.check(torch.cat([inside, outside])).tolist() == [True, False, False]
    with pytest.raises(ValueError, match="within the support"):
        p_x.log_prob(outside)
    assert not p_x.support.is_discrete
    assert Concatenation(parts_of_three_kinds()[1:]).support.is_discrete


@pytest.mark.parametrize(
    "second", [dist.Normal(torch.zeros(4, 2), 1.0).to_event(1), dist.Normal(torch.zeros(5), 1.0)]
)
def test_parts_of_other_shapes_cannot_be_concatenated(second):
    with pytest.raises(
        ValueError, match="'parts' must have one batch shape and event shapes of one number"
    ):
        Concatenation([dist.Normal(torch.zeros(5, 2), 1.0).to_event(1), second])
