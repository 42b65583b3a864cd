"""Kullback-Leibler divergences in closed form: those that this package adds, and what becomes of the others."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from models import binary_vae
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import kl_divergence

from pyro_vae import (
    MLP,
    VAE,
    BernoulliLikelihood,
    DiagNormalPosterior,
    FullNormalPosterior,
    MixtureNormalPrior,
    Shuffled,
    StandardNormalPrior,
    Training,
    fit,
    monte_carlo_sites,
)
from pyro_vae.distributions import closed_kl, closed_kl_by_dim

pytestmark = pytest.mark.usefixtures("float64")

DIM = 3


def full_normal(loc, raw_scale, factor):
    return dist.MultivariateNormal(
        loc, scale_tril=factor.tril(-1) + torch.diag_embed(raw_scale.exp())
    )


def low_rank_normal(loc, raw_scale, factor):
    return dist.LowRankMultivariateNormal(loc, factor[..., :2], raw_scale.exp())


def numbers(*batch_shape):
    """loc, raw_scale and factor."""
    return (
        torch.randn(*batch_shape, DIM),
        torch.randn(*batch_shape, DIM) / 2,
        torch.randn(*batch_shape, DIM, DIM),
    )


def product(family, *batch_shape):
    return family(torch.randn(*batch_shape, DIM), torch.rand(*batch_shape, DIM) + 0.5).to_event(1)


def with_full_covariance(p_z):
    return dist.MultivariateNormal(p_z.mean, torch.diag_embed(p_z.variance))


CORRELATED = pytest.mark.parametrize("correlated", [full_normal, low_rank_normal])
BATCHES = pytest.mark.parametrize(
    ("q_shape", "p_shape"), [((), ()), ((4,), ()), ((), (4,)), ((4,), (4,)), ((2, 1), (4,))]
)


@CORRELATED
@BATCHES
def test_the_kl_from_a_product_of_normals_is_that_from_the_same_normal_in_full(
    correlated, q_shape, p_shape
):
    q_z, p_z = correlated(*numbers(*q_shape)), product(dist.Normal, *p_shape)
    received, expected = closed_kl(q_z, p_z), kl_divergence(q_z, with_full_covariance(p_z))
    assert received.shape == torch.broadcast_shapes(q_shape, p_shape)
    torch.testing.assert_close(received, expected, atol=1e-10, rtol=1e-10)


@CORRELATED
def test_expanded_distributions_have_the_same_kl(correlated):
    q_z, p_z = correlated(*numbers()), product(dist.Normal)
    expanded = closed_kl(q_z.expand((5, 4)), p_z.expand((4,)))
    torch.testing.assert_close(expanded, closed_kl(q_z, p_z).expand(5, 4), atol=1e-10, rtol=0)


@CORRELATED
@pytest.mark.parametrize("family", [dist.Normal, dist.Laplace])
def test_the_kl_is_the_mean_over_draws(correlated, family):
    # Failure rate: 6e-5 for each of 4 rows (4 standard errors), at a fixed seed.
    q_z, p_z, num_draws = correlated(*numbers(4)), product(family), 20_000
    z = q_z.sample((num_draws,))
    draws = q_z.log_prob(z) - p_z.log_prob(z)
    assert ((draws.mean(0) - closed_kl(q_z, p_z)).abs() < 4 * draws.std(0) / num_draws**0.5).all()


@CORRELATED
def test_the_gradient_of_the_kl_is_that_of_the_same_normal_in_full(correlated):
    parameters, p_z = [number.requires_grad_() for number in numbers(4)], product(dist.Normal)
    received, expected = (
        torch.autograd.grad(kl_divergence(correlated(*parameters), prior).sum(), parameters)
        for prior in (p_z, with_full_covariance(p_z))
    )
    torch.testing.assert_close(received, expected, atol=1e-10, rtol=1e-10)


@CORRELATED
def test_the_kl_is_zero_where_the_posterior_is_the_prior(correlated):
    loc, raw_scale, factor = numbers(4)
    q_z = correlated(loc, raw_scale, torch.zeros_like(factor))
    p_z = dist.Normal(q_z.mean, q_z.stddev).to_event(1)
    torch.testing.assert_close(closed_kl(q_z, p_z), torch.zeros(4), atol=1e-12, rtol=0)
    assert (closed_kl(correlated(loc, raw_scale, factor), p_z) > 0.01).all()


def mixture():
    return dist.MixtureSameFamily(dist.Categorical(torch.ones(4)), product(dist.Normal, 4))


UNREGISTERED = {
    "a mixture": mixture,
    "factors without a closed form": lambda: dist.StudentT(3.0, torch.zeros(DIM)).to_event(1),
    "two event dimensions": lambda: dist.Normal(torch.zeros(2, DIM), 1.0).to_event(2),
    "no event dimension": lambda: dist.Normal(torch.zeros(DIM), 1.0),
    "another size": lambda: dist.Normal(torch.zeros(DIM - 1), 1.0).to_event(1),
}


@CORRELATED
@pytest.mark.parametrize("name", UNREGISTERED)
def test_other_pairs_have_no_closed_form(correlated, name):
    q_z, p_z = correlated(*numbers()), UNREGISTERED[name]()
    with pytest.raises(NotImplementedError):
        kl_divergence(q_z, p_z)
    assert closed_kl(q_z, p_z) is None


@pytest.mark.parametrize("family", [dist.Normal, dist.Laplace])
def test_the_kl_by_dimension_adds_up_to_the_kl(family):
    q_z, p_z = product(dist.Normal, 4), product(family)
    by_dim = closed_kl_by_dim(q_z, p_z)
    assert by_dim.shape == (4, DIM)
    torch.testing.assert_close(by_dim.sum(-1), closed_kl(q_z, p_z))


@CORRELATED
def test_there_is_no_kl_by_dimension_where_one_side_is_no_product(correlated):
    assert closed_kl_by_dim(correlated(*numbers()), product(dist.Normal)) is None
    assert closed_kl_by_dim(product(dist.Normal), mixture()) is None
    nested = dist.Normal(torch.zeros(2, DIM), 1.0).to_event(1)
    assert closed_kl_by_dim(dist.Independent(nested, 1), dist.Independent(nested, 1)) is None


def test_the_sites_without_a_closed_kl_are_named_and_nothing_else_changes():
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        w = pyro.sample("w", mixture())
        pyro.sample("x", dist.Normal(z + w.sum(), 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.zeros(()))
        pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("w", product(dist.Normal))

    with pyro.get_param_store().scope():
        guide(torch.zeros(()))
        state = torch.get_rng_state()
        assert monte_carlo_sites(model, guide, torch.tensor(0.3)) == ["w"]
        assert torch.equal(torch.get_rng_state(), state)
        assert list(pyro.get_param_store().keys()) == ["loc"]


def test_auxiliary_sites_have_no_kl():
    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    def guide():
        loc = pyro.sample("a", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Normal(loc, 1.0))

    assert monte_carlo_sites(model, guide) == []


def one_epoch(objective):
    return Training(epochs=1, batches=Shuffled(8), objective=objective)


def mixture_vae():
    likelihood = BernoulliLikelihood(MLP(2, [4], 16), (1, 4, 4))
    return VAE(
        MixtureNormalPrior(2), likelihood, DiagNormalPosterior(MLP(16, [4], 4), (1, 4, 4), 2)
    )


def test_fit_says_where_the_kl_is_drawn():
    vae = mixture_vae()
    sentence = (
        "^TraceMeanField_ELBO draws the KL of z like Trace_ELBO, because there is no closed form for DiagNormalPosterior "
        "and MixtureNormalPrior\\.$"
    )
    with pytest.warns(UserWarning, match=sentence) as caught:
        fit(vae, vae.sample(16), one_epoch(TraceMeanField_ELBO()))
    assert len(caught) == 1
    assert caught[0].filename == __file__


def full_normal_vae():
    likelihood = BernoulliLikelihood(MLP(2, [4], 16), (1, 4, 4))
    return VAE(
        StandardNormalPrior(2), likelihood, FullNormalPosterior(MLP(16, [4], 5), (1, 4, 4), 2)
    )


@pytest.mark.parametrize(
    ("make", "objective"),
    [
        (mixture_vae, Trace_ELBO),
        (binary_vae, TraceMeanField_ELBO),
        (full_normal_vae, TraceMeanField_ELBO),
    ],
)
def test_fit_says_nothing_where_it_is_not(make, objective):
    vae = make()
    x = vae.sample(16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(vae, x, one_epoch(objective()))
