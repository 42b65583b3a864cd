"""Densities with the gamma function: right to their precision in value and gradient, and Pyro's in all else."""

import math

import mpmath
import pyro.distributions as dist
import pytest
import torch
from mpmath import mp
from torch.distributions import kl_divergence
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_vae.distributions import Beta, Binomial, NegativeBinomial, Poisson, StudentT
from pyro_vae.distributions.log_gamma import log_gamma_half_step

COUNTS = [0.0, 1.0, 2.0, 7.0, 30.0, 1e3, 65535.0, 1e6, 2.0**24]


def around(x):
    """Means from which a count is a standard deviation and three away."""
    return [x + z * math.sqrt(x) for z in (-1.0, 0.5, 3.0) if x > 1]


def poisson(x, rate):
    return x * mp.log(rate) - rate - mp.loggamma(x + 1)


def binomial(x, count, logits):
    log_choices = mp.loggamma(count + 1) - mp.loggamma(x + 1) - mp.loggamma(count - x + 1)
    return log_choices - x * mp.log1p(mp.exp(-logits)) - (count - x) * mp.log1p(mp.exp(logits))


def negative_binomial(x, log_mean, dispersion):
    n, mean = 1 / dispersion, mp.exp(log_mean)
    constant = mp.loggamma(n + x) - mp.loggamma(n) - mp.loggamma(x + 1)
    return constant + n * mp.log(n / (n + mean)) + x * mp.log(mean / (n + mean))


def student_t(x, df, scale):
    constant = (
        mp.loggamma((df + 1) / 2) - mp.loggamma(df / 2) - mp.log(mp.pi * df) / 2 - mp.log(scale)
    )
    return constant - (df + 1) / 2 * mp.log1p((x / scale) ** 2 / df)


def beta(x, a, b):
    return (
        (a - 1) * mp.log(x)
        + (b - 1) * mp.log1p(-x)
        + mp.loggamma(a + b)
        - mp.loggamma(a)
        - mp.loggamma(b)
    )


# What is compared: the exact density, ours and Pyro's, points, and which of their numbers have a gradient.
DENSITIES = {
    "Poisson": (poisson, lambda x, rate: Poisson(rate).log_prob(x), [1]),
    "Binomial": (
        binomial,
        lambda x, count, logits: Binomial(count, logits=logits).log_prob(x),
        [2],
    ),
    "NegativeBinomial": (
        negative_binomial,
        lambda x, *numbers: NegativeBinomial(*numbers).log_prob(x),
        [1, 2],
    ),
    "StudentT": (student_t, lambda x, df, scale: StudentT(df, 0.0, scale).log_prob(x), [0, 1, 2]),
    "Beta": (beta, lambda x, a, b: Beta(a, b).log_prob(x), [0, 1, 2]),
}
POINTS = {
    "Poisson": [(x, rate) for x in COUNTS for rate in (1e-6, 1e-2, 1.0, 1e3, 1e7, *around(x))],
    "Binomial": [
        (round(share * count), count, logits)
        for count in (1, 16, 255, 65535, 2**20)
        for share in (0.0, 0.001, 0.3, 0.5, 1.0)
        for logits in (-50.0, -6.9, -0.85, 0.0, 0.001, 20.0)
    ],
    "NegativeBinomial": [
        (x, math.log(mean), dispersion)
        for x in COUNTS
        for dispersion in (1e-6, 1e-3, 1.0, 1e3)
        for mean in (1e-6, 1.0, 1e3, 1e7, *around(x))
    ],
    "StudentT": [
        (x, df, scale)
        for x in (0.0, 0.1, -3.0, 1e4)
        for df in (1.5, 4.0, 19.9, 20.1, 1e3, 1e6, 1e7)
        for scale in (1e-3, 1.0, 50.0)
    ],
    "Beta": [
        (x, a, b)
        for x in (1e-6, 0.02, 0.3, 0.5, 0.999)
        for a in (1e-3, 0.5, 9.9, 10.1, 5e3, 5e5)
        for b in (1e-3, 1.0, 5e3, 5e5)
    ],
}


def exact(name, columns):
    """The density at each point with 50 digits, and its derivatives."""
    density, _, differentiated = DENSITIES[name]
    with mpmath.workdps(50):
        points = [
            tuple(map(mp.mpf, point))
            for point in zip(*(column.tolist() for column in columns), strict=True)
        ]
        values = [float(density(*point)) for point in points]
        slopes = []
        for place in differentiated:
            step = mp.mpf(10) ** -20
            pairs = (
                [
                    (*point[:place], point[place] + sign * step, *point[place + 1 :])
                    for sign in (1, -1)
                ]
                for point in points
            )
            slopes.append(
                [float((density(*above) - density(*below)) / (2 * step)) for above, below in pairs]
            )
    return torch.tensor(values, dtype=torch.float64), torch.tensor(slopes, dtype=torch.float64)


def received(name, columns):
    _, log_prob, differentiated = DENSITIES[name]
    columns = [
        column.clone().requires_grad_(place in differentiated)
        for place, column in enumerate(columns)
    ]
    values = log_prob(*columns)
    slopes = torch.autograd.grad(values.sum(), [columns[place] for place in differentiated])
    return values.detach().double(), torch.stack(slopes).double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DENSITIES)
def test_values_and_gradients_have_the_digits_of_their_precision(name, dtype):
    columns = [torch.tensor(column, dtype=dtype) for column in zip(*POINTS[name], strict=True)]
    (value, slopes), (expected, expected_slopes) = received(name, columns), exact(name, columns)
    eps = torch.finfo(dtype).eps
    # The gradient by log μ near μ = x has the rounding error of exp(log μ), and that of a beta the one of a − s x.
    magnitude = max(column.double().abs().max().item() for column in columns)
    floor = 1000 * eps if dtype is torch.float32 else 1e4 * eps
    torch.testing.assert_close(value, expected, rtol=16 * eps, atol=floor)
    torch.testing.assert_close(slopes, expected_slopes, rtol=1000 * eps, atol=magnitude * eps)


# Rows of 1,000 elements


def rows_of(name):
    """1,000 elements as the distribution draws them, at high counts, many degrees of freedom or a high precision."""
    cases = {
        "Poisson": [(Poisson(torch.full((1000,), rate)), (rate,)) for rate in (1e5, 1e6, 1e7)],
        "Binomial": [
            (Binomial(count, logits=torch.full((1000,), 0.3)), (count, 0.3))
            for count in (16, 255, 65535)
        ],
        "NegativeBinomial": [
            (NegativeBinomial(torch.full((1000,), log_mean), dispersion), (log_mean, dispersion))
            for log_mean in (0.0, 7.0, 13.0)
            for dispersion in (1e-6, 1e-3, 1.0)
        ],
        "StudentT": [
            (StudentT(df, torch.zeros(1000), 0.5), (df, 0.5)) for df in (4.0, 1e4, 1e6, 1e7)
        ],
        "Beta": [
            (Beta(torch.full((1000,), 0.3 * s), 0.7 * s), (0.3 * s, 0.7 * s))
            for s in (10.0, 1e4, 1e5)
        ],
    }
    return cases[name]


@pytest.mark.parametrize("name", DENSITIES)
def test_a_row_of_a_thousand_elements_is_right_to_a_thousandth_nat_or_to_its_rounding(name):
    for p_x, numbers in rows_of(name):
        columns = [p_x.sample(), *(torch.full((1000,), number) for number in numbers)]
        value, _ = received(name, columns)
        expected, _ = received(name, [column.double() for column in columns])
        tolerance = max(1e-3, torch.finfo(torch.float32).eps * expected.sum().abs().item())
        assert abs(value.sum() - expected.sum()) < tolerance, (name, numbers)


def test_the_steps_of_log_gamma_by_a_half_are_those_of_log_gamma():
    a = torch.tensor([1e-3, 0.5, 3.0, 9.99, 10.0, 40.0, 1e4], dtype=torch.float64)
    with mpmath.workdps(50):
        expected = [
            float(mp.loggamma(x + 0.5) - mp.loggamma(x) - mp.log(x) / 2)
            for x in map(mp.mpf, a.tolist())
        ]
    torch.testing.assert_close(
        log_gamma_half_step(a), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15
    )


# Pyro's in all else

NUMBERS = torch.tensor([0.3, 2.0, 40.0])
PAIRS = {
    "Poisson": (Poisson(NUMBERS), dist.Poisson(NUMBERS)),
    "Binomial": (Binomial(16, logits=NUMBERS.log()), dist.Binomial(16, logits=NUMBERS.log())),
    "NegativeBinomial": (
        NegativeBinomial(NUMBERS.log(), 0.5),
        dist.NegativeBinomial(torch.full((3,), 2.0), logits=NUMBERS.log() + math.log(0.5)),
    ),
    "StudentT": (StudentT(4.0, NUMBERS, 0.5), dist.StudentT(4.0, NUMBERS, 0.5)),
    "Beta": (Beta(NUMBERS, 2.0), dist.Beta(NUMBERS, 2.0)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_draws_moments_shapes_and_masks_are_those_of_pyro(name):
    ours, pyros = PAIRS[name]
    for first, second in ((ours, pyros), (ours.expand([5, 3]), pyros.expand([5, 3]))):
        torch.manual_seed(0)
        x = first.sample((2,))
        torch.manual_seed(0)
        assert torch.equal(x, second.sample((2,)))
        assert (first.batch_shape, first.has_rsample) == (second.batch_shape, second.has_rsample)
        assert repr(first.support) == repr(second.support)
        torch.testing.assert_close((first.mean, first.variance), (second.mean, second.variance))
        torch.testing.assert_close(first.log_prob(x), second.log_prob(x))
        mask = torch.tensor([True, False, True])
        torch.testing.assert_close(
            first.mask(mask).to_event(1).log_prob(x), second.mask(mask).to_event(1).log_prob(x)
        )
    assert isinstance(ours.expand([5, 3]), type(ours))


def test_divergences_and_enumeration_are_those_of_pyro():
    for name in ("Poisson", "Binomial", "Beta"):
        ours, pyros = PAIRS[name]
        assert torch.equal(
            kl_divergence(ours, ours.expand([3])), kl_divergence(pyros, pyros.expand([3]))
        )
    ours, pyros = PAIRS["Binomial"]
    assert torch.equal(ours.enumerate_support(), pyros.enumerate_support())


@pytest.mark.parametrize("name", PAIRS)
def test_values_outside_the_support_are_refused_where_they_are_checked(name):
    ours, _ = PAIRS[name]
    if name != "StudentT":
        with pytest.raises(ValueError, match="within the support"):
            ours.log_prob(torch.tensor([-1.0, 0.5, 0.5]))


SMALL = {
    "Poisson": ([3.0, 40.0], [2.5, 90.0]),
    "Binomial": ([3.0, 16.0], [16.0, 20.0], [0.4, 2.0]),
    "NegativeBinomial": ([3.0, 40.0], [1.0, 6.0], [0.3, 2.0]),
    "StudentT": ([0.4, -3.0], [4.0, 30.0], [0.5, 2.0]),
    "Beta": ([0.3, 0.9], [0.7, 30.0], [2.0, 14.0]),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_gradients_are_those_of_values_to_the_second_order(name):
    _, log_prob, differentiated = DENSITIES[name]
    columns = [
        torch.tensor(numbers, dtype=torch.float64).requires_grad_(place in differentiated)
        for place, numbers in enumerate(SMALL[name])
    ]
    assert torch.autograd.gradcheck(log_prob, columns)
    assert torch.autograd.gradgradcheck(log_prob, columns)


@pytest.mark.parametrize("name", ["Poisson", "Binomial", "NegativeBinomial"])
def test_a_count_that_asks_for_a_gradient_gets_that_of_the_gamma_function(name):
    _, log_prob, _ = DENSITIES[name]
    columns = [torch.tensor(numbers, dtype=torch.float64) for numbers in SMALL[name]]
    columns[0] = (columns[0] - 0.5).requires_grad_()
    with dist.validation_enabled(False):
        assert torch.autograd.gradcheck(log_prob, columns)


@pytest.mark.parametrize("name", ["Beta"])
def test_a_recorded_graph_gives_the_same_value_and_gradients(name):
    _, log_prob, differentiated = DENSITIES[name]
    columns = [torch.tensor(column) for column in SMALL[name]]

    def value_and_gradients(*columns):
        columns = [
            column.detach().requires_grad_(place in differentiated)
            for place, column in enumerate(columns)
        ]
        value = log_prob(*columns)
        return value, *torch.autograd.grad(
            value.sum(), [columns[place] for place in differentiated]
        )

    with dist.validation_enabled(False):
        graph = make_fx(value_and_gradients)(*(column / 2 for column in columns))
        torch.testing.assert_close(graph(*columns), value_and_gradients(*columns), rtol=0, atol=0)


def test_a_negative_binomial_far_out_is_finite_and_linear_in_the_log_of_its_mean():
    log_mean = torch.tensor([-100.0, -60.0, 60.0, 100.0], requires_grad=True)
    for x, dispersion in ((0.0, 0.5), (3.0, 0.5), (3.0, 1e-6), (1e4, 100.0)):
        log_prob = NegativeBinomial(log_mean, dispersion).log_prob(torch.tensor(x))
        (slopes,) = torch.autograd.grad(log_prob.sum(), log_mean)
        torch.testing.assert_close(slopes, torch.tensor([x, x, -1 / dispersion, -1 / dispersion]))
        torch.testing.assert_close(log_prob[1] - log_prob[0], torch.tensor(40.0 * x))
        torch.testing.assert_close(log_prob[2] - log_prob[3], torch.tensor(40.0 / dispersion))


def test_a_negative_binomial_without_dispersion_is_a_poisson():
    x, rate = torch.tensor([0.0, 1.0, 30.0, 1e5]), torch.tensor([2.0, 2.0, 25.0, 1e5])
    for dispersion in (1e-12, 1e-20):
        torch.testing.assert_close(
            NegativeBinomial(rate.log(), dispersion).log_prob(x),
            Poisson(rate).log_prob(x),
            rtol=1e-5,
            atol=1e-5,
        )


@pytest.mark.parametrize("logit", [50.0, 100.0, 200.0, 1e4, 1e20])
def test_a_binomial_is_finite_where_its_probability_rounds_to_one(logit):
    logits = torch.tensor([logit, -logit, logit, -logit], requires_grad=True)
    log_prob = Binomial(16, logits=logits).log_prob(torch.tensor([16.0, 0.0, 0.0, 3.0]))
    torch.testing.assert_close(
        log_prob, dist.Binomial(16, logits=logits).log_prob(torch.tensor([16.0, 0.0, 0.0, 3.0]))
    )
    (slopes,) = torch.autograd.grad(log_prob.sum(), logits)
    torch.testing.assert_close(slopes, torch.tensor([0.0, 0.0, -16.0, 3.0]))
