"""What each family of likelihoods promises beside the contract: moments, draws, accuracy, safe corners, safe starts."""

import itertools
import math

import pytest
import torch
from torch import nn

from pyro_vae import (
    MLP,
    BetaLikelihood,
    BinomialLikelihood,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    LaplaceLikelihood,
    LearnedScale,
    NegativeBinomialLikelihood,
    NetworkScale,
    NormalLikelihood,
    PoissonLikelihood,
    StudentTLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)

COUNTS = torch.arange(3000, dtype=torch.float64)
INSIDE = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
LEVELS = torch.arange(256, dtype=torch.float64)


def at(likelihood, *numbers, dtype=torch.float64):
    """p(x | z) of one element when the network gives these numbers."""
    return likelihood.to(dtype)(torch.tensor(numbers, dtype=dtype))


def negative_binomial(dispersion=0.5):
    return NegativeBinomialLikelihood(nn.Identity(), 1, dispersion)


def zero_inflated(dispersion=0.5):
    return ZeroInflatedNegativeBinomialLikelihood(nn.Identity(), 1, dispersion)


def beta():
    return BetaLikelihood(nn.Identity(), 1)


def mixture(num_components=2, num_levels=256):
    return DiscretizedLogisticMixtureLikelihood(
        nn.Identity(), 1, num_levels, num_components=num_components
    )


def assert_moments(p_x, values, mean, variance, width=1.0, tolerance=1e-9):
    """The density adds up to one, and has this mean and this variance; so it says itself."""
    probs = p_x.log_prob(values.unsqueeze(1)).exp() * width
    moments = [probs.sum(), (values * probs).sum(), ((values - mean) ** 2 * probs).sum()]
    assert [moment.item() for moment in moments] == pytest.approx(
        [1.0, mean, variance], rel=tolerance, abs=tolerance
    )
    assert [p_x.mean.item(), p_x.variance.item()] == pytest.approx([mean, variance], rel=1e-9)


# Moments


@pytest.mark.parametrize("mean", [0.01, 1.0, 20.0])
def test_a_poisson_has_its_rate_for_mean_and_variance(mean):
    p_x = at(PoissonLikelihood(nn.Identity(), 1, min_rate=0.001), math.log(mean))
    assert_moments(p_x, COUNTS, 0.001 + mean, 0.001 + mean)


@pytest.mark.parametrize("mean", [0.01, 1.0, 20.0])
def test_the_variance_of_a_negative_binomial_exceeds_its_mean_by_the_dispersion_times_the_squared_mean(
    mean,
):
    assert_moments(at(negative_binomial(), math.log(mean)), COUNTS, mean, mean + 0.5 * mean**2)


@pytest.mark.parametrize("gate_logit", [-30.0, -1.0, 2.0])
@pytest.mark.parametrize("mean", [0.01, 1.0, 20.0])
def test_a_zero_inflated_negative_binomial_has_the_mean_and_variance_of_its_docstring(
    mean, gate_logit
):
    gate = 1 / (1 + math.exp(-gate_logit))
    p_x = at(zero_inflated(), math.log(mean), gate_logit)
    assert_moments(p_x, COUNTS, (1 - gate) * mean, (1 - gate) * (mean + (0.5 + gate) * mean**2))


@pytest.mark.parametrize(
    ("logit", "log_precision"), [(0.0, 3.0), (-1.0, 2.0), (2.0, 6.0), (0.5, 100.0)]
)
def test_a_beta_has_the_mean_and_variance_of_its_docstring(logit, log_precision):
    precision = 1 / (math.exp(-log_precision) + 1e-4)
    total = precision + 2e-3
    mean = (1e-3 + precision / (1 + math.exp(-logit))) / total
    p_x = at(beta(), logit, log_precision)
    assert_moments(
        p_x, INSIDE, mean, mean * (1 - mean) / (1 + total), 1 / len(INSIDE), tolerance=1e-6
    )


def test_laplace_and_student_t_have_the_variances_of_their_docstrings():
    assert at(LaplaceLikelihood(nn.Identity(), 1, 0.3), 5.0).variance.item() == pytest.approx(
        2 * 0.3**2
    )
    p_x = at(StudentTLikelihood(nn.Identity(), 1, 0.3, df=5.0), 5.0)
    assert p_x.variance.item() == pytest.approx(0.3**2 * 5 / 3)
    assert at(StudentTLikelihood(nn.Identity(), 1, df=1.5), 5.0).mean == 5
    assert at(StudentTLikelihood(nn.Identity(), 1, df=1.5), 5.0).variance == math.inf


@pytest.mark.parametrize(
    "numbers", [(0.0, 1.0, -0.9, 0.3, -3.0, -7.0), (5.0, 0.0, -2.0, 2.0, 3.0, -20.0)]
)
def test_the_probabilities_of_a_mixture_add_up_to_one_and_give_its_mean_and_variance(numbers):
    p_x = at(mixture(), *numbers)
    probs = p_x.log_prob(LEVELS.unsqueeze(1)).exp()
    mean = (LEVELS * probs).sum().item()
    assert_moments(p_x, LEVELS, mean, ((LEVELS - mean) ** 2 * probs).sum().item())


def test_a_mixture_of_one_component_is_a_discretized_logistic():
    single = DiscretizedLogisticLikelihood(nn.Identity(), 1)
    rows = LEVELS.unsqueeze(1)
    expected = at(single, 0.3, -2.0).log_prob(rows)
    torch.testing.assert_close(at(mixture(1), 7.0, 0.3, -2.0).log_prob(rows), expected)
    torch.testing.assert_close(
        mixture(1).link(torch.tensor([30.0]))[1:, 0], single.link(torch.tensor([30.0]))
    )


# Draws

DRAWS = {
    "poisson": (PoissonLikelihood(nn.Identity(), 1), (math.log(2.0),)),
    "negative binomial": (negative_binomial(), (math.log(2.0),)),
    "zero-inflated negative binomial": (zero_inflated(), (math.log(3.0), -0.5)),
    "mixture": (mixture(num_levels=6), (0.0, 0.5, -0.5, 0.8, -2.0, -1.0)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_have_the_probabilities_that_log_prob_gives(name):
    p_x = at(DRAWS[name][0], *DRAWS[name][1])
    draws = p_x.sample((20_000,)).clamp(max=5)
    probs = p_x.log_prob(COUNTS[:5].unsqueeze(1)).exp()
    expected = 20_000 * torch.cat([probs, 1 - probs.sum(0, keepdim=True)])
    counts = torch.stack([(draws == count).sum() for count in range(6)])
    # Chi-square with 5 degrees of freedom: fails for one seed in a million.
    assert ((counts - expected) ** 2 / expected).sum() < 35.9


@pytest.mark.parametrize("numbers", [(0.0, 1.0), (-1.0, 4.0), (3.0, 0.0)])
def test_the_draws_of_a_beta_have_its_mean_and_variance(numbers):
    p_x = at(beta(), *numbers)
    draws = p_x.sample((20_000,))
    errors = (draws - p_x.mean), ((draws - p_x.mean) ** 2 - p_x.variance)
    # Five standard errors: fails for one seed in two million for each of the two.
    assert all(error.mean().abs() < 5 * error.std() / 20_000**0.5 for error in errors)


# Single precision


def in_both_precisions(likelihood, x, numbers):
    """log p of rows of one element and its gradients, in single and in double precision."""
    results = []
    for dtype in (torch.float32, torch.float64):
        numbers = torch.as_tensor(numbers).to(dtype).detach().requires_grad_()
        x = torch.as_tensor(x).to(dtype)
        log_prob = likelihood.to(dtype)(numbers).log_prob(x.unsqueeze(-1))
        results += [log_prob.double(), torch.autograd.grad(log_prob.sum(), numbers)[0].double()]
    return results


LARGE = {
    "poisson": (PoissonLikelihood(nn.Identity(), 1000), math.log(1e5)),
    "poisson of high counts": (PoissonLikelihood(nn.Identity(), 1000), math.log(1e6)),
    "binomial": (BinomialLikelihood(nn.Identity(), 1000, 65535), 0.3),
    "negative binomial near a poisson": (
        NegativeBinomialLikelihood(nn.Identity(), 1000, 1e-6),
        math.log(1e4),
    ),
    "negative binomial of high counts": (
        NegativeBinomialLikelihood(nn.Identity(), 1000, 0.1),
        math.log(1e6),
    ),
    "student t near a normal": (StudentTLikelihood(nn.Identity(), 1000, 0.5, df=1e6), 0.3),
    "beta": (BetaLikelihood(nn.Identity(), 1000), (0.3, 100.0)),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_row_of_a_thousand_elements_is_accurate_in_single_precision(name):
    likelihood, numbers = LARGE[name]
    numbers = torch.tensor(numbers).reshape(-1, 1).expand(-1, 1000).flatten()
    x = likelihood(numbers).sample()
    results = []
    for dtype in (torch.float32, torch.float64):
        given = numbers.to(dtype).requires_grad_()
        log_prob = likelihood.to(dtype)(given).log_prob(x.to(dtype))
        results.append((log_prob.double(), torch.autograd.grad(log_prob, given)[0].double()))
    (value, gradient), (exact, slope) = results
    torch.testing.assert_close(value, exact, atol=1e-3, rtol=2e-7)
    # The network's number has a rounding error of its own, which moves a rate of a million by half a count.
    torch.testing.assert_close(gradient, slope, atol=0.5 if "high" in name else 0.1, rtol=1e-4)


@pytest.mark.parametrize("dispersion", [1e-6, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("log_mean", [-15.0, -5.0, 0.0, 3.0, 7.0, 12.0])
@pytest.mark.parametrize("x", [0.0, 1.0, 30.0, 1000.0])
def test_a_negative_binomial_is_accurate_in_single_precision(x, log_mean, dispersion):
    value, gradient, exact, slope = in_both_precisions(negative_binomial(dispersion), x, [log_mean])
    torch.testing.assert_close(value, exact, atol=1e-3, rtol=1e-6)
    torch.testing.assert_close(gradient, slope, atol=1e-4, rtol=1e-4)


EXTREME = [-100.0, -10.0, 0.0, 10.0, 100.0]
CORNERS = {
    "poisson": (PoissonLikelihood(nn.Identity(), 1), [0.0, 1.0, 1e4], [[-100.0, -15.0, 0.0, 12.0]]),
    "negative binomial": (
        NegativeBinomialLikelihood(nn.Identity(), 1, NetworkScale()),
        [0.0, 1.0, 1e4],
        [[-15.0, 0.0, 12.0], [-100.0, 0.0, 10.0]],
    ),
    "zero-inflated negative binomial": (
        ZeroInflatedNegativeBinomialLikelihood(nn.Identity(), 1, NetworkScale()),
        [0.0, 1.0, 1e4],
        [[-15.0, 0.0, 12.0], EXTREME, [-100.0, 0.0, 10.0]],
    ),
    "beta": (beta(), [1e-6, 1 / 512, 0.5, 511 / 512], [[-100.0, -15.0, 0.0, 15.0, 100.0], EXTREME]),
    "laplace": (
        LaplaceLikelihood(nn.Identity(), 1, NetworkScale()),
        [0.0, 1e6],
        [[-1e6, 0.0], [-100.0, 0.0, 10.0]],
    ),
    "student t": (
        StudentTLikelihood(nn.Identity(), 1, NetworkScale()),
        [0.0, 1e6],
        [[-1e6, 0.0], [-100.0, 0.0, 10.0]],
    ),
    "discretized logistic": (
        DiscretizedLogisticLikelihood(nn.Identity(), 1),
        [0.0, 1.0, 128.0, 254.0, 255.0],
        [[-100.0, -1.0, 0.0, 1.0, 100.0], [-100.0, -10.0, 0.0, 10.0]],
    ),
    "mixture": (
        mixture(),
        [0.0, 1.0, 128.0, 255.0],
        [[0.0], EXTREME, [-100.0, 0.0], [0.0, 1.0, 100.0], [-100.0, 0.0, 10.0], [0.0]],
    ),
}


@pytest.mark.parametrize("name", CORNERS)
def test_values_and_gradients_are_finite_and_right_in_extreme_corners(name):
    likelihood, values, ranges = CORNERS[name]
    corners = torch.tensor(list(itertools.product(values, *ranges)))
    x, numbers = corners[:, 0], corners[:, 1:]
    value, gradient, exact, slope = in_both_precisions(likelihood, x, numbers)
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(value, exact, atol=0.02, rtol=2e-5)
    torch.testing.assert_close(gradient, slope, atol=0.02, rtol=1e-3)


# The start at the mean of the data


@pytest.mark.parametrize(
    "likelihood",
    [
        BetaLikelihood(nn.Identity(), 2),
        DiscretizedLogisticLikelihood(nn.Identity(), 2, num_levels=2),
        DiscretizedLogisticLikelihood(nn.Identity(), 2, num_levels=2, min_scale=1.0),
        DiscretizedLogisticMixtureLikelihood(nn.Identity(), 2, num_levels=2),
        PoissonLikelihood(nn.Identity(), 2),
        NegativeBinomialLikelihood(nn.Identity(), 2, NetworkScale()),
        ZeroInflatedNegativeBinomialLikelihood(nn.Identity(), 2, LearnedScale((2,))),
    ],
    ids=lambda likelihood: type(likelihood).__name__,
)
def test_elements_that_never_vary_start_near_their_mean(likelihood):
    mean = torch.tensor([0.0, 1.0])
    p_x = likelihood(likelihood.link(mean).flatten().float())
    torch.testing.assert_close(p_x.mean, mean, atol=2e-3, rtol=0)


def test_the_components_of_a_mixture_start_apart():
    likelihood = mixture(num_components=5)
    numbers = likelihood.link(torch.tensor([100.0])).float().requires_grad_()
    (gradient,) = torch.autograd.grad(
        likelihood(numbers.flatten()).log_prob(torch.tensor([80.0])), numbers
    )
    logits, raw_loc, log_scale = gradient.squeeze(-1)
    for slopes in (logits, raw_loc, log_scale):
        assert len(slopes.unique()) == 5
        assert (slopes != 0).all()


# Mistakes


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: StudentTLikelihood(nn.Identity(), 1, df=1.0),
            "'df' of StudentTLikelihood must be greater than 1.*got 1",
        ),
        (
            lambda: PoissonLikelihood(nn.Identity(), 1, min_rate=0),
            "'min_rate' of PoissonLikelihood .* than 0, got 0",
        ),
        (
            lambda: NegativeBinomialLikelihood(nn.Identity(), 1, -1.0),
            "'dispersion' must be a finite number greater than 0",
        ),
        (
            lambda: BetaLikelihood(nn.Identity(), 1, max_precision=2.0),
            "'max_precision' .* greater than 2 and .*, got 2",
        ),
        (
            lambda: BetaLikelihood(nn.Identity(), 1, max_precision=1e6),
            "'max_precision' .* at most 100000, .*, got 1000000",
        ),
        (
            lambda: BinomialLikelihood(nn.Identity(), 1, 10**6),
            "'total_count' .* at most 65536, .* got 1000000: divide",
        ),
        (lambda: mixture(num_levels=1), "'num_levels' must be a whole number of at least 2, got 1"),
        (
            lambda: mixture(num_components=0),
            "'num_components' must be a whole number of at least 1, got 0",
        ),
        (
            lambda: DiscretizedLogisticLikelihood(nn.Identity(), 1, min_scale=0.0),
            "'min_scale' of DiscretizedLogisticLikelihood must be greater than 0, got 0",
        ),
    ],
)
def test_a_wrong_argument_is_explained_in_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_mixture_is_known_to_be_discrete():
    assert at(mixture(), 0, 0, 0, 0, 0, 0).support.is_discrete


def test_a_scale_from_the_network_starts_at_one_beside_the_mean_of_the_data():
    likelihood = NormalLikelihood(MLP(2, [], (2, 3)), 3, NetworkScale(min_scale=0.1))
    nn.init.zeros_(likelihood.network.layers[0].weight)
    likelihood.initialize_bias(torch.tensor([1.0, -2.0, 3.0]))
    torch.testing.assert_close(likelihood(torch.zeros(2)).stddev, torch.full((3,), 1.1))
