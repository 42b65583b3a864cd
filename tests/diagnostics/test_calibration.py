"""Ranks are uniform for the exact posterior and for no other, and the verdict says what is wrong with the other."""

import math
import re

import mpmath
import pyro.distributions as dist
import pytest
import torch
from models import ExactPosterior, binary_vae, linear, linear_gaussian_vae
from references import LinearGaussian
from torch import nn

from pyro_vae import (
    MLP,
    VAE,
    BernoulliLikelihood,
    ConditionalNormalPrior,
    DiagNormalPosterior,
    NormalLikelihood,
    Posterior,
    Prior,
    StandardNormalPrior,
)
from pyro_vae.diagnostics import Calibration, calibrate, calibration
from pyro_vae.evaluation.measures import BLOCK_ROWS

pytestmark = pytest.mark.usefixtures("float64")


class Guide(ExactPosterior):
    """The exact posterior with another covariance, or moved."""

    def __init__(self, reference, covariance=None, shift=0.0):
        super().__init__(reference)
        self.covariance = reference.posterior_covariance() if covariance is None else covariance
        self.shift = shift

    def forward(self, x, y=None):
        return dist.MultivariateNormal(
            self.reference.posterior_loc(x) + self.shift, self.covariance
        )


@pytest.fixture
def reference():
    """Its posterior has a correlation of -0.86."""
    weight = torch.tensor([[1.0, 0.8], [0.5, 0.6], [0.7, 0.6]])
    return LinearGaussian(weight, torch.tensor([0.3, -0.2, 0.1]), 0.4)


def calibrated(reference, covariance=None, shift=0.0, **options):
    return calibrate(linear_gaussian_vae(reference, Guide(reference, covariance, shift)), **options)


# The test


def test_the_exact_posterior_is_rejected_no_more_often_than_is_said(reference):
    # Failure rate: less than 1e-3 (22 or more of 200 at 5 % each).
    vae = linear_gaussian_vae(reference)
    results = [
        calibrate(vae, num_rows=200, num_draws=19, failure_rate=0.05, seed=seed)
        for seed in range(200)
    ]
    assert sum(not result.is_calibrated for result in results) < 22
    assert all(result.verdict().startswith("uniform") is result.is_calibrated for result in results)


@pytest.mark.parametrize(("num_rows", "num_draws"), [(200, 19), (1000, 99)])
def test_p_values_of_uniform_ranks_are_small_as_seldom_as_they_say_and_not_much_more_seldom(
    num_rows, num_draws
):
    # Failure rate: 1e-4 (4 standard errors of a share of 1 % among 10,000, at a fixed seed).
    ranks = torch.randint(num_draws + 1, (num_rows, 10_000))
    p_values = Calibration.from_ranks(ranks, num_draws).p_values
    assert 0.004 < (p_values <= 0.01).double().mean() < 0.014


def test_contrasts_of_uniform_ranks_have_mean_0_and_variance_1_and_no_correlation():
    # Failure rate: less than 1e-3 (4 standard errors of each, 8 numbers, at a fixed seed).
    contrasts = calibration._contrasts(torch.randint(20, (300, 4000)), 19)
    assert contrasts.mean(1).abs().max() < 4 / 4000**0.5
    assert (torch.cov(contrasts) - torch.eye(2)).abs().max() < 4 * (2 / 4000) ** 0.5


def test_the_tail_of_chi_squared_is_the_closed_one():
    statistic = torch.tensor([0.5, 3.0, 20.0])
    assert calibration._chi_squared_tail(statistic, 2).tolist() == pytest.approx(
        (-statistic / 2).exp().tolist()
    )
    four = (1 + statistic / 2) * (-statistic / 2).exp()
    assert calibration._chi_squared_tail(statistic, 4).tolist() == pytest.approx(four.tolist())


def test_each_quantity_answers_for_its_share_of_the_failure_rate():
    p_values = torch.tensor([0.2, 0.004, 0.0024, 1.0])
    result = Calibration(torch.zeros(200, 4), 19, 0.01, p_values)
    assert result.is_rejected.tolist() == [False, False, True, False]
    assert not result.is_calibrated
    assert Calibration(torch.zeros(200, 4), 19, 0.009, p_values).is_calibrated


def test_ranks_that_favour_single_bins_are_rejected_though_mean_and_variance_are_uniform():
    ranks = (
        torch.tensor([2, 6, 13, 17]).repeat(100)[:, None].expand(-1, 2)
    )  # mean 9.5, variance 34.25: 33.25 is uniform
    result = Calibration.from_ranks(ranks, 19)
    assert calibration._contrasts(ranks, 19).abs().max() < 1
    assert result.verdict() == "rejected at 1 %: ranks not uniform in z_1, log p(x, z)"


@pytest.mark.parametrize(
    "excess", [[8, -8] * 5 + [-8, 8] * 5, [*range(10, 0, -1), *range(-1, -11, -1)]]
)
def test_a_p_value_is_twice_the_smaller_of_that_of_the_histogram_and_that_of_mean_and_variance(
    excess,
):
    """A zigzag, which only the histogram sees, and a slope, which the mean sees first."""
    counts = 50 + torch.tensor(excess)
    ranks = (5 * torch.arange(20) + 2).repeat_interleave(counts)[:, None].expand(-1, 2)
    by_bin = mpmath.gammainc(19 / 2, ((counts - 50) ** 2).sum().item() / 50 / 2, regularized=True)
    location, spread = ((ranks[:, 0] - 49.5) ** power for power in (1, 2))
    uniform = (torch.arange(100) - 49.5) ** 2
    squares = location.mean() ** 2 / uniform.mean() + (
        spread.mean() - uniform.mean()
    ) ** 2 / uniform.var(correction=0)
    smooth = math.exp(-1000 * squares / 2)
    p_values = Calibration.from_ranks(ranks, 99).p_values
    assert p_values.tolist() == pytest.approx([min(1, 2 * float(min(by_bin, smooth)))] * 2)
    assert (smooth < by_bin) is (excess[1] > 0)


@pytest.mark.parametrize(
    ("num_rows", "num_draws", "num_bins"),
    [(200, 19, 5), (400, 19, 10), (1000, 99, 20), (10_000, 98, 11), (1000, 48, 7)],
)
def test_bins_are_equal_and_hold_enough_rows(num_rows, num_draws, num_bins):
    ranks = torch.arange(num_rows)[:, None].expand(-1, 2) % (num_draws + 1)
    counts = Calibration.from_ranks(ranks, num_draws).histogram()
    assert counts.shape == (2, num_bins)
    assert (counts.sum(1) == num_rows).all()
    every_rank = calibration._histogram(torch.arange(num_draws + 1).repeat(400)[:, None], num_draws)
    assert every_rank.unique().numel() == 1


# Guides that are wrong in a known way


def test_the_mean_field_guide_with_the_least_kl_has_too_narrow_intervals(reference):
    # Its log p(x, z) has the exact mean, since E[(z − loc)ᵀ Λ (z − loc)] = D under both, but spreads more.
    covariance = reference.posterior_covariance().inverse().diagonal().reciprocal().diag()
    result = calibrated(reference, covariance)
    assert result.verdict() == (
        "rejected at 1 %: intervals too narrow (U-shaped ranks) in z_1, z_2; "
        "intervals too wide (hump-shaped ranks) in log p(x, z)"
    )


def test_only_the_joint_density_sees_a_guide_with_the_exact_marginals_and_no_correlation(reference):
    result = calibrated(reference, reference.posterior_covariance().diagonal().diag())
    assert result.verdict() == "rejected at 1 %: shifted (draws too low) in log p(x, z)"


@pytest.mark.parametrize(
    ("factor", "shift", "words"),
    [
        (
            0.6,
            0.0,
            "intervals too narrow (U-shaped ranks) in z_1, z_2; shifted (draws too high) in log p(x, z)",
        ),
        (
            1.5,
            0.0,
            "intervals too wide (hump-shaped ranks) in z_1, z_2; shifted (draws too low) in log p(x, z)",
        ),
        (1.0, 0.5, "shifted (draws too high) in z_1"),
        (1.0, -0.5, "shifted (draws too low) in z_1"),
    ],
)
def test_the_verdict_names_the_fault(reference, factor, shift, words):
    covariance = factor**2 * reference.posterior_covariance()
    moved = torch.tensor([shift, 0.0]) * covariance.diagonal().sqrt()
    result = calibrated(reference, covariance, moved)
    assert result.verdict().startswith(f"rejected at 1 %: {words}")
    assert not result.is_calibrated


def test_a_verdict_on_many_dimensions_stays_short():
    result = Calibration.from_ranks(torch.zeros(200, 31).long(), 19)
    assert result.verdict().endswith("in z_1, z_2, z_3, z_4, z_5, z_6, z_7, z_8 and 23 more")


def test_draws_of_another_posterior_can_be_judged(reference):
    vae = linear_gaussian_vae(reference, Guide(reference, 0.1 * torch.eye(2)))
    exact = ExactPosterior(reference)
    assert not calibrate(vae).is_calibrated
    assert calibrate(vae, draw=lambda x, y, count: exact(x).sample((count,))).is_calibrated


# Coverage


def attained(factor, num_draws, outside):
    """The coverage by draws whose scale is `factor` times the exact one: of given z* the rank is binomial."""
    z = torch.linspace(-9, 9, 901)
    below = torch.special.ndtr(z / factor).clamp(1e-16, 1 - 1e-16)
    counts = torch.arange(outside, num_draws - outside + 1.0)[:, None]
    inside = torch.distributions.Binomial(num_draws, below).log_prob(counts).exp().sum(0)
    return torch.trapezoid(inside * dist.Normal(0.0, 1.0).log_prob(z).exp(), z).item()


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.6])
def test_coverage_is_that_of_the_closed_form(factor):
    # Failure rate: 4e-4 for each factor (4 standard errors, six numbers, at a fixed seed).
    reference = LinearGaussian(
        torch.tensor([[1.0, 0.0], [0.0, 0.7], [0.0, 0.0]]), torch.zeros(3), 0.5
    )
    scales = reference.posterior_covariance().diagonal() * torch.tensor([factor**2, 1.0])
    results = calibrated(reference, scales.diag(), num_rows=4000, num_draws=39).coverage(
        [0.5, 0.8, 0.9]
    )
    for result, outside in zip(results, [10, 4, 2], strict=True):
        for dim, expected in enumerate([attained(factor, 39, outside), result.nominal]):
            error = (expected * (1 - expected) / 4000) ** 0.5
            assert abs(result.by_dim[dim] - expected) < 4 * error
        assert result.mean == pytest.approx(sum(result.by_dim) / 2)


def test_the_closed_form_of_coverage_is_nominal_for_the_exact_scale_and_that_of_many_draws_in_the_limit():
    assert attained(1.0, 39, 4) == pytest.approx(0.8, abs=1e-6)
    assert attained(0.5, 1999, 50) == pytest.approx(math.erf(0.5 * 1.95996 / 2**0.5), abs=1e-3)


def test_the_nominal_level_is_the_nearest_that_so_many_draws_attain():
    ranks = torch.arange(20).repeat(10)[:, None].expand(-1, 3)
    results = Calibration.from_ranks(ranks, 19).coverage([0.5, 0.88, 0.95, 0.1])
    assert [result.level for result in results] == [0.5, 0.88, 0.95, 0.1]
    for result, nominal in zip(results, [0.5, 0.9, 0.9, 0.1], strict=True):
        assert result.nominal == pytest.approx(nominal)
        assert result.mean == pytest.approx(nominal)
        assert result.by_dim == pytest.approx([nominal] * 2)


def test_dimensions_that_say_the_same_do_not_make_the_error_smaller():
    column = torch.randint(20, (400, 1))
    (result,) = Calibration.from_ranks(column.expand(-1, 6), 19).coverage([0.8])
    assert result.standard_error == pytest.approx((result.mean * (1 - result.mean) / 399) ** 0.5)


def test_the_rank_of_the_joint_density_does_not_count_as_a_dimension():
    ranks = torch.stack([torch.full((200,), 10), torch.zeros(200).long()], dim=1)
    (result,) = Calibration.from_ranks(ranks, 19).coverage([0.9])
    assert (result.mean, result.by_dim) == (1, [1])


@pytest.mark.parametrize("level", [0.99, 0.0, 1.0, 0.01, math.nan, 90])
def test_a_level_for_which_there_are_too_few_draws_is_refused(level):
    result = Calibration.from_ranks(torch.zeros(200, 2).long(), 19)
    with pytest.raises(
        ValueError,
        match=f"'levels' must leave a draw .* 19 draws do from 0.05 to 0.95, got {level}",
    ):
        result.coverage([level])


# What ranks depend on


def test_ranks_count_the_draws_that_are_lower(reference):
    vae = linear_gaussian_vae(reference)
    seen = []

    def draw(x, y, count):
        seen.append((x, vae.posterior(x).sample((count,))))
        return seen[-1][1]

    ranks = calibrate(vae, num_rows=300, num_draws=19, draw=draw).ranks
    assert ranks.shape == (300, 3)
    assert [len(x) for x, _ in seen] == [BLOCK_ROWS, 300 - BLOCK_ROWS]
    with calibration.stream(0, 1):
        truth = vae.prior().expand((100,)).sample()
        x = vae.decode(truth).sample()
    assert torch.equal(x, seen[1][0])
    z = torch.cat([truth[None], seen[1][1]])
    joint = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
    joint = joint + dist.Normal(z @ reference.weight.T + reference.bias, reference.scale).log_prob(
        x
    ).sum(-1)
    quantities = torch.cat([z, joint[..., None]], -1)
    assert torch.equal(ranks[BLOCK_ROWS:], (quantities[1:] < quantities[0]).sum(0))


def test_ranks_do_not_depend_on_the_order_of_draws_the_rows_that_follow_or_the_chunks(
    reference, monkeypatch
):
    vae = linear_gaussian_vae(reference)
    ranks = calibrate(vae, num_rows=400, num_draws=19).ranks
    reversed_draws = calibrate(
        vae,
        num_rows=400,
        num_draws=19,
        draw=lambda x, y, count: vae.posterior(x).sample((count,)).flip(0),
    )
    assert torch.equal(reversed_draws.ranks, ranks)
    assert torch.equal(calibrate(vae, num_rows=200, num_draws=19).ranks, ranks[:200])
    assert not torch.equal(calibrate(vae, num_rows=400, num_draws=19, seed=1).ranks, ranks)
    monkeypatch.setattr(calibration, "_CHUNK", 7 * 20)
    assert torch.equal(calibrate(vae, num_rows=400, num_draws=19).ranks, ranks)


def test_no_more_than_a_chunk_passes_through_the_decoder(reference, monkeypatch):
    monkeypatch.setattr(calibration, "_CHUNK", 500)
    vae = linear_gaussian_vae(reference)
    sizes = []
    vae.likelihood.register_forward_hook(
        lambda module, inputs, output: sizes.append(inputs[0].shape[:-1].numel())
    )
    calibrate(vae, num_rows=200, num_draws=19)
    assert max(sizes) <= 500


class Coin(Prior):
    def forward(self, y=None):
        return dist.Bernoulli(0.5 * torch.ones(1)).to_event(1)


def test_equal_values_are_ranked_at_random():
    """A latent of two values, for which all draws but a few are equal to the truth."""
    likelihood = NormalLikelihood(linear(torch.tensor([[1.0]]), torch.tensor([0.0])), 1, 1.0)
    vae = VAE(Coin(1), likelihood, DiagNormalPosterior(MLP(1, [2], 2), 1, 1))

    def draw(x, y, count):
        return dist.Bernoulli(logits=x - 0.5).sample((count,))

    assert calibrate(vae, num_draws=4, draw=draw).is_calibrated
    assert not calibrate(
        vae, num_draws=4, draw=lambda x, y, count: draw(0 * x + 0.5, y, count)
    ).is_calibrated


# What is left as it was, and what is refused


def test_modes_buffers_and_random_state_stay():
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4)
    )
    posterior = DiagNormalPosterior(network, (1, 4, 4), 2)
    vae = VAE(StandardNormalPrior(2), BernoulliLikelihood(MLP(2, [8], 16), (1, 4, 4)), posterior)
    network[3].eval()
    weights = {name: value.clone() for name, value in vae.state_dict().items()}
    modes, state = [module.training for module in vae.modules()], torch.get_rng_state()
    first, second = calibrate(vae, num_rows=250), calibrate(vae, num_rows=250)
    assert torch.equal(first.ranks, second.ranks)
    assert [module.training for module in vae.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in vae.state_dict().items():
        assert torch.equal(value, weights[name])


class Shifted(nn.Module):
    """W z + V y + b."""

    context_dim = 2

    def __init__(self, reference, context_weight):
        super().__init__()
        self.latent, self.context_weight = linear(reference.weight, reference.bias), context_weight

    def forward(self, z, y):
        return self.latent(z) + y @ self.context_weight.T


class ExactGivenContext(Posterior):
    def __init__(self, reference, context_weight):
        super().__init__(nn.Identity(), 3, 2)
        self.exact, self.context_weight, self.context_dim = (
            ExactPosterior(reference),
            context_weight,
            2,
        )

    def forward(self, x, y=None):
        return self.exact(x - y @ self.context_weight.T)


def test_each_row_of_a_conditional_vae_has_its_own_context(reference, monkeypatch):
    context_weight = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    likelihood = NormalLikelihood(Shifted(reference, context_weight), 3, reference.scale)
    y = torch.randn(1000, 2)
    vae = VAE(StandardNormalPrior(2), likelihood, ExactGivenContext(reference, context_weight))
    contexts = []
    vae.posterior.register_forward_hook(lambda module, inputs, output: contexts.append(inputs[1]))
    result = calibrate(vae, y=y)
    assert result.is_calibrated
    assert torch.equal(torch.cat(contexts), y)
    assert calibrate(vae, y=y.float()).is_calibrated
    unconditional = ExactPosterior(reference)
    assert not calibrate(
        vae, y=y, draw=lambda x, y, count: unconditional(x).sample((count,))
    ).is_calibrated
    monkeypatch.setattr(calibration, "_CHUNK", 700)
    assert torch.equal(calibrate(vae, y=y).ranks, result.ranks)


def test_the_prior_may_depend_on_the_context():
    prior = ConditionalNormalPrior(2, 3)
    with torch.no_grad():
        prior.network.bias.copy_(torch.tensor([1.0, -2.0, 0.1, 0.2]))
    likelihood = NormalLikelihood(linear(torch.zeros(4, 2), torch.zeros(4)), 4, 1.0)
    vae = VAE(prior, likelihood, DiagNormalPosterior(MLP(4, [2], 4), 4, 2))
    y = torch.randn(1000, 3)
    assert calibrate(vae, y=y, draw=lambda x, y, count: vae.prior(y).sample((count,))).is_calibrated


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_rows": 199}, "'num_rows' must be at least 200, 5 bins of 40, got 199."),
        ({"num_rows": 0}, "'num_rows' must be a whole number of at least 1, got 0."),
        (
            {"num_draws": 100},
            "'num_draws' plus 1 must be divisible by a number from 5 to 20, as 99 + 1 is, for 1000 rows",
        ),
        (
            {"num_draws": 3},
            "'num_draws' plus 1 must be divisible by a number from 5 to 20, as 99 + 1 is, for 1000 rows",
        ),
        ({"failure_rate": 0.0}, "'failure_rate' must lie in (0, 1), got 0.0."),
        (
            {"y": torch.zeros(1000, 2)},
            "'y' must be omitted for a VAE without a context, got a tensor of the shape (1000, 2).",
        ),
        (
            {"draw": lambda x, y, count: torch.zeros(3, 2)},
            "'draw' must give draws of the shape (99, 200, 2), got (3, 2).",
        ),
        (
            {"draw": lambda x, y, count: torch.full((count, len(x), 2), math.nan)},
            "'draw' must give finite draws, got NaN or",
        ),
    ],
)
def test_what_cannot_be_calibrated_is_refused_in_one_sentence(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        calibrate(binary_vae(), **options)


@pytest.mark.parametrize(
    "ranks",
    [
        torch.full((200, 2), 20),
        torch.full((200, 2), -1),
        torch.zeros(200, 2),
        torch.zeros(200).long(),
    ],
)
def test_what_are_no_ranks_is_refused(ranks):
    with pytest.raises(
        ValueError,
        match="'ranks' must be whole numbers from 0 to 19 of the shape \\(200, D \\+ 1\\), got",
    ):
        Calibration.from_ranks(ranks, 19)


def test_no_ranks_are_refused():
    with pytest.raises(ValueError, match=r"'ranks' must not be empty, got the shape \(300, 0\)\."):
        Calibration.from_ranks(torch.zeros(300, 0).long(), 19)


def test_what_is_no_vae_is_refused():
    with pytest.raises(ValueError, match="'vae' must be a VAE, got Linear"):
        calibrate(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("y", "received"), [(None, "none"), (torch.zeros(999, 3), "(999, 3)"), (torch.zeros(3), "(3,)")]
)
def test_a_conditional_vae_needs_a_context_for_each_row(y, received):
    likelihood = NormalLikelihood(linear(torch.zeros(4, 2), torch.zeros(4)), 4, 1.0)
    vae = VAE(ConditionalNormalPrior(2, 3), likelihood, DiagNormalPosterior(MLP(4, [2], 4), 4, 2))
    message = f"'y' must have the shape (1000, 3) for this conditional VAE, got {received}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        calibrate(vae, y=y)
