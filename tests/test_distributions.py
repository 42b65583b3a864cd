import pytest
import references
import torch

from pyro_vae import ContinuousBernoulli

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
    expected = torch.tensor([references.continuous_bernoulli(float(x), logit) for logit in exact], dtype=dtype)
    slope = torch.tensor([float(x) - references.continuous_bernoulli_mean(logit) for logit in exact], dtype=dtype)
    torch.testing.assert_close(log_prob.detach(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    torch.testing.assert_close(gradient, slope, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("logit", [0.0, 0.3, -2.0, 10.0, -40.0])
def test_continuous_bernoulli_integrates_to_one_and_has_its_mean_and_variance(logit):
    x = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    p_x = ContinuousBernoulli(torch.tensor(logit, dtype=torch.float64))
    density = p_x.log_prob(x).exp()
    mean = torch.trapezoid(x * density, x)
    assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-6)
    assert p_x.mean.item() == pytest.approx(mean.item(), abs=1e-6)
    assert p_x.variance.item() == pytest.approx(torch.trapezoid((x - mean) ** 2 * density, x).item(), abs=1e-6)


@pytest.mark.parametrize("logit", [0.0, 1e-6, 0.3, -2.0, 30.0, -200.0])
def test_continuous_bernoulli_draws_have_its_distribution(logit):
    # Kolmogorov-Smirnov at 2.2 / sqrt(n): fails for one seed in 8,000.
    p_x = ContinuousBernoulli(torch.tensor(logit, dtype=torch.float64))
    draws = p_x.sample((20_000,)).sort().values
    exact = draws if logit == 0 else torch.expm1(draws * -abs(logit)) / torch.expm1(torch.tensor(-abs(logit)))
    if logit > 0:
        exact = 1 - torch.expm1((1 - draws) * -logit) / torch.expm1(torch.tensor(-logit))
    ranks = torch.arange(1, 20_001, dtype=torch.float64) / 20_000
    assert (ranks - exact).abs().max() < 2.2 / 20_000**0.5
    assert p_x.support.check(draws).all()


def test_continuous_bernoulli_draws_are_differentiable():
    logits = torch.tensor([-3.0, 0.0, 3.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(ContinuousBernoulli(logits).rsample((1000,)).mean(0).sum(), logits)
    assert torch.isfinite(gradient).all()
    # d E[x] / dl is the variance: 1/12 at 0. Five standard errors of 1,000 draws.
    torch.testing.assert_close(gradient, ContinuousBernoulli(logits.detach()).variance, atol=0.02, rtol=0)


def test_continuous_bernoulli_refuses_values_outside_the_unit_interval():
    with pytest.raises(ValueError, match="within the support"):
        ContinuousBernoulli(torch.zeros(1), validate_args=True).log_prob(torch.tensor([1.5]))
