"""Draws with weights by row, against posteriors that are known in closed form, for VAEs and for any other Pyro program."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from models import linear, linear_gaussian_vae
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal
from references import LinearGaussian
from torch import nn

from pyro_vae import (
    DiagNormalPosterior,
    Posterior,
    hmc,
    importance_sample,
    log_weights,
    pareto_smooth,
)
from pyro_vae.diagnostics import sandwich
from pyro_vae.inference import importance as correction
from pyro_vae.inference.given_latents import log_density
from pyro_vae.inference.programs import Programs
from pyro_vae.inference.row_plate import RowPlate
from pyro_vae.inference.sites import sample_sites

pytestmark = pytest.mark.usefixtures("float64")


class WidePosterior(Posterior):
    """Independent normals, away from the posterior of a linear-Gaussian model and wider than it."""

    def __init__(self, reference):
        super().__init__(nn.Identity(), len(reference.bias), reference.weight.shape[1])
        self.reference = reference

    def forward(self, x, y=None):
        scale = self.reference.posterior_covariance().diagonal().sqrt()
        return dist.Normal(self.reference.posterior_loc(x) + 0.3 * scale, 1.3 * scale).to_event(1)


@pytest.fixture
def reference():
    return LinearGaussian(torch.randn(5, 2), torch.randn(5), 0.7)


class Measurements:
    """J numbers of a row around its own mean, and J counts at its own rate, with the exact posterior as guide.

    z ~ N(0, 1), x_j ~ N(z, 0.7²); rate ~ Gamma(2, 3), n_j ~ Poisson(rate): x and n have the shape (J, B), or (B, J) where
    the plate of the rows is at dim -2. Entries outside the mask do not enter.
    """

    def __init__(self, num_rows, num_inner, row_dim):
        self.row_dim, self.inner_dim = row_dim, -3 - row_dim
        self.num_rows, self.num_inner = num_rows, num_inner
        shape = (num_inner, num_rows) if row_dim == -1 else (num_rows, num_inner)
        self.x, self.counts = torch.randn(shape), torch.poisson(torch.ones(shape))
        self.mask = torch.rand(shape) < 0.7

    def total(self, values):
        return (values * self.mask).sum(self.inner_dim, keepdim=True)

    def model(self):
        with pyro.plate("rows", self.num_rows, dim=self.row_dim):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            rate = pyro.sample("rate", dist.Gamma(2.0, 3.0))
            with (
                pyro.plate("inner", self.num_inner, dim=self.inner_dim),
                poutine.mask(mask=self.mask),
            ):
                pyro.sample("x", dist.Normal(z, 0.7), obs=self.x)
                pyro.sample("counts", dist.Poisson(rate), obs=self.counts)

    def posterior(self):
        number = self.total(torch.ones(()))
        precision = 1 + number / 0.7**2
        q_z = dist.Normal(self.total(self.x) / 0.7**2 / precision, precision**-0.5)
        return q_z, dist.Gamma(2 + self.total(self.counts), 3 + number)

    def guide(self):
        q_z, q_rate = self.posterior()
        with pyro.plate("rows", self.num_rows, dim=self.row_dim):
            pyro.sample("rate", q_rate)
            pyro.sample("z", q_z)

    def wide_guide(self):
        q_z, q_rate = self.posterior()
        with pyro.plate("rows", self.num_rows, dim=self.row_dim):
            pyro.sample("rate", dist.Gamma(0.8 * q_rate.concentration, 0.8 * q_rate.rate))
            pyro.sample("z", dist.Normal(q_z.loc + 0.1, 1.2 * q_z.scale))

    def log_marginal(self):
        """By p(x) = p(x, z) / p(z | x) at one z."""
        z, rate = torch.tensor(0.3), torch.tensor(0.6)
        q_z, q_rate = self.posterior()
        likelihood = dist.Normal(z, 0.7).log_prob(self.x) + dist.Poisson(rate).log_prob(self.counts)
        log_joint = (
            self.total(likelihood)
            + dist.Normal(0.0, 1.0).log_prob(z)
            + dist.Gamma(2.0, 3.0).log_prob(rate)
        )
        return (log_joint - q_z.log_prob(z) - q_rate.log_prob(rate)).flatten()


@pytest.fixture(params=[-1, -2])
def measurements(request):
    return Measurements(num_rows=4, num_inner=3, row_dim=request.param)


def assert_exact(draws, log_marginal, num_samples):
    assert (draws.khat == 0).all()
    torch.testing.assert_close(draws.log_marginal, log_marginal, atol=1e-10, rtol=0)
    torch.testing.assert_close(
        draws.log_weights, log_marginal.expand(num_samples, -1), atol=1e-10, rtol=0
    )
    torch.testing.assert_close(
        draws.weights, torch.full_like(draws.weights, 1 / num_samples), atol=1e-10, rtol=0
    )
    torch.testing.assert_close(
        draws.ess, torch.full_like(draws.ess, num_samples), atol=1e-8, rtol=0
    )


# The exact posterior


@pytest.mark.parametrize("num_samples", [2, 10, 300])
def test_with_the_exact_posterior_every_draw_has_the_same_weight(reference, num_samples):
    vae, x = linear_gaussian_vae(reference), torch.randn(6, 5)
    draws = importance_sample(vae.model, vae.guide, x, num_samples=num_samples)
    assert draws.latents["z"].shape == (num_samples, 6, 2)
    assert_exact(draws, reference.log_marginal(x), num_samples)


def test_other_programs_are_exact_too_with_a_plate_inside_and_masks(measurements):
    draws = importance_sample(measurements.model, measurements.guide, num_samples=50)
    assert {name: value.shape for name, value in draws.latents.items()} == {
        "z": (50, 4, 1),
        "rate": (50, 4, 1),
    }
    assert_exact(draws, measurements.log_marginal(), 50)


def test_latents_and_weights_are_of_the_same_rows(measurements):
    draws = importance_sample(measurements.model, measurements.wide_guide, num_samples=30)
    q_z, q_rate = measurements.posterior()
    z, rate = draws.latents["z"].squeeze(-1), draws.latents["rate"].squeeze(-1)
    loc, scale, a, b = (
        v.flatten()
        for v in (q_z.loc + 0.1, 1.2 * q_z.scale, 0.8 * q_rate.concentration, 0.8 * q_rate.rate)
    )
    exact = dist.Normal(q_z.loc.flatten(), q_z.scale.flatten()).log_prob(z)
    exact = exact + dist.Gamma(q_rate.concentration.flatten(), q_rate.rate.flatten()).log_prob(rate)
    drawn = dist.Normal(loc, scale).log_prob(z) + dist.Gamma(a, b).log_prob(rate)
    expected = measurements.log_marginal() + exact - drawn
    torch.testing.assert_close(draws.log_weights, expected, atol=1e-10, rtol=0)


def test_a_latent_in_the_inner_plate_has_its_rows_second(measurements):
    number = torch.arange(4.0)

    def program():
        with pyro.plate("rows", 4, dim=measurements.row_dim):
            row = pyro.sample(
                "row", dist.Normal(number.reshape(-1, *(1,) * (-1 - measurements.row_dim)), 1e-9)
            )
            with pyro.plate("inner", 3, dim=measurements.inner_dim):
                pyro.sample("z", dist.Normal(row, 1e-9))
                pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    latents = importance_sample(program, program, num_samples=5).latents
    assert {name: value.shape[1:] for name, value in latents.items()} == {
        "row": (4, 1),
        "z": (4, 3),
        "w": (4, 3, 2),
    }
    torch.testing.assert_close(
        latents["z"], number.reshape(4, 1).expand(5, 4, 3), atol=1e-7, rtol=0
    )


def test_discrete_latents_are_drawn(float64):
    probs, rates = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([1.0, 4.0, 9.0])
    counts = torch.tensor([0.0, 3.0, 5.0, 12.0])
    joint = probs.log() + dist.Poisson(rates).log_prob(counts.unsqueeze(-1))

    def model():
        with pyro.plate("rows", 4):
            k = pyro.sample("k", dist.Categorical(probs), infer={"enumerate": "parallel"})
            pyro.sample("counts", dist.Poisson(rates[k]), obs=counts)

    def guide(logits=joint):
        with pyro.plate("rows", 4):
            pyro.sample("k", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})

    assert_exact(importance_sample(model, guide, num_samples=60), joint.logsumexp(-1), 60)
    # Failure rate: below 1e-5 for each of 12 (5 standard errors), at a fixed seed.
    draws = importance_sample(model, lambda: guide(0.7 * joint), num_samples=4000)
    is_k = draws.latents["k"].unsqueeze(-1) == torch.arange(3)
    expected = joint.softmax(-1)
    assert (
        (draws.expectation(is_k) - expected).abs() <= 5 * draws.standard_error(is_k) + 1e-3
    ).all()
    mean = (expected * torch.arange(3)).sum(-1)
    found = draws.expectation(draws.latents["k"])
    assert ((found - mean).abs() <= 5 * draws.standard_error(draws.latents["k"]) + 1e-3).all()


def test_a_discrete_latent_that_is_to_be_summed_out_is_refused():
    def model():
        with pyro.plate("rows", 4):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("k", dist.Categorical(torch.ones(3)), infer={"enumerate": "parallel"})

    def guide():
        with pyro.plate("rows", 4):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(
        ValueError, match="'guide' must have all latent sites of the model, but has no 'k'"
    ):
        importance_sample(model, guide, num_samples=10)


# A guide that is not exact


def test_expectations_are_within_their_errors_and_the_errors_are_the_spread_over_repetitions(
    reference,
):
    # 1500 rows with the same x are 1500 repetitions. Failure rate: below 1e-5 (5 standard errors; the spread itself is known
    # to 1.8 %, and the delta method to some per cent at 200 draws).
    vae, x = (
        linear_gaussian_vae(reference, WidePosterior(reference)),
        torch.randn(5).expand(1500, 5),
    )
    draws = importance_sample(vae.model, vae.guide, x, num_samples=200)
    z = draws.latents["z"]
    mean, error = draws.expectation(z), draws.standard_error(z)
    assert mean.shape == error.shape == (1500, 2)
    torch.testing.assert_close(
        mean.std(0) / (error**2).mean(0).sqrt(), torch.ones(2), atol=0.12, rtol=0
    )
    exact = reference.posterior_loc(x[:1])
    within = ((mean - exact).abs() < 5 * error).double().mean()
    assert within > 0.999
    # What is left of the guide's 0.3 standard deviations is the bias of order 1 / S.
    scale = reference.posterior_covariance().diagonal().sqrt()
    assert (((mean.mean(0) - exact) / scale).abs() < 0.01 + 5 / (1500 * 50) ** 0.5).all()


def test_values_may_have_any_shape_after_draws_and_rows(reference):
    vae = linear_gaussian_vae(reference, WidePosterior(reference))
    draws = importance_sample(vae.model, vae.guide, torch.randn(3, 5), num_samples=40)
    values = torch.randn(40, 3, 2, 4)
    expected = torch.einsum("sb,sbij->bij", draws.weights, values)
    torch.testing.assert_close(draws.expectation(values), expected)
    torch.testing.assert_close(draws.expectation(values[:, :, 0, 0]), expected[:, 0, 0])
    square = torch.einsum("sb,sbij->bij", draws.weights**2, (values - expected) ** 2)
    torch.testing.assert_close(draws.standard_error(values), square.sqrt())


def test_whether_something_holds_has_a_probability(reference):
    vae = linear_gaussian_vae(reference, WidePosterior(reference))
    draws = importance_sample(vae.model, vae.guide, torch.randn(3, 5), num_samples=400)
    holds = draws.latents["z"] > 0
    torch.testing.assert_close(draws.expectation(holds), draws.expectation(holds.double()))
    torch.testing.assert_close(draws.standard_error(holds), draws.standard_error(holds.double()))


def test_single_precision_stays_single_precision(reference):
    vae = linear_gaussian_vae(reference, WidePosterior(reference)).float()
    vae.posterior.reference = LinearGaussian(reference.weight.float(), reference.bias.float(), 0.7)
    vae.posterior.reference.precision = reference.precision.float()
    draws = importance_sample(vae.model, vae.guide, torch.randn(3, 5).float(), num_samples=40)
    assert draws.log_weights.dtype == draws.expectation(draws.latents["z"]).dtype == torch.float32


def test_other_shapes_of_values_are_refused(reference):
    vae = linear_gaussian_vae(reference)
    draws = importance_sample(vae.model, vae.guide, torch.randn(3, 5), num_samples=40)
    with pytest.raises(
        ValueError,
        match=r"'values' must have the shape \(draws, rows, ...\) = .*40, 3.*got \(3, 40\)",
    ):
        draws.expectation(torch.zeros(3, 40))
    with pytest.raises(ValueError, match="'num_draws' must be a whole number of at least 1, got 0"):
        draws.resample(0)
    with pytest.raises(
        ValueError, match="'num_samples' must be a whole number of at least 1, got 0"
    ):
        importance_sample(vae.model, vae.guide, torch.randn(3, 5), num_samples=0)


def test_resampled_draws_have_the_mean_and_the_covariance_of_the_posterior(reference):
    # Failure rate: below 1e-5 for each of 15 numbers (5 standard errors of a mean and of a covariance), at a fixed seed.
    vae, x = linear_gaussian_vae(reference, WidePosterior(reference)), torch.randn(3, 5)
    draws = importance_sample(vae.model, vae.guide, x, num_samples=8000)
    z = draws.resample(5000)["z"]
    assert z.shape == (5000, 3, 2)
    centred, covariance = z - reference.posterior_loc(x), reference.posterior_covariance()
    share = (1 / draws.ess + 1 / 5000).reshape(3, 1, 1)
    variance = covariance.diagonal()
    assert (centred.mean(0).abs() < 5 * (variance * share[..., 0]).sqrt()).all()
    found = torch.einsum("sbi,sbj->bij", centred, centred) / 5000
    error = ((variance.unsqueeze(1) * variance + covariance**2) * share).sqrt()
    assert ((found - covariance).abs() < 5 * error).all()


def test_resampled_latents_stay_together_and_with_their_row(measurements):
    draws = importance_sample(measurements.model, measurements.wide_guide, num_samples=20)
    again = draws.resample(7)
    for row in range(4):
        drawn = set(
            zip(
                draws.latents["z"][:, row, 0].tolist(),
                draws.latents["rate"][:, row, 0].tolist(),
                strict=True,
            )
        )
        for pair in zip(
            again["z"][:, row, 0].tolist(), again["rate"][:, row, 0].tolist(), strict=True
        ):
            assert pair in drawn


def test_weights_and_khat_are_those_of_each_row_alone(measurements):
    draws = importance_sample(measurements.model, measurements.wide_guide, num_samples=300)
    for row in range(4):
        alone = pareto_smooth(draws.log_weights[:, [row]])
        torch.testing.assert_close(alone.khat, draws.khat[[row]], atol=1e-6, rtol=0)
        torch.testing.assert_close(
            alone.log_weights.exp(), draws.weights[:, [row]], atol=1e-6, rtol=0
        )
    expected = draws.log_weights.exp().mean(0).log()
    torch.testing.assert_close(draws.log_marginal, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(draws.ess, 1 / (draws.weights**2).sum(0), atol=1e-10, rtol=0)


@pytest.mark.parametrize(("scale", "low", "high"), [(0.5, 0.86, 3.0), (1.05, -3.0, 0.5)])
def test_khat_finds_a_narrow_guide_and_not_one_that_is_a_little_wide(scale, low, high):
    # 20 independent latents. Mean of 30 rows, and every one of them on its side of 0.7. Fixed seed.
    def program(scale):
        with pyro.plate("rows", 30):
            pyro.sample("z", dist.Normal(torch.zeros(20), scale).to_event(1))

    khat = importance_sample(lambda: program(1.0), lambda: program(scale), num_samples=2000).khat
    assert low < khat.mean() < high
    assert ((khat > 0.7) == (scale < 1)).all()


# What enters the weights


def test_scales_a_kl_weight_and_subsampled_plates_do_not_enter(reference, measurements):
    vae, x = linear_gaussian_vae(reference, WidePosterior(reference)), torch.randn(3, 5)

    def weights(model, guide, *args, **kwargs):
        torch.manual_seed(3)
        return importance_sample(model, guide, *args, num_samples=30, **kwargs).log_weights

    plain = weights(vae.model, vae.guide, x)
    assert (weights(vae.model, vae.guide, x, kl_weight=0.2, size=1000) == plain).all()
    scaled = (
        poutine.scale(program, scale=0.3) for program in (measurements.model, measurements.guide)
    )
    assert_exact(importance_sample(*scaled, num_samples=40), measurements.log_marginal(), 40)


def test_a_row_that_is_masked_in_full_has_the_log_marginal_0():
    mask = torch.tensor([True, False, True])

    def program():
        with pyro.plate("rows", 3), poutine.mask(mask=mask):
            pyro.sample("z", dist.Normal(0.0, 2.0))

    def model():
        with pyro.plate("rows", 3), poutine.mask(mask=mask):
            z = pyro.sample("z", dist.Normal(0.0, 2.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.full((3,), math.pi))

    draws = importance_sample(model, program, num_samples=40)
    assert ((draws.log_weights == 0).all(0) == ~mask).all()


def test_an_autoguide_inside_the_row_plate_is_weighed_by_its_density():
    x = torch.randn(4).exp()

    def model():
        with pyro.plate("rows", 4):
            rate = pyro.sample("rate", dist.Gamma(2.0, 3.0))
            loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Exponential(rate * loc.exp().sum(-1)), obs=x)

    with pyro.get_param_store().scope():
        guide = AutoNormal(model, init_scale=0.3)
        draws = importance_sample(model, guide, num_samples=50)
        rates, locs = guide.locs.rate.detach(), guide.locs.loc.detach()
    assert set(draws.latents) == {"rate", "loc"}  # and not what they were made of
    rate, loc = draws.latents["rate"], draws.latents["loc"]
    assert (rate.shape, loc.shape) == ((50, 4), (50, 4, 2))
    log_p = dist.Gamma(2.0, 3.0).log_prob(rate) + dist.Normal(0.0, 1.0).log_prob(loc).sum(-1)
    log_p = log_p + dist.Exponential(rate * loc.exp().sum(-1)).log_prob(x)
    log_q = dist.LogNormal(rates, 0.3).log_prob(rate) + dist.Normal(locs, 0.3).log_prob(loc).sum(-1)
    torch.testing.assert_close(draws.log_weights, log_p - log_q, atol=1e-10, rtol=0)


# Draws in several passes


def test_bounded_memory_changes_neither_shapes_nor_laws(reference, monkeypatch):
    vae, x = linear_gaussian_vae(reference, WidePosterior(reference)), torch.randn(3, 5)
    numbers = []

    def guide(x):
        z = vae.guide(x)
        numbers.append(z.shape[:-1].numel())
        return z

    monkeypatch.setattr(correction, "_CHUNK", 3 * 300 + 1)
    draws = importance_sample(vae.model, guide, x, num_samples=2000)
    assert numbers[-7:] == 6 * [900] + [600]
    assert max(numbers[:-7]) <= 2 * 3  # to be looked at
    z = draws.latents["z"]
    assert (z.shape, draws.weights.shape, draws.log_weights.shape) == (
        (2000, 3, 2),
        (2000, 3),
        (2000, 3),
    )
    assert len(z[:, 0, 0].unique()) == 2000
    # Failure rate: below 1e-5 for each of 6 (5 standard errors), at a fixed seed.
    error = draws.standard_error(z)
    assert ((draws.expectation(z) - reference.posterior_loc(x)).abs() < 5 * error).all()
    p_x_z = vae.decode(z).log_prob(x) + vae.prior().log_prob(z) - vae.encode(x).log_prob(z)
    torch.testing.assert_close(draws.log_weights, p_x_z.detach(), atol=1e-10, rtol=0)


def test_one_draw_at_a_time_is_the_least(reference, monkeypatch):
    monkeypatch.setattr(correction, "_CHUNK", 1)
    vae, x = linear_gaussian_vae(reference), torch.randn(3, 5)
    assert_exact(
        importance_sample(vae.model, vae.guide, x, num_samples=4), reference.log_marginal(x), 4
    )


# What is left behind


def test_the_param_store_is_left_as_found_and_nothing_has_a_gradient(reference):
    posterior = DiagNormalPosterior(linear(torch.randn(4, 5), torch.zeros(4)), 5, 2)
    vae, other = linear_gaussian_vae(reference, posterior), linear_gaussian_vae(reference)
    Trace_ELBO().loss(other.model, other.guide, torch.randn(2, 5))
    before = dict(pyro.get_param_store().items())
    draws = importance_sample(vae.model, vae.guide, torch.randn(3, 5), num_samples=10)
    after = dict(pyro.get_param_store().items())
    assert after.keys() == before.keys()
    assert all(after[name] is value for name, value in before.items())
    assert not any(
        value.requires_grad for value in (draws.weights, draws.log_weights, draws.latents["z"])
    )


# Which plate


def test_the_plate_and_the_nesting_are_found(reference, measurements):
    vae, x = linear_gaussian_vae(reference), torch.randn(6, 5)
    assert Programs(vae.model, vae.guide, (x,), {}).row_plate() == RowPlate(6, -1, 1)
    programs = Programs(measurements.model, measurements.guide, (), {})
    assert programs.row_plate() == RowPlate(4, measurements.row_dim, 2)

    def deep():
        with pyro.plate("rows", 3, dim=-2):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("far", 5, dim=-4), pyro.plate("near", 2, dim=-1):
                pyro.sample("w", dist.Normal(0.0, 1.0))

    assert Programs(deep, deep, (), {}).row_plate() == RowPlate(3, -2, 4)
    latents = importance_sample(deep, deep, num_samples=7).latents
    assert (latents["z"].shape, latents["w"].shape) == ((7, 3, 1, 1, 1), (7, 3, 5, 1, 2))


def test_rows_go_second_and_back():
    values = torch.randn(7, 5, 1, 3, 2, 6)  # draws, far, none, rows, near; event
    plate = RowPlate(3, -2, 4)
    assert (plate.rows_second(values) == values.permute(0, 3, 1, 2, 4, 5)).all()
    assert (plate.rows_in_place(plate.rows_second(values)) == values).all()


def refused(program, sentence):
    with pytest.raises(ValueError, match=sentence):
        importance_sample(program, program, num_samples=10)


def test_a_latent_for_all_rows_is_refused():
    def program():
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 3):
            pyro.sample("z", dist.Normal(loc, 1.0))

    refused(
        program, "must have all sample sites in one row plate, got 'loc' in no plate, 'z' in rows"
    )


def test_two_plates_for_all_sites_are_refused():
    def program():
        with pyro.plate("rows", 3, dim=-1), pyro.plate("groups", 2, dim=-2):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    refused(
        program, "must have all sample sites in one row plate, got all of them in groups and rows"
    )


@pytest.mark.parametrize("num_rows", [1, 3])
def test_rows_one_after_another_are_refused(num_rows):
    def program():
        for row in pyro.plate("rows", num_rows):
            pyro.sample(f"z_{row}", dist.Normal(0.0, 1.0))

    refused(
        program,
        "must have a vectorised row plate, got the sequential one rows|all sample sites in one row plate",
    )


@pytest.mark.parametrize("name", ["rows", "inner"])
def test_rows_that_are_chosen_at_random_are_refused(name):
    # Each run would have others.
    def program():
        with pyro.plate("rows", 9, dim=-1, subsample_size=4 if name == "rows" else None):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("inner", 5, dim=-2, subsample_size=3 if name == "inner" else None):
                pyro.sample("w", dist.Normal(0.0, 1.0))

    refused(
        program,
        f"must take the same rows whenever they run, but '{name}' chooses (3 of 5|4 of 9) at random",
    )


def test_rows_that_are_chosen_beforehand_are_taken():
    x = torch.randn(9)

    def program(obs=None, scale=1.0):
        with pyro.plate("rows", 9, subsample=torch.tensor([1, 5, 7])) as rows:
            pyro.sample("z", dist.Normal(x[rows], scale))

    draws = importance_sample(program, lambda: program(scale=1.1), num_samples=200)
    assert draws.khat.shape == (3,)
    z = draws.latents["z"]
    expected = dist.Normal(x[[1, 5, 7]], 1.0).log_prob(z) - dist.Normal(x[[1, 5, 7]], 1.1).log_prob(
        z
    )
    torch.testing.assert_close(draws.log_weights, expected)


def test_weights_that_are_not_numbers_are_refused():
    def guide():
        with pyro.plate("rows", 3):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    def model():
        with pyro.plate("rows", 3):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("plus", z + math.inf)
            pyro.factor("minus", z - math.inf)

    with pytest.raises(
        ValueError, match="'log_weights' must be less than infinity, .* got others in 3 of 3 rows"
    ):
        importance_sample(model, guide, num_samples=10)


# Densities where latents have given values


@pytest.mark.parametrize("part", ["model", "guide", "wide_guide"])
def test_the_log_density_is_the_sum_of_the_sites_by_row(measurements, part):
    program = getattr(measurements, part)
    plate = Programs(measurements.model, measurements.guide, (), {}).row_plate()
    shape = (6, 1, 4) if measurements.row_dim == -1 else (6, 4, 1)
    latents = {"z": torch.randn(shape), "rate": torch.rand(shape) + 0.1}
    found = log_density(poutine.scale(program, scale=0.3), latents, plate)
    assert found.shape == (6, 4)
    for draw_number in range(6):
        data = {name: value[draw_number] for name, value in latents.items()}
        trace = poutine.trace(poutine.condition(program, data=data)).get_trace()
        trace.compute_log_prob()
        dim = measurements.inner_dim
        sites = [site["log_prob"].sum(dim).flatten() for site in sample_sites(trace)]
        torch.testing.assert_close(found[draw_number], sum(sites), atol=1e-10, rtol=0)


def test_log_joint_less_log_guide_is_the_log_weight(measurements):
    programs = Programs(measurements.model, measurements.wide_guide, (), {})
    plate = programs.row_plate()
    draws = programs.draw(9, plate.max_plate_nesting)
    latents = {site["name"]: site["value"] for site in draws.latents}
    parts = (measurements.model, measurements.wide_guide)
    log_p, log_q = (log_density(program, latents, plate) for program in parts)
    torch.testing.assert_close(log_p - log_q, draws.log_weights().reshape(9, 4), atol=1e-10, rtol=0)
    by_site = sum(
        draws.by_row([(site, site["fn"].log_prob(site["value"]))]) for site in draws.latents
    )
    torch.testing.assert_close(log_q, by_site.reshape(9, 4), atol=1e-10, rtol=0)


def test_a_keyword_of_the_same_name_reaches_a_model_through_partial():
    """z ~ N(num_samples, 1), x ~ N(z, 1) at x = 0, with the prior as guide."""

    def guide(x, num_samples):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(float(num_samples), 1.0))

    def model(x, num_samples):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(float(num_samples), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    bound = (partial(model, num_samples=3), partial(guide, num_samples=3))
    x = torch.zeros(2)
    draws = importance_sample(*bound, x, num_samples=40)
    z = draws.latents["z"]
    assert z.shape == (40, 2)
    torch.testing.assert_close(draws.log_weights, dist.Normal(z, 1.0).log_prob(x))
    assert log_weights(*bound, x, num_samples=40).shape == (40, 2)


def test_the_log_density_of_a_vae_has_gradients(reference):
    vae, x = linear_gaussian_vae(reference), torch.randn(4, 5)
    z = torch.randn(6, 4, 2, requires_grad=True)
    plate = Programs(vae.model, vae.guide, (x,), {}).row_plate()
    parts = (partial(vae.model, x), partial(vae.guide, x))
    log_p, log_q = (log_density(program, {"z": z}, plate) for program in parts)
    torch.testing.assert_close(
        log_p - log_q, reference.log_marginal(x).expand(6, 4), atol=1e-10, rtol=0
    )
    (gradient,) = torch.autograd.grad(log_p.sum(), z)
    expected = (reference.posterior_loc(x) - z) @ reference.posterior_covariance().inverse()
    torch.testing.assert_close(gradient, expected.detach(), atol=1e-8, rtol=0)


def test_a_latent_without_a_value_is_refused():
    # An AutoGuide draws something else first, so that its density at a given value is not at hand.
    def guide():
        with pyro.plate("rows", 3):
            u = pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(u.exp(), log_density=-u))

    with pytest.raises(
        ValueError,
        match="must have a value for each latent of the program, but there is none for 'u'",
    ):
        log_density(guide, {"z": torch.rand(5, 3)}, RowPlate(3, -1, 1))


def test_a_guide_without_a_density_is_refused():
    vae = linear_gaussian_vae(LinearGaussian(torch.randn(5, 3), torch.randn(5), 0.7))

    x = torch.randn(3, 5)
    with pyro.get_param_store().scope():
        guide = AutoDelta(poutine.block(vae.model, hide=["x"]))
        with pytest.raises(
            ValueError,
            match=r"^'guide' must have a density of the model's latents, got a point for 'z'\.$",
        ):
            importance_sample(vae.model, guide, x, num_samples=30)


# Globals


def with_offset(x):
    """An offset that all rows share, and a latent of each row: z ~ N(offset, 1), x ~ N(z, 1)."""
    offset = pyro.sample("offset", dist.Normal(0.0, 10.0))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(offset, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def local_guide(x):
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 1.0))


def test_globals_that_are_given_are_no_part_of_the_weights():
    x = torch.randn(4)
    given = poutine.condition(with_offset, {"offset": torch.tensor(0.7)})
    draws = importance_sample(given, local_guide, x, num_samples=20_000)
    torch.testing.assert_close(
        draws.log_marginal, dist.Normal(0.7, 2**0.5).log_prob(x), atol=0.05, rtol=0
    )
    # 5 standard errors: once in two million.
    error = (draws.expectation(draws.latents["z"]) - (x + 0.7) / 2) / draws.standard_error(
        draws.latents["z"]
    )
    assert error.abs().max() < 5
    chains = hmc(given, local_guide, x, num_samples=100, num_warmup=50)
    assert (chains.merged()["z"].mean(0) - (x + 0.7) / 2).abs().max() < 0.15
    bounds = sandwich(given, local_guide, x, num_temperatures=20)
    torch.testing.assert_close(bounds.lower, dist.Normal(0.7, 2**0.5).log_prob(x), atol=0.3, rtol=0)


def test_globals_that_are_drawn_are_refused():
    with pytest.raises(
        ValueError, match="'guide' must have all latent sites of the model, but has no 'offset'"
    ):
        importance_sample(with_offset, local_guide, torch.randn(4), num_samples=30)


def test_what_is_observed_of_all_rows_together_is_refused():
    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        pyro.sample("total", dist.Normal(z.sum(), 1.0), obs=torch.tensor(1.0))

    with pytest.raises(ValueError, match="in one row plate, got .*'total' in no plate"):
        importance_sample(model, local_guide, torch.randn(4), num_samples=30)
