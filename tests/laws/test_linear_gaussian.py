"""The strongest check there is: with the exact posterior as guide every estimate is log p(x), draw by draw."""

import pytest
import torch
from models import PriorAsPosterior, exact_diagonal_posterior, linear_gaussian_vae
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from references import LinearGaussian, tipping_bishop

from pyro_vae import (
    SVI,
    VAE,
    DiagNormalPosterior,
    LearnedScale,
    NormalLikelihood,
    Shuffled,
    StandardNormalPrior,
    Training,
    evaluate,
    fit,
    log_mean_exp,
    log_weights,
)

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def reference():
    return LinearGaussian(torch.randn(5, 3), torch.randn(5), 0.7)


@pytest.fixture
def orthogonal():
    columns = torch.linalg.qr(torch.randn(5, 3)).Q
    return LinearGaussian(columns * torch.tensor([2.0, 1.0, 0.3]), torch.randn(5), 0.7)


@pytest.mark.parametrize("draw", range(3))
def test_the_elbo_is_the_log_marginal_for_every_draw(reference, draw):
    torch.manual_seed(draw)
    vae, x = linear_gaussian_vae(reference), torch.randn(7, 5)
    expected = reference.log_marginal(x)
    assert -Trace_ELBO().loss(vae.model, vae.guide, x) == pytest.approx(
        expected.sum().item(), abs=1e-10
    )
    torch.testing.assert_close(vae.elbo(x, num_samples=4), expected, atol=1e-10, rtol=0)


def test_a_diagonal_posterior_is_exact_for_orthogonal_columns(orthogonal):
    vae, x = (
        linear_gaussian_vae(orthogonal, exact_diagonal_posterior(orthogonal)),
        torch.randn(7, 5),
    )
    assert -Trace_ELBO().loss(vae.model, vae.guide, x) == pytest.approx(
        orthogonal.log_marginal(x).sum().item(), abs=1e-10
    )


def test_the_mean_field_elbo_is_the_log_marginal_in_expectation(orthogonal):
    # Failure rate: 6e-5 (4 standard errors), at a fixed seed.
    vae, x = (
        linear_gaussian_vae(orthogonal, exact_diagonal_posterior(orthogonal)),
        torch.randn(1, 5),
    )
    elbo = TraceMeanField_ELBO()
    losses = torch.tensor([elbo.loss(vae.model, vae.guide, x) for _ in range(400)])
    error = losses.std() / len(losses) ** 0.5
    assert abs(losses.mean() + orthogonal.log_marginal(x).sum()) < 4 * error


@pytest.mark.parametrize("num_samples", [1, 5, 50])
def test_every_importance_weight_is_the_marginal_likelihood(reference, num_samples):
    vae, x = linear_gaussian_vae(reference), torch.randn(7, 5)
    weights = log_weights(vae.model, vae.guide, x, num_samples=num_samples)
    expected = reference.log_marginal(x)
    torch.testing.assert_close(weights, expected.expand(num_samples, -1), atol=1e-10, rtol=0)
    torch.testing.assert_close(log_mean_exp(weights), expected, atol=1e-10, rtol=0)
    normalised = weights.softmax(0)
    torch.testing.assert_close(
        1 / (normalised**2).sum(0), torch.full((7,), float(num_samples)), atol=1e-8, rtol=0
    )


def test_evaluate_finds_the_log_marginal_without_error(reference):
    vae, x = linear_gaussian_vae(reference), torch.randn(523, 5)
    result = evaluate(vae, x, num_samples=3, num_importance_samples=30)
    expected = reference.log_marginal(x).mean().item()
    # The KL is taken in closed form, and the distortion is drawn: 5 standard errors, exceeded once in two million seeds.
    assert result.negative_elbo.mean == pytest.approx(
        -expected, abs=5 * result.negative_elbo.monte_carlo_error
    )
    assert result.log_marginal.mean == pytest.approx(expected, abs=1e-10)
    assert result.log_marginal.monte_carlo_error == pytest.approx(0, abs=1e-7)
    assert result.log_marginal.row_error == pytest.approx(
        reference.log_marginal(x).std().item() / 523**0.5, rel=1e-9
    )
    assert result.rate.mean + result.distortion.mean == pytest.approx(
        result.negative_elbo.mean, abs=1e-12
    )


@pytest.mark.slow
def test_a_trained_linear_vae_reaches_the_best_likelihood_there_is():
    x = torch.randn(200, 2) @ torch.tensor(
        [[2.0, 0.0, 1.0, 0.5], [0.0, 1.5, -1.0, 0.5]]
    ) + 0.5 * torch.randn(200, 4)
    best, variance = tipping_bishop(x, latent_dim=2)
    vae = VAE(
        StandardNormalPrior(2),
        NormalLikelihood(torch.nn.Linear(2, 4), 4, LearnedScale(min_scale=0.0)),
        DiagNormalPosterior(torch.nn.Linear(4, 4), 4, 2),
    )
    schedule = Training(
        epochs=400,
        batches=Shuffled(200),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.05),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400),
    )
    fit(vae, x, schedule)
    reached = evaluate(vae, x, num_samples=100, num_importance_samples=100)
    assert reached.log_marginal.mean == pytest.approx(best.item(), abs=0.01)
    assert reached.negative_elbo.mean == pytest.approx(-best.item(), abs=0.02)
    assert vae.likelihood.scale().item() ** 2 == pytest.approx(variance.item(), rel=0.03)


# The bounds L_K of z ~ N(0, 1), x | z ~ N(z, 1) at x = 1 with the prior as proposal; log p(x) = -1.515512.
GOLDEN_BOUNDS = {1: -1.918939, 2: -1.6536, 5: -1.5573, 10: -1.5351, 50: -1.5191, 500: -1.5159}


@pytest.fixture
def conjugate():
    reference = LinearGaussian(torch.ones(1, 1), torch.zeros(1), 1.0)
    return linear_gaussian_vae(reference, PriorAsPosterior(torch.nn.Identity(), 1, 1))


@pytest.mark.parametrize("num_samples", GOLDEN_BOUNDS)
def test_importance_weighted_bounds_have_their_known_values(conjugate, num_samples):
    # Failure rate: 6e-5 each (4 standard errors), at a fixed seed.
    rows = max(200, 400_000 // num_samples)
    bound = log_mean_exp(
        log_weights(conjugate.model, conjugate.guide, torch.ones(rows, 1), num_samples=num_samples)
    )
    error = bound.std() / rows**0.5
    assert abs(bound.mean() - GOLDEN_BOUNDS[num_samples]) < 4 * error + 5e-5


def test_bounds_rise_with_the_number_of_samples(conjugate):
    # Paired draws: the bound of K draws is never above that of all 500 by more than 3 standard errors.
    weights = log_weights(conjugate.model, conjugate.guide, torch.ones(2000, 1), num_samples=500)
    bounds = [log_mean_exp(weights[:count]) for count in (1, 5, 50, 500)]
    for lower, upper in zip(bounds, [*bounds[1:], torch.full((2000,), -1.515512)], strict=True):
        difference = upper - lower
        assert difference.mean() > -3 * difference.std() / 2000**0.5


def test_svi_at_the_exact_posterior_returns_the_log_marginal(reference):
    vae, x = linear_gaussian_vae(reference), torch.randn(7, 5)
    svi = SVI(vae.model, vae.guide, torch.optim.SGD(vae.parameters(), lr=0.0), Trace_ELBO())
    assert svi.step(x).item() == pytest.approx(-reference.log_marginal(x).sum().item(), abs=1e-10)
