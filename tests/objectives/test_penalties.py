"""Objectives with another rate than the ELBO's, against their formulas at the same draws."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from models import binary_vae
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from references import kl_from_standard_normal, normal

from pyro_vae import (
    MLP,
    VAE,
    CapacityELBO,
    ConstantKL,
    Execution,
    FreeBitsELBO,
    FullNormalPosterior,
    LinearCapacity,
    MixtureNormalPrior,
    Shuffled,
    TotalCorrelationELBO,
    Training,
    fit,
)

float64 = pytest.mark.usefixtures("float64")

# Loss and gradients are in proportion to the second, and the rate to the first.
WEIGHTS = [{}, {"kl_weight": 0.3}, {"kl_weight": torch.tensor(2.0), "size": 60}]


@pytest.fixture
def vae():
    vae = binary_vae()
    with torch.no_grad():
        vae.posterior.network.layers[-1].weight[0] *= (
            10  # the first dimension is far from its prior
        )
    return vae


@pytest.fixture
def x(vae):
    return vae.sample(6)


def value_and_gradients(vae, loss):
    return loss, torch.autograd.grad(loss, list(vae.parameters()), allow_unused=True)


def run(objective, vae, x, **kwargs):
    torch.manual_seed(1)
    return value_and_gradients(
        vae, objective.differentiable_loss(vae.model, vae.guide, x, **kwargs)
    )


def draws(vae, x, num_particles):
    """z, and -log p(x | z) averaged over the draws of z, at the draws of `run`."""
    torch.manual_seed(1)
    z = vae.encode(x).rsample((num_particles,))
    return z, -vae.decode(z).log_prob(x).mean(0)


def kl_by_dim(vae, x):
    q_z = vae.encode(x).base_dist
    return kl_from_standard_normal(q_z.loc, q_z.scale)


def scales(x, kl_weight=1.0, size=None):
    """The KL weight, and how many rows a row stands for."""
    return kl_weight, (size or len(x)) / len(x)


def assert_same(received, expected):
    torch.testing.assert_close(received, expected, rtol=1e-10, atol=1e-10)


# Free bits


@float64
@pytest.mark.parametrize("weights", WEIGHTS)
def test_without_free_bits_it_is_the_mean_field_elbo(vae, x, weights):
    assert_same(
        run(FreeBitsELBO(free_nats=0.0), vae, x, **weights),
        run(TraceMeanField_ELBO(), vae, x, **weights),
    )


@float64
@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_dimension_below_its_free_bits_costs_these_and_has_no_gradient(vae, x, weights):
    _, distortion = draws(vae, x, num_particles=3)
    kl_weight, scale = scales(x, **weights)
    kl_of_all = kl_weight * 2 * 6 * 1000.0  # two dimensions, six rows
    received = run(FreeBitsELBO(free_nats=1000.0, num_particles=3), vae, x, **weights)
    assert_same(received, value_and_gradients(vae, scale * (distortion.sum() + kl_of_all)))


@float64
@pytest.mark.parametrize("weights", WEIGHTS)
def test_free_bits_are_compared_with_the_kl_of_each_dimension_as_it_is_averaged_over_rows(
    vae, x, weights
):
    kl = kl_by_dim(vae, x)
    high, low = kl.mean(0)
    free_nats = ((high + low) / 2).item()
    assert kl[:, 0].min() < free_nats < high  # so each row by itself would give another sum
    _, distortion = draws(vae, x, num_particles=3)
    kl_weight, scale = scales(x, **weights)
    expected = scale * (distortion.sum() + kl_weight * 6 * (high + free_nats))
    received = run(FreeBitsELBO(free_nats, num_particles=3), vae, x, **weights)
    assert_same(received, value_and_gradients(vae, expected))


# Capacity


@float64
@pytest.mark.parametrize("size", [None, 60])
@pytest.mark.parametrize("kl_capacity", [0.0, torch.tensor(1.0), 100.0])
def test_the_distance_of_the_mean_kl_from_its_capacity_costs_gamma_on_both_sides(
    vae, x, kl_capacity, size
):
    _, distortion = draws(vae, x, num_particles=3)
    excess = 6 * abs(kl_by_dim(vae, x).sum(1).mean() - kl_capacity)
    expected = scales(x, size=size)[1] * (distortion.sum() + 20.0 * excess)
    received = run(
        CapacityELBO(gamma=20.0, num_particles=3), vae, x, kl_capacity=kl_capacity, size=size
    )
    assert_same(received, value_and_gradients(vae, expected))


@float64
def test_at_its_capacity_only_the_distortion_is_left(vae, x):
    _, distortion = draws(vae, x, num_particles=1)
    kl = kl_by_dim(vae, x).sum(1).mean().item()
    loss, _ = run(CapacityELBO(gamma=1000.0), vae, x, kl_capacity=kl)
    torch.testing.assert_close(loss, distortion.sum(), rtol=1e-10, atol=1e-10)


@float64
def test_a_kl_without_a_closed_form_is_drawn(vae, x):
    mixture = VAE(MixtureNormalPrior(2, num_components=3), vae.likelihood, vae.posterior)
    z, distortion = draws(mixture, x, num_particles=3)
    kl = (mixture.encode(x).log_prob(z) - mixture.prior().log_prob(z)).mean()
    received = run(CapacityELBO(gamma=20.0, num_particles=3), mixture, x, kl_capacity=1.0)
    assert_same(received, value_and_gradients(mixture, distortion.sum() + 20.0 * 6 * abs(kl - 1.0)))


def test_training_holds_the_kl_where_the_capacity_has_got_to():
    torch.manual_seed(0)
    vae = binary_vae()
    x = (torch.rand(60, 1, 4, 4) < torch.rand(60, 1, 1, 1)).float()
    training = Training(
        epochs=60,
        batches=Shuffled(20),
        optimizer=partial(torch.optim.Adam, lr=0.02),
        objective=CapacityELBO(gamma=30.0),
        kl_schedule=LinearCapacity(last=1.5, epochs=40),
    )
    result = fit(vae, x, training)
    capacities = [row.scheduled for row in result.history]
    assert capacities == sorted(capacities)
    assert capacities[-1] == 1.5
    assert kl_by_dim(vae, x).sum(1).mean().item() == pytest.approx(1.5, abs=0.1)


def test_a_capacity_goes_with_its_objective_and_no_other():
    for settings in (
        {"objective": CapacityELBO()},
        {"objective": CapacityELBO(), "kl_schedule": ConstantKL(2.0)},
        {"kl_schedule": LinearCapacity(last=5.0, epochs=2)},
    ):
        with pytest.raises(
            ValueError,
            match="'kl_schedule' must be a LinearCapacity where the objective is a Capacity",
        ):
            Training(**settings)


# Total correlation


def log_mean(log_values):
    densities = [math.exp(value) for value in log_values]
    return math.log(sum(densities) / len(densities))


def rate_terms(z, loc, scale):
    """The three terms, one number after the other; a draw of z is compared with the posteriors of all rows."""
    terms = []
    num_rows, num_dims = loc.shape
    for draw in z.tolist():
        for i in range(num_rows):
            by_dim = [
                [normal(draw[i][d], loc[j, d].item(), scale[j, d].item()) for d in range(num_dims)]
                for j in range(num_rows)
            ]
            log_q = log_mean(map(sum, by_dim))
            log_q_dims = sum(log_mean(column) for column in zip(*by_dim, strict=True))
            log_p = sum(normal(value, 0.0, 1.0) for value in draw[i])
            terms.append([sum(by_dim[i]) - log_q, log_q - log_q_dims, log_q_dims - log_p])
    return torch.tensor(terms).mean(0)


@float64
@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_three_terms_are_those_of_a_loop_over_all_pairs_of_rows(vae, x, weights):
    torch.manual_seed(1)
    terms = TotalCorrelationELBO(num_particles=3).terms(vae.model, vae.guide, x, **weights)
    z, _ = draws(vae, x, num_particles=3)
    q_z = vae.encode(x).base_dist
    torch.testing.assert_close(torch.stack(terms), rate_terms(z, q_z.loc, q_z.scale))
    rate = (vae.encode(x).log_prob(z) - vae.prior().log_prob(z)).mean()
    torch.testing.assert_close(sum(terms), rate, rtol=1e-10, atol=1e-10)


@float64
@pytest.mark.parametrize("weights", WEIGHTS)
def test_with_weight_1_on_the_total_correlation_it_is_the_elbo(vae, x, weights):
    received = run(TotalCorrelationELBO(beta=1.0), vae, x, **weights)
    assert_same(received, run(Trace_ELBO(), vae, x, **weights))


@float64
@pytest.mark.parametrize("weights", WEIGHTS)
def test_beta_weighs_the_total_correlation_alone(vae, x, weights):
    kl_weight, scale = scales(x, **weights)
    torch.manual_seed(1)
    terms = TotalCorrelationELBO(num_particles=3).terms(vae.model, vae.guide, x, **weights)
    losses = [
        run(TotalCorrelationELBO(beta, num_particles=3), vae, x, **weights)[0]
        for beta in (1.0, 4.0)
    ]
    torch.testing.assert_close(
        losses[1] - losses[0], scale * 6 * kl_weight * 3.0 * terms.total_correlation
    )


def codes(loc):
    """A model and a guide of rows whose codes lie at `loc`."""

    def program(with_x):
        with pyro.plate("rows", len(loc)):
            pyro.sample(
                "z",
                dist.Normal(
                    torch.zeros_like(loc) if with_x else loc, 1.0 if with_x else 0.1
                ).to_event(1),
            )
            if with_x:
                pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(len(loc)))

    return partial(program, True), partial(program, False)


@float64
def test_the_total_correlation_is_0_for_independent_codes_and_ln_2_for_two_clusters_on_the_diagonal():
    objective = TotalCorrelationELBO(num_particles=10)
    corners = torch.cartesian_prod(torch.tensor([-1.0, 1.0]), torch.tensor([-1.0, 1.0]))
    independent = objective.terms(*codes(corners.repeat(5, 1)))
    diagonal = objective.terms(*codes(corners[[0, 3]].repeat(5, 1)))
    torch.testing.assert_close(independent.total_correlation, torch.tensor(0.0), rtol=0, atol=1e-10)
    torch.testing.assert_close(
        diagonal.total_correlation, torch.tensor(math.log(2)), rtol=0, atol=1e-6
    )
    # The code tells which of so many clusters a row is from.
    torch.testing.assert_close(
        independent.mutual_information, torch.tensor(math.log(4)), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(
        diagonal.mutual_information, torch.tensor(math.log(2)), rtol=0, atol=1e-6
    )


# All of them


TRAININGS = {
    "FreeBitsELBO": {"objective": FreeBitsELBO(num_particles=2)},
    "CapacityELBO": {
        "objective": CapacityELBO(),
        "kl_schedule": LinearCapacity(last=5.0, epochs=2),
    },
    "TotalCorrelationELBO": {"objective": TotalCorrelationELBO(), "kl_schedule": ConstantKL(0.5)},
}


@pytest.mark.parametrize("name", TRAININGS)
def test_traced_training_is_that_of_plain_pyro_bit_for_bit(name):
    histories = []
    for trace in (True, False):
        torch.manual_seed(0)
        vae = binary_vae()
        execution = Execution(trace=trace, compile=False)
        settings = Training(epochs=3, batches=Shuffled(6), execution=execution, **TRAININGS[name])
        result = fit(vae, vae.sample(18), settings)
        assert result.how == ("traced" if trace else "plain")
        histories.append([row.train_loss for row in result.history])
    assert histories[0] == histories[1]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (partial(FreeBitsELBO, -0.1), "'free_nats' must be 0 or more, got -0.1"),
        (partial(FreeBitsELBO, math.nan), "'free_nats' must be 0 or more, got nan"),
        (partial(CapacityELBO, 0.0), "'gamma' must be greater than 0, got 0.0"),
        (partial(TotalCorrelationELBO, 0.0), "'beta' must be greater than 0, got 0.0"),
        (
            partial(FreeBitsELBO, num_particles=0),
            "'num_particles' must be a whole number of at least 1, got 0",
        ),
    ],
)
def test_settings_without_a_meaning_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_posterior_that_is_no_product_over_dimensions_is_refused(vae, x):
    full = VAE(vae.prior, vae.likelihood, FullNormalPosterior(MLP(16, (8,), 5), (1, 4, 4), 2))
    with pytest.raises(
        ValueError, match=r"for FreeBitsELBO, got MultivariateNormal and Independent\(Normal\)"
    ):
        FreeBitsELBO().loss(full.model, full.guide, x)
    with pytest.raises(ValueError, match=r"must have one latent site .* got z: MultivariateNormal"):
        TotalCorrelationELBO().loss(full.model, full.guide, x)


def test_a_prior_without_a_closed_form_is_refused_for_free_bits(vae, x):
    mixture = VAE(MixtureNormalPrior(2), vae.likelihood, vae.posterior)
    with pytest.raises(
        ValueError, match="'z' must have a posterior and a prior that are products over dimensions"
    ):
        FreeBitsELBO().loss(mixture.model, mixture.guide, x)


def test_a_latent_of_the_guide_without_a_prior_is_refused():
    def model():
        with pyro.plate("rows", 3):
            scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
            pyro.sample("x", dist.Normal(0.0, scale), obs=torch.ones(3))

    with pyro.get_param_store().scope():
        guide = AutoNormal(model)
        guide()
        for objective in (FreeBitsELBO(), partial(CapacityELBO().loss, kl_capacity=1.0)):
            loss = getattr(objective, "loss", objective)
            with pytest.raises(
                ValueError,
                match="'model' must have a prior for .* but has none for 'scale_unconstr",
            ):
                loss(model, guide)


def test_weights_by_row_give_one_loss(vae, x):
    received, _ = run(FreeBitsELBO(free_nats=1.0), vae, x, kl_weight=torch.full((len(x),), 0.3))
    expected, _ = run(FreeBitsELBO(free_nats=1.0), vae, x, kl_weight=0.3)
    torch.testing.assert_close(received, expected)


def test_what_an_objective_cannot_score_is_refused_before_anything_is_reported(x):
    binary, reported = binary_vae(), []
    vae = VAE(MixtureNormalPrior(2, 3), binary.likelihood, binary.posterior)
    with pytest.raises(ValueError, match="for FreeBitsELBO"):
        fit(
            vae,
            x,
            Training(objective=FreeBitsELBO(), batches=Shuffled(3)),
            on_epoch=reported.append,
        )
    assert reported == []


def test_a_capacity_must_be_given(vae, x):
    with pytest.raises(ValueError, match="'kl_capacity' must be given to CapacityELBO"):
        CapacityELBO().loss(vae.model, vae.guide, x)
