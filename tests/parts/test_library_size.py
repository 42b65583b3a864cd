"""Counts with a library size: closed forms of the mean, where the size comes from, and what is refused."""

import copy

import pytest
import torch
from pyro import poutine
from torch import nn

import pyro_vae as pv
from pyro_vae.diagnostics import calibrate
from pyro_vae.distributions import NegativeBinomial

NUM_COLUMNS, LATENT_DIM, NUM_BATCHES, NUM_ROWS = 5, 2, 3, 8
FAMILIES = [
    pv.PoissonLikelihood,
    pv.NegativeBinomialLikelihood,
    pv.ZeroInflatedNegativeBinomialLikelihood,
]
each_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make_likelihood(family=pv.NegativeBinomialLikelihood, context_dim=0, **settings):
    def network(out_shape):
        return pv.MLP(LATENT_DIM, [4], out_shape, nn.Tanh, context_dim)

    return family(network, NUM_COLUMNS, library_size=True, **settings).double()


def make_vae(family=pv.NegativeBinomialLikelihood, context_dim=0, missing=None):
    encoder = pv.Log1p(pv.MLP(NUM_COLUMNS, [4], (2, LATENT_DIM), nn.Tanh, context_dim))
    return pv.VAE(
        pv.StandardNormalPrior(LATENT_DIM),
        make_likelihood(family, context_dim),
        pv.DiagNormalPosterior(encoder, NUM_COLUMNS, LATENT_DIM).double(),
        missing=missing,
    )


@pytest.fixture
def z():
    return torch.randn(NUM_ROWS, LATENT_DIM, dtype=torch.float64)


@pytest.fixture
def x():
    return torch.randint(40, (NUM_ROWS, NUM_COLUMNS)).double()


@pytest.fixture
def log_library():
    return torch.linspace(3.0, 8.0, NUM_ROWS, dtype=torch.float64).unsqueeze(1)


@pytest.fixture
def labels():
    return torch.arange(NUM_ROWS) % NUM_BATCHES


def mean_of_counts(p_x):
    """The mean of the counts, without the extra zeros of a zero-inflated distribution."""
    base = p_x.base_dist
    return getattr(base, "base_dist", base).mean


@each_family
def test_the_means_of_a_row_add_up_to_its_library_size(family, z, log_library):
    means = mean_of_counts(make_likelihood(family)(z, log_library))
    expected = log_library.exp().squeeze(1)
    assert torch.allclose(means.sum(1), expected, rtol=1e-6)


@each_family
def test_the_means_are_shares_of_the_library_size_and_scale_with_it(family, z, log_library):
    likelihood = make_likelihood(family)
    if family is pv.PoissonLikelihood:
        likelihood.min_rate = 0.0
    shares = likelihood.shares(z)
    assert torch.allclose(shares.sum(1), torch.ones(NUM_ROWS).double())
    once, thrice = (
        mean_of_counts(likelihood(z, offset)) for offset in (log_library, log_library + 3.0)
    )
    assert torch.allclose(once, log_library.exp() * shares)
    assert torch.allclose(thrice, torch.tensor(3.0).double().exp() * once)


def test_poisson_counts_given_their_sum_are_a_multinomial(z, x):
    """Π Poisson(x_j; l s_j) is Poisson(Σ x; l) times Multinomial(x; Σ x, s), for any library size l."""
    likelihood = make_likelihood(pv.PoissonLikelihood, min_rate=1e-30)
    log_library = torch.full((NUM_ROWS, 1), 4.0, dtype=torch.float64)
    total = x.sum(1)
    of_total = torch.distributions.Poisson(log_library.exp().squeeze(1)).log_prob(total)
    log_factorials = torch.lgamma(total + 1) - torch.lgamma(x + 1).sum(1)
    of_split = log_factorials + (x * likelihood.shares(z).log()).sum(1)
    assert torch.allclose(likelihood(z, log_library).log_prob(x), of_total + of_split)


def test_log_prob_is_that_of_a_negative_binomial_with_mean_library_times_share(z, x, log_library):
    likelihood = make_likelihood(dispersion=0.5)
    log_mean = log_library + likelihood.network(z).squeeze(1).log_softmax(-1)
    expected = NegativeBinomial(log_mean, 0.5).log_prob(x).sum(1)
    assert torch.allclose(likelihood(z, log_library).log_prob(x), expected)


@each_family
def test_rows_without_a_library_size_have_that_of_their_sum(family, x, labels):
    vae = make_vae(family, NUM_BATCHES)
    one_hot = torch.eye(NUM_BATCHES, dtype=torch.float64)[labels]
    given = torch.cat([one_hot, x.sum(1, keepdim=True).log()], dim=1)
    z = torch.randn(NUM_ROWS, LATENT_DIM, dtype=torch.float64)
    expected = vae.log_likelihood(x, z, given)
    assert torch.equal(vae.log_likelihood(x, z, labels), expected)
    assert torch.equal(vae.log_likelihood(pv.Rows(x, pv.Identity(), labels=labels), z), expected)
    conditioned = poutine.condition(vae.model, {"z": z})
    for y in (one_hot, given):
        trace = poutine.trace(conditioned).get_trace(x, y)
        trace.compute_log_prob()
        assert torch.equal(trace.nodes["x"]["log_prob"], expected)


def test_every_measure_is_the_same_for_a_library_size_that_is_given_and_one_that_is_found(
    x, labels
):
    vae = make_vae(context_dim=NUM_BATCHES)
    one_hot = torch.eye(NUM_BATCHES, dtype=torch.float64)[labels]
    given = torch.cat([one_hot, x.sum(1, keepdim=True).log()], dim=1)
    training = pv.Training(
        epochs=2, batches=pv.Shuffled(4), execution=pv.Execution(trace=False, compile=False)
    )
    results = []
    for y in (labels, one_hot, given):
        one = copy.deepcopy(vae)
        pv.initialize(one, (x, y))
        fitted = pv.fit(one, (x, y), training)
        found = pv.evaluate(one, (x, y), num_importance_samples=5)
        results.append(
            (fitted.history[-1].train_loss, found.negative_elbo.mean, found.log_marginal)
        )
        results[-1] += (one.likelihood.library.median.item(),)
    assert results[0] == results[1] == results[2]


@each_family
def test_draws_without_a_library_size_have_the_median_of_the_training_rows(family, x, z, labels):
    vae = make_vae(family, NUM_BATCHES)
    pv.initialize(vae, (x, labels))
    median = x.sum(1).log().median()
    for y in (2, torch.eye(NUM_BATCHES)[2]):
        p_x = vae.decode(z, y)
        assert torch.allclose(mean_of_counts(p_x).sum(1).log(), median.expand(NUM_ROWS))
        drawn = vae.sample(2_000, y).sum(1).mean()
        assert drawn < 1.2 * median.exp()
    with_size = torch.cat([torch.eye(NUM_BATCHES)[2], torch.tensor([7.0])])
    assert torch.allclose(
        mean_of_counts(vae.decode(z, with_size)).sum(1).log(), torch.tensor(7.0).double()
    )


def test_a_given_library_size_sets_the_median(x, log_library):
    vae = make_vae()
    pv.initialize(vae, (x, log_library))
    assert vae.likelihood.library.median == log_library.median()


@pytest.mark.parametrize("share_missing", [0.0, 0.3])
def test_the_start_is_the_mean_share_and_a_dispersion_around_it(share_missing):
    likelihood = make_likelihood()
    shares = torch.tensor([0.1, 0.2, 0.3, 0.3, 0.1], dtype=torch.float64)
    offsets = torch.linspace(2.0, 5.0, 20_000, dtype=torch.float64).unsqueeze(1)
    x = NegativeBinomial(offsets + shares.log(), torch.tensor(0.4)).sample()
    x[torch.rand_like(x) < share_missing] = torch.nan
    likelihood.initialize_offsets([(x[:7_000], offsets[:7_000]), (x[7_000:], offsets[7_000:])])
    likelihood.initialize_bias(x.nanmean(0))
    bias = likelihood.network.output_bias.reshape(-1)
    assert torch.allclose(bias.softmax(0), shares, atol=0.01)
    assert torch.allclose(likelihood.dispersion(), torch.tensor(0.4).double(), atol=0.05)


def test_only_the_likelihood_sees_the_library_size(x, log_library):
    vae = make_vae()
    assert vae.context_dim == 0
    assert torch.equal(vae.encode(x, log_library).mean, vae.encode(x).mean)
    z = vae.encode(x).mean
    assert torch.equal(vae.likelihood.shares(z, log_library), vae.likelihood.shares(z))


def test_draws_of_latents_and_enumerated_contexts_broadcast_against_the_library_size(
    x, log_library
):
    vae = make_vae(context_dim=NUM_BATCHES)
    y = torch.eye(NUM_BATCHES, dtype=torch.float64)[:, None].expand(-1, NUM_ROWS, -1)
    z = torch.randn(NUM_BATCHES, NUM_ROWS, LATENT_DIM, dtype=torch.float64)
    together = vae.log_likelihood(x, z, y)
    one_by_one = [vae.log_likelihood(x, z_k, y_k) for z_k, y_k in zip(z, y, strict=True)]
    assert torch.allclose(together, torch.stack(one_by_one))


def test_a_simulation_uses_one_library_size_for_the_rows_and_their_scores(x):
    vae = make_vae()
    pv.initialize(vae, x)
    seen = []

    def draw(x, y, count):
        seen.append(y)
        return vae.encode(x, y).sample([count])

    calibrate(vae, num_rows=200, num_draws=4, draw=draw)
    assert torch.equal(seen[0], vae.likelihood.library.median.expand(200, 1))


def test_weights_keep_the_median(x):
    vae = make_vae()
    pv.initialize(vae, x)
    other = make_vae()
    other.load_state_dict(vae.state_dict())
    assert other.likelihood.offsets() == x.sum(1).log().median()


def test_a_row_without_counts_has_a_library_size_of_one(z):
    likelihood = make_likelihood()
    zeros = torch.zeros(NUM_ROWS, NUM_COLUMNS, dtype=torch.float64)
    assert torch.equal(likelihood.offsets(zeros), torch.zeros(NUM_ROWS, 1).double())
    assert likelihood(z, likelihood.offsets(zeros)).log_prob(zeros).isfinite().all()


def test_what_cannot_be_a_library_size_is_refused_in_one_sentence(x, z, labels):
    vae = make_vae()
    with pytest.raises(ValueError, match=r"'y' must have the log .* last number, since its median"):
        vae.decode(z)
    with pytest.raises(ValueError, match=r"'y' must have the log .* at most 30, got 190\."):
        vae.elbo(x, torch.full((NUM_ROWS, 1), 190.0))
    with pytest.raises(ValueError, match=r"'y' must be omitted for a VAE without a context"):
        vae.elbo(x, labels)
    with pytest.raises(ValueError, match=r"without a context y for a VAE whose parts take none"):
        pv.evaluate(vae, (x, labels))
    with pytest.raises(ValueError, match=r"'y' must have 0 numbers a row .* behind them the log"):
        vae.likelihood(z, torch.ones(NUM_ROWS, 2, dtype=torch.float64))
    with pytest.raises(
        ValueError, match=r"'likelihood' must be a Poisson.* with library_size=True"
    ):
        pv.PoissonLikelihood(nn.Linear(2, 5), 5).shares(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"'likelihood' of Columns must be one without a library"):
        pv.Columns(2, lambda **kwargs: pv.PoissonLikelihood(library_size=True, **kwargs)).factor()


def test_the_sum_of_a_row_with_missing_entries_is_no_library_size(x, log_library):
    vae = make_vae(missing="nan")
    x[0, 0] = torch.nan
    with pytest.raises(
        ValueError, match=r"'y' must have 1 numbers a row, .* missing=\"nan\", since"
    ):
        vae.elbo(x)
    assert vae.elbo(x, log_library).isfinite().all()
    pv.initialize(vae, (x, log_library))
    found = pv.impute(vae, (x, log_library), num_samples=20)
    assert found.mean.isfinite().all()


class TestContextScale:
    def test_a_label_picks_its_row(self, z, log_library):
        likelihood = make_likelihood(
            context_dim=NUM_BATCHES, dispersion=pv.ContextScale(NUM_BATCHES, NUM_COLUMNS)
        )
        scale = likelihood.dispersion
        with torch.no_grad():
            scale.by_context.log_scale.copy_(torch.randn(NUM_BATCHES, NUM_COLUMNS))
        for label in range(NUM_BATCHES):
            one_hot = torch.eye(NUM_BATCHES, dtype=torch.float64)[label].expand(NUM_ROWS, -1)
            p_x = likelihood(z, torch.cat([one_hot, log_library], dim=1))
            expected = scale.by_context()[label].expand(NUM_ROWS, -1)
            assert torch.allclose(p_x.base_dist.dispersion, expected)

    def test_it_gives_a_likelihood_a_context_that_its_network_does_not_take(self, x, labels):
        scale = pv.ContextScale(NUM_BATCHES, NUM_COLUMNS)
        likelihood = pv.NormalLikelihood(nn.Linear(LATENT_DIM, NUM_COLUMNS), NUM_COLUMNS, scale)
        assert likelihood.context_dim == NUM_BATCHES
        p_x = likelihood(torch.zeros(NUM_ROWS, LATENT_DIM), torch.eye(NUM_BATCHES)[labels])
        assert p_x.base_dist.scale.shape == (NUM_ROWS, NUM_COLUMNS)

    def test_each_context_starts_at_the_scale_of_the_data(self):
        scale = pv.ContextScale(NUM_BATCHES, (1, NUM_COLUMNS))
        start = torch.linspace(0.5, 2.0, 2 * NUM_COLUMNS).reshape(2, NUM_COLUMNS)
        scale.initialize(start, 0.01)
        pooled = start.square().mean(0, keepdim=True).sqrt()
        for y in torch.eye(NUM_BATCHES):
            assert torch.allclose(scale.at([], y), pooled)

    def test_contexts_of_two_sizes_and_no_context_are_refused(self):
        with pytest.raises(
            ValueError, match=r"'dispersion' must take a context y of 3, as the net"
        ):
            make_likelihood(context_dim=3, dispersion=pv.ContextScale(2, NUM_COLUMNS))
        with pytest.raises(ValueError, match=r"'y' must have 2 numbers a row for a ContextScale"):
            pv.ContextScale(2, 1).at([], None)
