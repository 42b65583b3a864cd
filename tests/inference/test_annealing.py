"""The sandwich of log p(x) by annealing, against closed forms."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from models import ExactPosterior, linear_gaussian_vae
from references import LinearGaussian
from torch.distributions import MultivariateNormal, kl_divergence

from pyro_vae import MLP, VAE, ConditionalNormalPrior, DiagNormalPosterior, NormalLikelihood
from pyro_vae.diagnostics import sandwich
from pyro_vae.inference import annealing
from pyro_vae.inference.hamiltonian import hmc_transition

pytestmark = pytest.mark.usefixtures("float64")

# Rows are independent, and a mean over them is off by 5 standard errors once in 10^6 runs.
NUM_ERRORS = 5.0
# What a bound may be off by on average, in nats.
CLOSE = 0.05


@pytest.fixture
def reference():
    return LinearGaussian(torch.randn(4, 2), torch.randn(4), scale=0.7)


@pytest.fixture
def vae(reference):
    return linear_gaussian_vae(reference)


def simulated(vae, num_rows):
    """Rows from the model, and the exact posterior draw of each: the z that made it."""
    with torch.no_grad():
        z = vae.prior().expand([num_rows]).sample()
        return vae.decode(z).sample(), {"z": z}


def guide_of(reference, shift, factor):
    """The exact loc and deviations, shifted by so many of these and stretched, without correlations."""
    deviation = reference.posterior_covariance().diagonal().sqrt()

    def guide(x):
        with pyro.plate("data", len(x)):
            normal = dist.Normal(reference.posterior_loc(x) + shift * deviation, factor * deviation)
            pyro.sample("z", normal.to_event(1))

    return guide


def beta_binomial(x):
    with pyro.plate("coins", len(x), dim=-2):
        p = pyro.sample("p", dist.Beta(2.0, 3.0))
        pyro.sample("x", dist.Binomial(10, p), obs=x)


def beta_guide(x):
    with pyro.plate("coins", len(x), dim=-2):
        pyro.sample("p", dist.Beta(2.0, 2.0))


def standard_error(values):
    return values.std() / math.sqrt(len(values))


def assert_mean(values, expected):
    assert (values.mean() - expected).abs() < NUM_ERRORS * standard_error(values)


def assert_close_bounds(found, truth):
    assert (found.lower - truth).mean().abs() < CLOSE
    assert (found.upper - truth).mean().abs() < CLOSE
    gap = found.upper - found.lower
    assert gap.mean() > -3 * standard_error(gap)


@pytest.mark.parametrize("num_temperatures", [1, 3])
def test_with_the_exact_posterior_both_bounds_are_log_p(reference, vae, num_temperatures):
    x, exact = simulated(vae, 6)
    found = sandwich(vae.model, vae.guide, x, exact=exact, num_temperatures=num_temperatures)
    truth = reference.log_marginal(x)
    torch.testing.assert_close(found.lower, truth, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.upper, truth, rtol=0, atol=1e-8)
    assert found.lower_error.max() < 1e-6
    assert found.upper_error.max() < 1e-6


def test_one_temperature_is_plain_importance_sampling(reference, vae):
    """Of one chain: E[lower] = log p(x) − KL(q ‖ p), E[upper] = log p(x) + KL(p ‖ q)."""
    x, exact = simulated(vae, 4000)
    guide = guide_of(reference, 0.5, 1.2)
    found = sandwich(vae.model, guide, x, exact=exact, num_temperatures=1, num_chains=1)
    covariance = reference.posterior_covariance()
    deviation = covariance.diagonal().sqrt()
    p_z = MultivariateNormal(torch.zeros(2), covariance)
    q_z = MultivariateNormal(0.5 * deviation, (1.2 * deviation).square().diag())
    truth = reference.log_marginal(x)
    assert_mean(truth - found.lower, kl_divergence(q_z, p_z))
    assert_mean(found.upper - truth, kl_divergence(p_z, q_z))


@pytest.mark.parametrize("num_temperatures", [1, 4])
def test_weights_are_unbiased_in_both_directions(reference, vae, num_temperatures):
    """E[w] = p(x) and E[1 / w] = 1 / p(x), with a guide as wide as the posterior, where both have a variance."""
    x, exact = simulated(vae, 4000)
    guide = guide_of(reference, 0.4, 0.9)
    found = sandwich(
        vae.model,
        guide,
        x,
        exact=exact,
        num_temperatures=num_temperatures,
        num_chains=2,
        num_steps=3,
    )
    truth = reference.log_marginal(x)
    for log_ratio in (found.lower - truth, truth - found.upper):
        assert_mean(log_ratio.exp(), 1.0)
        assert log_ratio.mean() < -NUM_ERRORS * standard_error(log_ratio)


@pytest.mark.parametrize("factor", [0.6, pytest.param(2.0, marks=pytest.mark.slow)])
def test_the_bounds_close_on_log_p(reference, vae, factor):
    """From a guide that is shifted, and narrower or twice as wide."""
    x, exact = simulated(vae, 200)
    guide = guide_of(reference, 0.5, factor)
    found = sandwich(vae.model, guide, x, exact=exact, num_temperatures=40, num_steps=2)
    assert_close_bounds(found, reference.log_marginal(x))
    assert ((found.acceptance > 0.3) & (found.acceptance < 1)).all()


def test_the_bounds_close_as_temperatures_are_added(reference, vae):
    x, exact = simulated(vae, 200)
    guide = guide_of(reference, 2.0, 0.5)
    few, some, many = (
        sandwich(vae.model, guide, x, exact=exact, num_temperatures=count) for count in (1, 4, 16)
    )
    for rise in (
        some.lower - few.lower,
        many.lower - some.lower,
        few.upper - some.upper,
        some.upper - many.upper,
    ):
        assert rise.mean() > 3 * standard_error(rise)


@pytest.mark.parametrize(("num_temperatures", "num_chains"), [(2, 8), (5, 8)])
def test_the_error_is_that_of_other_chains(reference, vae, num_temperatures, num_chains):
    """What is found twice differs by √2 of the error that is stated, on average over rows."""
    # The ratio has a noise of 0.05. Failure rate: 1e-4.
    x, _ = simulated(vae, 400)
    guide = guide_of(reference, 1.0, 0.8)
    counts = {"num_temperatures": num_temperatures, "num_chains": num_chains, "num_steps": 2}
    one, other = (sandwich(vae.model, guide, x, **counts) for _ in range(2))
    stated = (one.lower_error**2 + other.lower_error**2).mean().sqrt()
    assert (one.lower - other.lower).square().mean().sqrt() == pytest.approx(stated.item(), rel=0.2)
    assert one.upper is None
    assert one.upper_error is None


def test_one_chain_knows_no_error(vae):
    x, exact = simulated(vae, 3)
    found = sandwich(vae.model, vae.guide, x, exact=exact, num_temperatures=2, num_chains=1)
    assert found.lower_error.isinf().all()
    assert found.upper_error.isinf().all()


@pytest.mark.slow
def test_other_models_and_latents_outside_the_real_numbers():
    """Rows at dim -2; p(x) is Beta-binomial."""
    p = dist.Beta(2.0, 3.0).sample((200, 1))
    x = dist.Binomial(10, p).sample()
    found = sandwich(beta_binomial, beta_guide, x, exact={"p": p}, num_temperatures=20, num_steps=3)
    assert found.lower.shape == (200,)
    assert_close_bounds(found, dist.BetaBinomial(2.0, 3.0, 10).log_prob(x[:, 0]))


def test_contexts_are_passed_on():
    """p(z | y) = N(loc, scale²) and p(x | z, y) = N(a z + b y + c, 0.6²) in one dimension."""
    decoder, encoder = MLP(1, [], 1, context_dim=1), MLP(1, [], (2, 1), context_dim=1)
    vae = VAE(
        ConditionalNormalPrior(1, 1),
        NormalLikelihood(decoder, 1, 0.6),
        DiagNormalPosterior(encoder, 1, 1),
    )
    for parameter in vae.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    y = torch.randn(100, 1)
    with torch.no_grad():
        p_z = vae.prior(y).base_dist
        start, slope = (
            vae.decode(torch.zeros(100, 1), y).mean,
            vae.decode(torch.ones(100, 1), y).mean,
        )
        slope = slope - start
        z = p_z.sample()
        x = vae.decode(z, y).sample()
        variance = slope**2 * p_z.scale**2 + 0.6**2
        truth = dist.Normal(start + slope * p_z.loc, variance.sqrt()).log_prob(x)[:, 0]
    assert_close_bounds(
        sandwich(vae.model, vae.guide, x, y, exact={"z": z}, num_temperatures=40, num_steps=2),
        truth,
    )


def test_lengths_and_steps_of_trajectories_vary(vae, monkeypatch):
    lengths = []
    steps = []

    def look(evaluate, start, step, num_steps):
        lengths.append(num_steps)
        steps.append(step[0, 0].item())
        return hmc_transition(evaluate, start, step, num_steps)

    monkeypatch.setattr(annealing, "hmc_transition", look)
    sandwich(vae.model, vae.guide, torch.zeros(1, 4), num_temperatures=12, num_steps=5)
    assert set(lengths) == {3, 4, 5}
    ratios = torch.tensor(steps[11:]) / torch.tensor(steps[:11])
    assert ratios.std() > 0.02


def test_trajectories_that_leave_the_numbers_are_rejected():
    """The rate exp(exp(z)) overflows in the guide's tails."""

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Poisson(z.exp().exp()), obs=x)

    def guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(0.0, 2.0))

    x = torch.tensor([3.0, 30.0])
    grid = torch.linspace(-8, 6, 100_001).unsqueeze(1)
    log_joint = dist.Normal(0.0, 1.0).log_prob(grid) + dist.Poisson(grid.exp().exp()).log_prob(x)
    truth = log_joint.logsumexp(0) + (grid[1] - grid[0]).log()
    found = sandwich(model, guide, x, num_temperatures=25, num_chains=32)
    assert ((found.lower - truth).abs() < NUM_ERRORS * found.lower_error + 0.05).all()


def test_draws_in_float32_are_enough():
    torch.set_default_dtype(torch.float32)
    reference = LinearGaussian(torch.randn(4, 2), torch.randn(4), scale=0.7)
    vae = linear_gaussian_vae(reference)
    x, exact = simulated(vae, 5)
    found = sandwich(vae.model, vae.guide, x, exact=exact, num_temperatures=4)
    for bound in (found.lower, found.upper):
        torch.testing.assert_close(bound, reference.log_marginal(x).double(), rtol=0, atol=1e-3)


def test_exact_draws_must_be_of_all_latents_and_rows(vae):
    x, _ = simulated(vae, 3)
    with pytest.raises(ValueError, match="'exact' must have a draw of each latent, got none of z"):
        sandwich(vae.model, vae.guide, x, exact={"x": x})
    with pytest.raises(ValueError, match=r"'z' must have the shape \(3, 2\), got \(1, 2\)"):
        sandwich(vae.model, vae.guide, x, exact={"z": torch.zeros(1, 2)})


@pytest.mark.parametrize("count", [0, 2.0])
@pytest.mark.parametrize("name", ["num_temperatures", "num_chains", "num_steps"])
def test_counts_are_checked(vae, name, count):
    with pytest.raises(ValueError, match=f"^'{name}' must be a whole number.*, got {count}"):
        sandwich(vae.model, vae.guide, torch.zeros(1, 4), **{name: count})


def test_exact_draws_may_have_another_precision(vae):
    x, exact = simulated(vae, 3)
    found = []
    for z in (exact["z"].float(), exact["z"].float().double()):
        torch.manual_seed(1)
        found.append(sandwich(vae.model, vae.guide, x, exact={"z": z}, num_temperatures=1).upper)
    torch.testing.assert_close(*found)


def test_a_guide_without_a_density_of_the_latents_is_refused(vae):
    def point_mass(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(torch.zeros(2), event_dim=1))

    def auxiliary(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample(
                "u", dist.Normal(torch.zeros(2), 1.0).to_event(1), infer={"is_auxiliary": True}
            )
            pyro.sample("z", dist.Normal(u, 1.0).to_event(1))

    for guide in (point_mass, auxiliary):
        with pytest.raises(ValueError, match="'guide' must have a density of the model's latents"):
            sandwich(vae.model, guide, torch.zeros(2, 4))


def test_model_and_guide_stay_as_they_were(reference):
    vae = linear_gaussian_vae(reference, ExactPosterior(reference)).train()
    x, exact = simulated(vae, 3)
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    sandwich(vae.model, vae.guide, x, exact=exact, num_temperatures=3)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in vae.parameters())
    assert vae.training
    assert not any(name.startswith("pyro_vae") for name in pyro.get_param_store())
