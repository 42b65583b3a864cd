"""The aggregated posterior against its definition, and the mixture of normals that is fitted to it."""

import copy
import math
import random

import numpy as np
import pytest
import references
import torch
from models import binary_vae
from sweeps import thinned
from test_posteriors import CONTEXT_DIM, LATENT_DIM, POSTERIORS, X_SHAPE, make_posterior
from torch import nn

from pyro_vae import (
    MLP,
    VAE,
    AggregatedPosterior,
    BernoulliLikelihood,
    DiagNormalPosterior,
    DynamicDraw,
    NormalLikelihood,
    Rows,
    StandardNormalPrior,
    gaussian_mixture,
)
from pyro_vae.evaluation import aggregate

NUM_ROWS = 7
pytestmark = pytest.mark.usefixtures("float64")


def vae_with(posterior):
    return VAE(
        StandardNormalPrior(LATENT_DIM),
        BernoulliLikelihood(nn.Linear(LATENT_DIM, 6), X_SHAPE),
        posterior,
    )


def sharp_posterior(context_dim=0):
    """One whose draws are its loc but for 1e-6."""
    posterior = make_posterior("diagonal normal", context_dim)
    last = posterior.network.layers[-1]
    last.weight.data[LATENT_DIM:], last.bias.data[LATENT_DIM:] = 0.0, -50.0
    return posterior


@pytest.fixture
def x():
    return torch.randn(NUM_ROWS, *X_SHAPE)


@pytest.fixture
def z():
    return torch.randn(5, LATENT_DIM)


@pytest.fixture(params=[1_000, 3], ids=["one chunk", "chunks of 3"])
def _chunk(request, monkeypatch):
    monkeypatch.setattr(aggregate, "_CHUNK", request.param)


def log_mean(densities):
    return (sum(densities) / len(densities)).log()


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("family", POSTERIORS)
def test_the_density_is_the_mean_of_the_posteriors(family, x, z):
    vae = vae_with(make_posterior(family))
    q_z = AggregatedPosterior(vae, x)
    assert (q_z.batch_shape, q_z.event_shape) == ((), (LATENT_DIM,))
    expected = log_mean([vae.posterior(row).log_prob(z).exp() for row in x])
    torch.testing.assert_close(q_z.log_prob(z), expected.detach())
    torch.testing.assert_close(q_z.expand((5,)).log_prob(z), expected.detach())


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("family", POSTERIORS)
@pytest.mark.parametrize("has_vectors", [False, True], ids=["labels", "vectors"])
def test_each_row_of_a_conditional_vae_has_its_own_context(family, x, z, has_vectors):
    vae = vae_with(make_posterior(family, CONTEXT_DIM))
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 0])
    y = torch.randn(NUM_ROWS, CONTEXT_DIM) if has_vectors else torch.eye(CONTEXT_DIM)[labels]
    q_z = AggregatedPosterior(vae, (x, y if has_vectors else labels))
    expected = log_mean(
        [vae.posterior(row, context).log_prob(z).exp() for row, context in zip(x, y, strict=True)]
    )
    torch.testing.assert_close(q_z.log_prob(z), expected.detach())


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("context_dim", [0, CONTEXT_DIM])
def test_a_draw_encodes_a_row_and_every_row_alike(x, context_dim):
    # Failure rate: 6e-5 for each of 7 rows (4 standard errors), at a fixed seed.
    y = torch.randn(NUM_ROWS, CONTEXT_DIM) if context_dim else None
    posterior = sharp_posterior(context_dim)
    q_z = AggregatedPosterior(vae_with(posterior), (x, y) if context_dim else x)
    draws = q_z.sample((700,))
    distance = torch.cdist(draws, posterior(x, y).mean)
    assert distance.min(1).values.max() < 1e-4
    counts = distance.argmin(1).bincount(minlength=NUM_ROWS)
    assert ((counts - 100).abs() < 4 * (700 * 1 / 7 * 6 / 7) ** 0.5).all()


@pytest.mark.parametrize("family", thinned(POSTERIORS, 3))
def test_draws_follow_the_density_and_the_density_is_normalised(family, x):
    # Failure rate: 6e-5 (4 standard errors), at a fixed seed.
    mean, error = references.mean_ratio(
        AggregatedPosterior(vae_with(make_posterior(family)), x), 10_000
    )
    assert abs(mean - 1) < 4 * error
    assert error < 0.05


def test_the_density_integrates_to_1(x):
    posterior = make_posterior("diagonal normal", latent_dim=2)
    vae = VAE(StandardNormalPrior(2), BernoulliLikelihood(nn.Linear(2, 6), X_SHAPE), posterior)
    q_z = AggregatedPosterior(vae, x)
    points, volume = references.grid_around(q_z.sample((500,)), side=201)
    assert (q_z.log_prob(points).exp() * volume).sum().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.usefixtures("_chunk")
def test_draws_have_the_mean_and_the_covariance_of_the_mixture(x):
    # Failure rate: 6e-5 for each of 12 numbers (4 standard errors), at a fixed seed.
    posterior, num_draws = make_posterior("diagonal normal"), 5_000
    q_z = AggregatedPosterior(vae_with(posterior), x)
    loc, variance = posterior(x).mean.detach(), posterior(x).variance.detach()
    covariance = (
        torch.diag(variance.mean(0)) + (loc - loc.mean(0)).T @ (loc - loc.mean(0)) / NUM_ROWS
    )
    torch.testing.assert_close(q_z.mean, loc.mean(0))
    centred = q_z.sample((num_draws,)) - loc.mean(0)
    assert (centred.mean(0).abs() < 4 * centred.std(0) / num_draws**0.5).all()
    products = centred.unsqueeze(1) * centred.unsqueeze(2)
    assert ((products.mean(0) - covariance).abs() < 4 * products.std(0) / num_draws**0.5).all()


def test_draws_and_means_have_the_shapes_of_any_distribution(x):
    q_z = AggregatedPosterior(vae_with(make_posterior("diagonal normal")), x).expand((4, 2))
    assert q_z.sample().shape == (4, 2, LATENT_DIM)
    assert q_z.sample((3,)).shape == (3, 4, 2, LATENT_DIM)
    assert q_z.log_prob(q_z.sample((3,))).shape == (3, 4, 2)
    assert q_z.mean.shape == (4, 2, LATENT_DIM)
    assert q_z.sample((0,)).shape == (0, 4, 2, LATENT_DIM)


def test_the_vae_is_used_in_evaluation_mode_and_its_mode_comes_back(x, z):
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(6, 6))
    vae = vae_with(DiagNormalPosterior(network, X_SHAPE, LATENT_DIM))
    q_z = AggregatedPosterior(vae, x)
    assert torch.equal(q_z.log_prob(z), q_z.log_prob(z))
    assert vae.training


def test_rows_are_decoded_from_the_latent_that_is_given(x):
    vae = vae_with(sharp_posterior())
    vae.likelihood.network.weight.data *= 100.0  # every pixel is sure
    x_of_first_row = (vae.decode(vae.encode(x[:1]).mean).mean > 0.5).double()
    assert torch.equal(
        vae.sample(6, latent=AggregatedPosterior(vae, x[:1])), x_of_first_row.expand(6, *X_SHAPE)
    )
    assert not torch.equal(vae.sample(6), x_of_first_row.expand(6, *X_SHAPE))


def test_a_conditional_vae_decodes_the_latent_that_is_given_at_its_context(x):
    likelihood = BernoulliLikelihood(MLP(LATENT_DIM, [], X_SHAPE, context_dim=CONTEXT_DIM), X_SHAPE)
    vae = VAE(
        StandardNormalPrior(LATENT_DIM), likelihood, make_posterior("diagonal normal", CONTEXT_DIM)
    )
    latent = AggregatedPosterior(vae, (x, torch.randn(NUM_ROWS, CONTEXT_DIM)))
    assert vae.sample(4, torch.randn(4, CONTEXT_DIM), latent=latent).shape == (4, *X_SHAPE)
    with pytest.raises(ValueError, match="'y' must have 2 real numbers a row"):
        vae.sample(4, latent=latent)


@pytest.mark.parametrize("make", [AggregatedPosterior, gaussian_mixture])
def test_rows_that_do_not_fit_are_refused(make, x):
    with pytest.raises(
        ValueError, match=r"'data' must have rows of the shape \(2, 3\), got \(6,\)"
    ):
        make(vae_with(make_posterior("diagonal normal")), x.flatten(1))
    with pytest.raises(
        ValueError, match="'data' must have labels for a VAE with a context y of 2, got none"
    ):
        make(vae_with(make_posterior("diagonal normal", CONTEXT_DIM)), x)


# The mixture of normals


@pytest.fixture
def clusters():
    """A VAE that encodes x as itself but for 0.5, and 120 rows at (5, 5) beside 280 at (-5, 0)."""
    posterior = DiagNormalPosterior(nn.Linear(2, 4), 2, 2)
    posterior.network.weight.data = torch.cat([torch.eye(2), torch.zeros(2, 2)])
    posterior.network.bias.data = torch.tensor([0.0, 0.0, math.log(0.5), math.log(0.5)])
    vae = VAE(StandardNormalPrior(2), NormalLikelihood(nn.Linear(2, 2), 2, 1.0), posterior)
    centres = torch.tensor([[5.0, 5.0]] * 120 + [[-5.0, 0.0]] * 280)
    return vae, centres + 0.3 * torch.randn(400, 2)


def test_a_mixture_finds_clusters_with_their_weights_means_and_covariances(clusters):
    vae, x = clusters
    mixture = gaussian_mixture(vae, x, num_components=2)
    order = mixture.component_distribution.loc[:, 0].argsort(descending=True)
    torch.testing.assert_close(
        mixture.mixture_distribution.probs[order], torch.tensor([0.3, 0.7]), atol=1e-6, rtol=0
    )
    components = mixture.component_distribution
    for component, rows in zip(order, (x[:120], x[120:]), strict=True):
        # Draws of z add 0.5 ε to each row, so that cov(z) = cov(x) + ¼ I with the errors of cov(x, ε) and cov(ε).
        # Failure rate: 6e-5 for each number (4 standard errors), at a fixed seed.
        assert ((components.loc[component] - rows.mean(0)).abs() < 4 * 0.5 / len(rows) ** 0.5).all()
        expected = rows.T.cov(correction=0) + 0.25 * torch.eye(2)
        error = ((2 * 0.3 * 0.5) ** 2 + 2 * 0.25**2) ** 0.5 / len(rows) ** 0.5
        assert ((components.covariance_matrix[component] - expected).abs() < 4 * error).all()
    assert vae.sample(16, latent=mixture).shape == (16, 2)


def test_a_mixture_is_fitted_to_draws_with_their_context(clusters):
    vae, x = clusters
    context = MLP(2, [], 4, context_dim=1)
    context.layers[0].weight.data = torch.cat(
        [vae.posterior.network.weight.data, torch.tensor([[3.0], [0], [0], [0]])], 1
    )
    context.layers[0].bias.data = vae.posterior.network.bias.data
    conditional = VAE(vae.prior, vae.likelihood, DiagNormalPosterior(context, 2, 2))
    mixture = gaussian_mixture(conditional, (x, torch.ones(400, 1)), num_components=1)
    error = (
        4 * 0.5 / 400**0.5
    )  # failure rate 6e-5 for each number (4 standard errors), at a fixed seed
    torch.testing.assert_close(
        mixture.component_distribution.loc[0],
        x.mean(0) + torch.tensor([3.0, 0.0]),
        atol=error,
        rtol=0,
    )


def parts_of(mixture):
    components = mixture.component_distribution
    return mixture.mixture_distribution.probs, components.loc, components.covariance_matrix


@pytest.mark.usefixtures("_chunk")
def test_the_seed_decides_the_mixture_and_the_callers_random_state_does_not(clusters):
    vae, x = clusters
    first = parts_of(gaussian_mixture(vae, x, num_components=3))
    torch.randn(5), np.random.rand(5), random.random()
    again, other = (
        parts_of(gaussian_mixture(vae, x, num_components=3, seed=seed)) for seed in (0, 1)
    )
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[1], other[1])


@pytest.mark.parametrize(
    "use", [gaussian_mixture, lambda vae, x: AggregatedPosterior(vae, x).log_prob(torch.zeros(2))]
)
def test_the_callers_random_state_and_the_vae_stay_as_they_are(clusters, use):
    vae, x = clusters
    weights = copy.deepcopy(vae.state_dict())
    states = torch.get_rng_state(), repr(np.random.get_state()), random.getstate()
    use(vae, x)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (repr(np.random.get_state()), random.getstate()) == states[1:]
    assert all(torch.equal(value, weights[name]) for name, value in vae.state_dict().items())


def test_a_mixture_has_the_dtype_of_the_vae(clusters):
    vae, x = clusters
    mixture = gaussian_mixture(vae.float(), x, num_components=2)
    assert mixture.sample().dtype == torch.float32


def test_there_can_be_no_more_components_than_rows(clusters):
    vae, x = clusters
    assert len(gaussian_mixture(vae, x[:3], num_components=3).mixture_distribution.probs) == 3
    with pytest.raises(
        ValueError, match="'data' must have at least 4 rows for 4 components, got 3"
    ):
        gaussian_mixture(vae, x[:3], num_components=4)
    with pytest.raises(
        ValueError, match="'num_components' must be a whole number of at least 1, got 0"
    ):
        gaussian_mixture(vae, x, num_components=0)


def test_the_density_is_the_same_each_time_where_x_is_drawn():
    vae = binary_vae()
    rows = Rows(torch.randint(256, (50, 1, 4, 4), dtype=torch.uint8), DynamicDraw(), 255.0)
    aggregated, z, state = AggregatedPosterior(vae, rows), torch.randn(3, 2), torch.get_rng_state()
    assert torch.equal(aggregated.log_prob(z), aggregated.log_prob(z))
    assert torch.equal(aggregated.mean, aggregated.mean)
    assert torch.equal(torch.get_rng_state(), state)


def test_values_of_another_size_are_refused(clusters):
    aggregated = AggregatedPosterior(*clusters)
    dim = aggregated.event_shape[0]
    with pytest.raises(ValueError, match=rf"'value' must have the shape \(\*, {dim}\), got \(7,\)"):
        aggregated.log_prob(torch.zeros(7))
    with pytest.raises(ValueError, match="'sample_shape' must be a sequence of values, .*, got 3"):
        aggregated.sample(3)
