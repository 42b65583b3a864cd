"""MCMC from a guide: batched HMC and NUTS against posteriors that are known exactly."""

import math
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from models import binary_vae, linear_gaussian_vae
from pyro.infer.autoguide import AutoDelta
from references import LinearGaussian
from torch import nn

from pyro_vae import VAE, Chains, LaplacePrior, MixtureNormalPrior, VampPrior, hmc, nuts

pytestmark = pytest.mark.usefixtures("float64")

# Standard errors, by the chains' own effective sample size: a failure rate of 6e-7 for each number.
NUM_ERRORS = 5.0
NUM_ROWS = 40


@pytest.fixture
def reference():
    return LinearGaussian(torch.randn(4, 3), torch.randn(4), scale=0.8)


def off_guide(reference):
    """Shifted by two deviations, three times too wide in one dimension and three times too narrow in another."""
    deviation = reference.posterior_covariance().diagonal().sqrt()

    def guide(x):
        loc = reference.posterior_loc(x) + 2 * deviation
        with pyro.plate("data", len(x)):
            pyro.sample(
                "z", dist.Normal(loc, deviation * torch.tensor([3.0, 1 / 3, 1.0])).to_event(1)
            )

    return guide


def uneven(x, noise):
    """No VAE, and rows at dim -2: each row has a noise of its own."""
    with pyro.plate("cells", len(x), dim=-2):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("repeats", x.shape[1], dim=-1):
            pyro.sample("x", dist.Normal(z, noise), obs=x)


def uneven_guide(x, noise):
    with pyro.plate("cells", len(x), dim=-2):
        pyro.sample("z", dist.Normal(0.0, 1.0))


def beta_binomial(x):
    with pyro.plate("coins", len(x)):
        p = pyro.sample("p", dist.Beta(2.0, 3.0))
        pyro.sample("x", dist.Binomial(10, p), obs=x)


def beta_guide(x):
    with pyro.plate("coins", len(x)):
        pyro.sample("p", dist.Beta(2.0, 2.0))


def dirichlet_multinomial(x):
    with pyro.plate("dice", len(x)):
        p = pyro.sample("p", dist.Dirichlet(torch.tensor([2.0, 1.0, 3.0])))
        pyro.sample("x", dist.Multinomial(8, p), obs=x)


def dirichlet_guide(x):
    with pyro.plate("dice", len(x)):
        pyro.sample("p", dist.Dirichlet(torch.tensor([3.0, 3.0, 3.0])))


def errors_of_the_mean(chains, name, mean):
    """How many standard errors the chains' mean is off, by their own variance and effective sample size."""
    draws = chains.merged()[name]
    return (draws.mean(0) - mean) * (chains.ess()[name] / draws.var(0)).sqrt()


def errors_over_rows(values):
    """The same of a mean over rows that are independent of each other."""
    return values.mean(0) * len(values) ** 0.5 / values.std(0)


def test_draws_that_swing_are_worth_no_more_than_can_be_told():
    """Independent draws are worth their number, within 25%; of S C draws none are worth more than S C log10(S C)."""
    noise = torch.randn(200, 2)
    swing = torch.tensor([1.0, -1.0]).repeat(100).unsqueeze(1) + 0.1 * noise
    ess = Chains({"noise": noise, "swing": swing}, *3 * [torch.zeros(())]).ess()
    assert 300 < ess["noise"] < 500
    assert ess["swing"] == pytest.approx(400 * math.log10(400))


# HMC


def test_hmc_goes_from_a_wrong_guide_to_the_posterior_of_each_row(reference):
    """Mean and covariance over rows, in units of the exact ones, each at 5 standard errors (Student's t: once in 10^5)."""
    x = torch.randn(NUM_ROWS, 4)
    chains = hmc(
        linear_gaussian_vae(reference).model,
        off_guide(reference),
        x,
        num_warmup=120,
        num_samples=60,
        num_chains=8,
        num_steps=6,
    )
    assert chains.latents["z"].shape == (60, 8, NUM_ROWS, 3)
    whiten = torch.linalg.cholesky(reference.posterior_covariance()).inverse()
    white = (chains.merged()["z"] - reference.posterior_loc(x)) @ whiten.T
    assert errors_over_rows(white.mean(0)).abs().max() < NUM_ERRORS
    excess = torch.einsum("sbd,sbe->bde", white, white) / len(white) - torch.eye(3)
    assert errors_over_rows(excess).abs().max() < NUM_ERRORS
    assert (chains.ess()["z"] > 100).all()
    assert (chains.r_hat()["z"] < 1.05).all()
    assert not chains.num_divergent.any()


@pytest.mark.parametrize("target", [0.6, pytest.param(0.8, marks=pytest.mark.slow)])
def test_as_many_trajectories_are_accepted_as_asked(reference, target):
    x = torch.randn(NUM_ROWS, 4)
    model = linear_gaussian_vae(reference).model
    counts = {"num_warmup": 100, "num_samples": 50, "num_steps": 4}
    chains = hmc(model, off_guide(reference), x, target_accept=target, **counts)
    assert chains.acceptance.shape == chains.step_size.shape == (NUM_ROWS,)
    assert abs(chains.acceptance.mean() - target) < 0.05


def test_each_row_has_a_step_of_its_own():
    """Posteriors that are up to 500 times narrower than the guide, beside one that is as wide as it."""
    noise = torch.tensor([3.0, 0.3, 0.03, 0.003]).reshape(-1, 1)
    x = torch.randn(4, 1) + noise * torch.randn(4, 2)
    counts = {"num_warmup": 120, "num_samples": 100, "num_chains": 16, "num_steps": 5}
    chains = hmc(uneven, uneven_guide, x, noise, **counts)
    precision = 1 + 2 * noise[:, 0] ** -2
    mean = x.sum(1) * noise[:, 0] ** -2 / precision
    assert errors_of_the_mean(chains, "z", mean.reshape(4, 1)).abs().max() < NUM_ERRORS
    square = (chains.merged()["z"][..., 0] - mean) ** 2 * precision
    assert (square.mean(0) - 1).abs().max() < 0.25
    assert (chains.acceptance > 0.6).all()


@pytest.mark.parametrize(
    ("model", "guide", "x", "mean"),
    [
        pytest.param(
            *(beta_binomial, beta_guide, [0.0, 4.0, 10.0], [2 / 15, 6 / 15, 12 / 15]),
            marks=pytest.mark.slow,  # a Dirichlet has all that is difficult with a Beta
        ),
        (
            dirichlet_multinomial,
            dirichlet_guide,
            [[0.0, 0.0, 8.0], [3.0, 4.0, 1.0]],
            [[2 / 14, 1 / 14, 11 / 14], [5 / 14, 5 / 14, 4 / 14]],
        ),
    ],
)
def test_latents_outside_the_real_numbers(model, guide, x, mean):
    chains = hmc(
        model, guide, torch.tensor(x), num_warmup=40, num_samples=40, num_chains=16, num_steps=4
    )
    assert errors_of_the_mean(chains, "p", torch.tensor(mean)).abs().max() < NUM_ERRORS


def test_the_draws_are_those_of_torchs_seed_alone(reference):
    x, vae = torch.randn(2, 4), linear_gaussian_vae(reference)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        chains = hmc(vae.model, off_guide(reference), x, num_samples=3, num_warmup=3, num_steps=3)
        found.append(chains.latents["z"])
        np.random.rand()
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_the_users_param_store_stays_as_it_was(reference):
    def guide(x):
        loc = pyro.param("loc", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    with pyro.get_param_store().scope():
        pyro.param("loc", torch.ones(3))
        for sampler in (hmc, nuts):
            sampler(
                linear_gaussian_vae(reference).model,
                guide,
                torch.randn(2, 4),
                num_samples=3,
                num_warmup=3,
                num_chains=1,
            )
        store = pyro.get_param_store()
        assert set(store.keys()) == {"loc"}
        assert torch.equal(store["loc"].detach(), torch.ones(3))
        assert store["loc"].grad is None


def test_trajectories_that_leave_the_numbers_are_rejected():
    """At the first steps the rate, exp(exp(z)), overflows."""

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 10.0))
            pyro.sample("x", dist.Poisson(z.exp().exp()), obs=x)

    def guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(0.0, 0.7))

    x = torch.tensor([30.0, 1000.0])
    chains = hmc(model, guide, x, num_warmup=100, num_samples=50, num_steps=5)
    mode = x.log().log()
    deviation = 1 / (x.sqrt() * x.log())
    assert ((chains.merged()["z"].mean(0) - mode).abs() < deviation).all()


@pytest.mark.parametrize("num_warmup", [1, 8])
def test_one_chain_and_a_short_warm_up(reference, num_warmup):
    """Windows of one place, or of places that are all the same, say nothing of the scale."""
    chains = hmc(
        linear_gaussian_vae(reference).model,
        off_guide(reference),
        torch.randn(8, 4),
        num_chains=1,
        num_warmup=num_warmup,
        num_samples=5,
    )
    assert ((chains.step_size > 1e-3) & (chains.step_size < 1e3)).all()


def test_divergent_trajectories_are_counted(reference):
    """A warm-up of one transition leaves a step that is too large for a posterior 1000 times narrower than the guide."""
    noise = torch.tensor([[1.0], [1e-3]])
    chains = hmc(uneven, uneven_guide, torch.zeros(2, 2), noise, num_warmup=1, num_samples=20)
    assert chains.num_divergent[0] == 0
    assert chains.num_divergent[1] > 40


@pytest.mark.parametrize("name", ["num_samples", "num_warmup", "num_chains", "num_steps"])
@pytest.mark.parametrize("count", [0, 1.5])
def test_hmc_refuses_counts(reference, name, count):
    with pytest.raises(ValueError, match=f"^'{name}' must be a whole number of at least 1"):
        hmc(
            linear_gaussian_vae(reference).model,
            off_guide(reference),
            torch.zeros(1, 4),
            **{name: count},
        )


@pytest.mark.parametrize("target", [0.0, 1.0, math.nan])
def test_hmc_refuses_what_is_no_probability(reference, target):
    with pytest.raises(ValueError, match=r"'target_accept' must lie in \(0, 1\)"):
        hmc(
            linear_gaussian_vae(reference).model,
            off_guide(reference),
            torch.zeros(1, 4),
            target_accept=target,
        )


def test_a_keyword_of_the_same_name_reaches_a_model_through_partial(reference):
    vae = linear_gaussian_vae(reference)

    def scaled(program, x, num_samples):
        return program(x / num_samples)

    bound = [partial(scaled, program, num_samples=3) for program in (vae.model, vae.guide)]
    x = torch.randn(2, 4)
    counts = {"num_samples": 3, "num_warmup": 2, "num_chains": 2, "num_steps": 3}
    torch.manual_seed(0)
    through = hmc(*bound, x, **counts)
    torch.manual_seed(0)
    plain = hmc(vae.model, vae.guide, x / 3, **counts)
    assert through.latents["z"].shape == (3, 2, 2, 3)
    assert torch.equal(through.latents["z"], plain.latents["z"])


def with_discrete(x):
    with pyro.plate("rows", len(x)):
        pyro.sample("k", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def discrete_guide(x):
    with pyro.plate("rows", len(x)):
        pyro.sample("k", dist.Bernoulli(0.5))


def with_global(x):
    loc = pyro.sample("loc", dist.Normal(1.0, 2.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, 0.5), obs=x)


def global_guide(x):
    pyro.sample("loc", dist.Normal(3.0, 1.0))


@pytest.mark.parametrize("sampler", [hmc, nuts])
def test_discrete_latents_are_refused(sampler):
    with pytest.raises(ValueError, match="'k' is discrete"):
        sampler(with_discrete, discrete_guide, torch.zeros(2))


def test_hmc_refuses_global_latents():
    with pytest.raises(
        ValueError, match="must have all sample sites in one row plate, got 'loc' in no plate"
    ):
        hmc(with_global, global_guide, torch.zeros(2))


# NUTS


def test_nuts_samples_globals():
    """Mean and variance, at 5 standard errors."""
    x = torch.tensor([1.2, 2.9, 0.7, 2.2])
    precision = 2.0**-2 + len(x) * 0.5**-2
    mean = (1.0 * 2.0**-2 + x.sum() * 0.5**-2) / precision
    chains = nuts(with_global, global_guide, x, num_samples=80, num_warmup=30)
    assert chains.latents["loc"].shape == (80, 2)
    assert errors_of_the_mean(chains, "loc", mean).abs() < NUM_ERRORS
    square = (chains.latents["loc"] - mean) ** 2 * precision
    squares = chains._replace(latents={"square": square})
    assert errors_of_the_mean(squares, "square", 1.0).abs() < NUM_ERRORS
    assert chains.r_hat()["loc"] < 1.1
    assert chains.num_divergent == 0
    assert 0.6 < chains.acceptance < 1


@pytest.mark.slow
def test_nuts_samples_locals_of_few_rows():
    noise = torch.tensor([[2.0], [0.2]])
    x = torch.randn(2, 3)
    precision = 1 + 3 * noise**-2
    mean = x.sum(1, keepdim=True) * noise**-2 / precision
    chains = nuts(uneven, uneven_guide, x, noise, num_samples=80, num_warmup=40)
    assert chains.latents["z"].shape == (80, 2, 2, 1)
    assert errors_of_the_mean(chains, "z", mean).abs().max() < NUM_ERRORS
    squares = chains._replace(latents={"z": (chains.latents["z"] - mean) ** 2 * precision})
    assert errors_of_the_mean(squares, "z", 1.0).abs().max() < NUM_ERRORS
    assert chains.num_divergent == 0


def poisson_gamma(x):
    with pyro.plate("rows", len(x)):
        rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
        pyro.sample("x", dist.Poisson(rate), obs=x)


def gamma_guide(x):
    with pyro.plate("rows", len(x)):
        pyro.sample("rate", dist.Gamma(2.0, 2.0))


@pytest.mark.slow
def test_nuts_samples_latents_outside_the_real_numbers():
    """By a caller who takes no gradients. Without its Jacobian the density of the first row would have no integral."""
    x = torch.tensor([0.0, 3.0])
    with torch.no_grad():
        chains = nuts(poisson_gamma, gamma_guide, x, num_samples=100, num_warmup=40, num_chains=1)
    assert errors_of_the_mean(chains, "rate", (1 + x) / 2).abs().max() < NUM_ERRORS


def test_nuts_has_as_many_chains_as_asked():
    chains = nuts(
        with_global, global_guide, torch.zeros(2), num_samples=4, num_warmup=4, num_chains=3
    )
    assert chains.latents["loc"].shape == (4, 3)
    assert len(chains.latents["loc"][0].unique()) == 3
    assert torch.equal(chains.merged()["loc"].reshape(4, 3), chains.latents["loc"])


@pytest.mark.parametrize("name", ["num_samples", "num_warmup", "num_chains"])
def test_nuts_refuses_counts(name):
    with pytest.raises(ValueError, match=f"^'{name}' must be a whole number of at least 1"):
        nuts(with_global, global_guide, torch.zeros(2), **{name: 0})


def test_nuts_refuses_a_guide_of_other_latents():
    with pytest.raises(
        ValueError, match="'model' must have all latent sites of the guide, but has no 'loc'"
    ):
        nuts(beta_binomial, global_guide, torch.zeros(2))


@pytest.mark.parametrize("num_warmup", [1, 12])
def test_a_short_warm_up_leaves_steps_that_are_accepted(num_warmup):
    vae = binary_vae()
    chains = hmc(vae.model, vae.guide, vae.sample(20), num_samples=20, num_warmup=num_warmup)
    assert chains.acceptance.min() > 0.5


def test_a_density_that_changes_from_call_to_call_is_refused():
    vae = binary_vae()
    vae.likelihood.network.layers.append(nn.Dropout(0.5))
    x = vae.sample(3)
    with pytest.raises(
        ValueError, match="^'model' must give the same density .* training mode with dropout"
    ):
        hmc(vae.model, vae.guide, x, num_samples=2, num_warmup=2)
    assert hmc(vae.eval().model, vae.guide, x, num_samples=2, num_warmup=2).acceptance.min() > 0


@pytest.mark.parametrize(
    "prior", [partial(MixtureNormalPrior, 2, 3), partial(VampPrior, 2, 3), partial(LaplacePrior, 2)]
)
def test_every_kind_of_prior_can_be_sampled(prior):
    vae = binary_vae()
    vae = VAE(prior(), vae.likelihood, vae.posterior)
    x = vae.sample(3)
    found = hmc(vae.model, vae.guide, x, num_samples=10, num_warmup=20, num_steps=4)
    assert found.acceptance.min() > 0.5


@pytest.mark.slow
def test_a_prior_that_shares_the_guides_network_can_be_sampled_by_nuts():
    vae = binary_vae()
    vae = VAE(VampPrior(2, 3), vae.likelihood, vae.posterior)
    x = vae.sample(1)
    assert (
        nuts(vae.model, vae.guide, x, num_samples=20, num_warmup=80, num_chains=1).acceptance > 0.3
    )


def test_no_rows_are_refused():
    vae = binary_vae()
    with pytest.raises(ValueError, match="^'x' must have at least one row, got none"):
        hmc(vae.model, vae.guide, torch.zeros(0, 1, 4, 4))


def test_nuts_starts_at_a_point_too():
    def model(x):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    with pyro.get_param_store().scope():
        chains = nuts(
            model, AutoDelta(model), torch.ones(3), num_samples=50, num_warmup=30, num_chains=1
        )
    assert chains.latents["loc"].mean().item() == pytest.approx(0.75, abs=0.3)


def test_r_hat_of_too_few_draws_is_refused_in_a_sentence():
    chains = Chains({"z": torch.zeros(3, 2, 5)}, torch.ones(5), torch.ones(()), torch.zeros(5))
    with pytest.raises(
        ValueError, match=r"^'num_samples' must be 4 or more for split R-hat, got 3\.$"
    ):
        chains.r_hat()
