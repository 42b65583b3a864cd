import json
import math

import pytest
import torch
from models import binary_vae, linear_gaussian_vae
from references import LinearGaussian, kl_from_standard_normal
from torch import nn

from pyro_vae import (
    MLP,
    VAE,
    AffineFlow,
    BernoulliLikelihood,
    DiagNormalPosterior,
    DynamicDraw,
    Execution,
    FlowPosterior,
    Rows,
    StandardNormalPrior,
    evaluate,
    log_mean_exp,
    log_weights,
)
from pyro_vae.evaluation import evaluate_rows, negative_elbo
from pyro_vae.evaluation import measures as evaluation
from pyro_vae.evaluation.vae_rows import BLOCK_ROWS


@pytest.fixture
def vae():
    return binary_vae()


@pytest.fixture
def x(vae):
    return vae.sample(2 * BLOCK_ROWS + 37)


def test_the_order_of_the_rows_changes_nothing(vae):
    grey = Rows(torch.randint(256, (437, 1, 4, 4), dtype=torch.uint8), DynamicDraw(), 255.0)
    shuffled = grey.take(torch.randperm(437))
    assert evaluate(vae, grey) == evaluate(vae, shuffled)


def test_weights_buffers_modes_and_random_state_stay(x):
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4)
    )
    vae = VAE(
        StandardNormalPrior(2),
        BernoulliLikelihood(MLP(2, [8], 16), (1, 4, 4)),
        DiagNormalPosterior(network, (1, 4, 4), 2),
    )
    network[3].eval()
    weights = {name: value.clone() for name, value in vae.state_dict().items()}
    modes, state = [module.training for module in vae.modules()], torch.get_rng_state()
    first, second = evaluate(vae, x), evaluate(vae, x)
    assert first == second
    assert [module.training for module in vae.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in vae.state_dict().items():
        assert torch.equal(value, weights[name])


def test_another_seed_moves_the_estimates_within_their_errors(vae, x):
    # Failure rate: 6e-5 each (4 standard errors of a difference), at a fixed seed.
    first, second = evaluate(vae, x, seed=0), evaluate(vae, x, seed=1)
    for name in ("negative_elbo", "distortion", "log_marginal"):
        a, b = getattr(first, name), getattr(second, name)
        assert a.mean != b.mean
        assert abs(a.mean - b.mean) < 4 * math.hypot(a.monte_carlo_error, b.monte_carlo_error)


def test_the_monte_carlo_error_is_the_spread_over_seeds(vae, x):
    # The standard deviation of 60 means is within 40 % of the truth but for one seed in 10,000.
    results = [
        evaluate(vae, x[:100], num_samples=4, num_importance_samples=20, seed=seed)
        for seed in range(60)
    ]
    for name in ("negative_elbo", "distortion", "log_marginal"):
        estimates = [getattr(result, name) for result in results]
        spread = torch.tensor([estimate.mean for estimate in estimates]).std().item()
        claimed = sum(estimate.monte_carlo_error for estimate in estimates) / 60
        assert claimed == pytest.approx(spread, rel=0.4)


def test_rate_and_distortion_add_up_and_dimensions_sum_to_the_rate(vae, x):
    result = evaluate(vae, x)
    assert result.rate.mean + result.distortion.mean == pytest.approx(
        result.negative_elbo.mean, rel=1e-9
    )
    assert sum(estimate.mean for estimate in result.rate_by_dim) == pytest.approx(
        result.rate.mean, rel=1e-6
    )
    normal = vae.encode(x).base_dist
    formula = kl_from_standard_normal(normal.loc, normal.scale).mean(0)
    torch.testing.assert_close(
        torch.tensor([e.mean for e in result.rate_by_dim]), formula, rtol=1e-4, atol=1e-6
    )
    assert result.rate.monte_carlo_error == 0
    assert result.rate.num_samples == 0
    assert result.distortion.num_samples == 10


def test_the_row_error_is_the_spread_of_the_rows(vae, x):
    normal = vae.encode(x).base_dist
    kl = kl_from_standard_normal(normal.loc, normal.scale).sum(1)
    estimate = evaluate(vae, x).rate
    assert estimate.num_rows == len(x)
    assert estimate.row_error == pytest.approx((kl.std() / len(x) ** 0.5).item(), rel=1e-4)


def test_log_marginal_is_the_importance_weighted_bound(vae, x):
    # Failure rate: 6e-5 (4 standard errors), at a fixed seed.
    result = evaluate(vae, x[:50], num_importance_samples=2000)
    direct = log_mean_exp(log_weights(vae.model, vae.guide, x[:50], num_samples=2000)).mean().item()
    error = result.log_marginal.monte_carlo_error
    assert abs(result.log_marginal.mean - direct) < 4 * 2**0.5 * error
    assert result.log_marginal.mean > -result.negative_elbo.mean


def test_log_marginal_is_exact_in_the_limit():
    # z ~ N(0, 1), x | z ~ N(z, 1) with the prior's width as guide; 4 standard errors at a fixed seed.
    reference = LinearGaussian(torch.ones(1, 1), torch.zeros(1), 1.0)
    wide = DiagNormalPosterior(nn.Linear(1, 2), 1, 1)
    nn.init.zeros_(wide.network.weight)
    nn.init.zeros_(wide.network.bias)
    vae, x = linear_gaussian_vae(reference, wide), torch.randn(300, 1)
    result = evaluate(vae, x, num_importance_samples=2000).log_marginal
    assert (
        abs(result.mean - reference.log_marginal(x).mean().item())
        < 4 * result.monte_carlo_error + 1e-3
    )


def test_bits_per_dimension_are_nats_in_another_unit_and_only_for_discrete_x(vae, x):
    result = evaluate(vae, x)
    assert result.bits_per_dim.mean == pytest.approx(-result.log_marginal.mean / 16 / math.log(2))
    assert result.bits_per_dim.row_error == pytest.approx(
        result.log_marginal.row_error / 16 / math.log(2)
    )
    vae.likelihood.relaxed = True
    assert evaluate(vae, x * 0.9).bits_per_dim is None
    assert (
        evaluate(
            linear_gaussian_vae(LinearGaussian(torch.ones(2, 1), torch.zeros(2), 1.0)),
            torch.randn(9, 2),
        ).bits_per_dim
        is None
    )


def test_active_units_are_those_whose_mean_moves_with_x(vae, x):
    layer = vae.posterior.network.layers[-1]
    layer.weight.data[1], layer.bias.data[1] = 0.0, 3.0
    layer.weight.data[0] *= 10
    result = evaluate(vae, x)
    assert result.active_units == 1
    assert result.active_variance[1] == pytest.approx(0, abs=1e-9)
    assert result.active_variance[0] == pytest.approx(
        vae.encode(x).mean[:, 0].var(correction=0).item(), rel=1e-4
    )


def test_one_sample_says_that_it_knows_no_monte_carlo_error(vae, x):
    result = evaluate(vae, x[:1], num_samples=1, num_importance_samples=0)
    assert result.negative_elbo.monte_carlo_error is None
    assert result.negative_elbo.row_error is None
    assert result.log_marginal is None
    assert "-" in result.table()


def test_json_and_table_carry_every_number_with_its_errors_and_counts(vae, x):
    result = evaluate(vae, x)
    read = json.loads(result.to_json())
    assert read["negative_elbo"] == result.negative_elbo._asdict()
    assert read["rate_by_dim"][1]["mean"] == result.rate_by_dim[1].mean
    assert read["transform"] == "Identity()"
    for number in (
        result.negative_elbo.mean,
        result.log_marginal.monte_carlo_error,
        result.distortion.row_error,
    ):
        assert f"{number:.4f}" in result.table()


def test_the_quick_negative_elbo_is_that_of_evaluate(vae, x):
    assert negative_elbo(vae, x, num_samples=10) == pytest.approx(
        evaluate(vae, x).negative_elbo.mean, rel=1e-9
    )


def test_a_vae_in_double_precision_sees_its_data_in_double_precision():
    # Around 1e8 single precision knows only every eighth number.
    torch.set_default_dtype(torch.float64)
    try:
        reference = LinearGaussian(torch.ones(2, 1), torch.full((2,), 1e8), 1.0)
        vae, x = linear_gaussian_vae(reference), 1e8 + torch.randn(50, 2)
        expected = reference.log_marginal(x).mean().item()
    finally:
        torch.set_default_dtype(torch.float32)
    constant = DiagNormalPosterior(nn.Linear(2, 2), 2, 1).double()
    double = VAE(vae.prior.double(), vae.likelihood, constant)
    constant.network.weight.data.zero_()
    constant.network.bias.data.zero_()
    result = evaluate(double, x, num_samples=4000, num_importance_samples=4000)
    assert result.log_marginal.mean == pytest.approx(expected, abs=0.05)


def test_the_mean_of_equal_weights_is_exact_in_double_precision():
    assert log_mean_exp(torch.zeros(50, 3, dtype=torch.float64)).abs().max() < 1e-14


def test_rows_that_do_not_fit_are_refused(vae):
    with pytest.raises(ValueError, match="'data' must have rows of the shape"):
        evaluate(vae, torch.zeros(5, 16))
    with pytest.raises(ValueError, match="'x' must be 0 or 1"):
        evaluate(vae, torch.full((5, 1, 4, 4), 0.5))
    with pytest.raises(
        ValueError, match="'num_samples' must be a whole number of at least 1, got 0"
    ):
        evaluate(vae, torch.zeros(5, 1, 4, 4), num_samples=0)


@pytest.mark.parametrize(
    ("compile", "tolerance"), [(False, 0.0), pytest.param(True, 1e-5, marks=pytest.mark.slow)]
)
def test_log_marginals_do_not_depend_on_how_they_are_run(monkeypatch, compile, tolerance):
    vae = binary_vae()
    x = vae.sample(230)  # a block, and a shorter one; two chunks of draws in each
    plain = evaluate_rows(vae, x, num_importance_samples=40).log_marginal
    monkeypatch.setattr(evaluation, "_TRACE_PAYS_FROM", 1)
    other = evaluate_rows(
        vae, x, num_importance_samples=40, execution=Execution(compile=compile)
    ).log_marginal
    torch.testing.assert_close(other, plain, rtol=tolerance, atol=tolerance)


def test_a_flow_posterior_that_ignores_x_has_no_active_units(x):
    posterior = FlowPosterior(MLP(x[0].numel(), [], 2 * 2 + 32), x.shape[1:], 2, AffineFlow(1, [8]))
    nn.init.zeros_(posterior.network.layers[0].weight)
    vae = VAE(
        StandardNormalPrior(2),
        BernoulliLikelihood(MLP(2, [], x[0].numel()), x.shape[1:]),
        posterior,
    )
    result = evaluate(vae, x, num_importance_samples=0)
    # Averages of 100 draws vary by 0.01 from row to row, as much as an active unit; that is taken off.
    assert max(result.active_variance) < 0.004
    assert result.active_units == 0
