"""A trained guide as a part of other Pyro models, against closed forms."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from models import ExactPosterior, binary_vae, linear, linear_gaussian_vae
from pyro import infer, poutine
from pyro.contrib.autoname import scope
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta
from references import LinearGaussian

from pyro_vae import SVI, importance_sample, log_weights, renamed


@pytest.fixture
def reference(float64):
    return LinearGaussian(torch.randn(5, 3), torch.randn(5), 0.7)


@pytest.fixture
def vae(reference):
    return linear_gaussian_vae(reference)


def people_model(vae):
    """The same model in a user's words, with other names and without any plate of the VAE's."""

    def model(x):
        with pyro.plate("people", len(x)):
            code = pyro.sample("code", vae.prior())
            pyro.sample("answers", vae.likelihood(code), obs=x)

    return model


def test_a_renamed_guide_is_the_posterior_of_a_model_with_other_names(vae, reference):
    model, x = people_model(vae), torch.randn(7, 5)
    guide = renamed(vae.guide, {"z": "code", "data": "people"})
    loss = Trace_ELBO().loss(model, guide, x)
    assert -loss == pytest.approx(reference.log_marginal(x).sum().item(), abs=1e-10)
    weights = log_weights(model, guide, x, num_samples=4)
    torch.testing.assert_close(weights, reference.log_marginal(x).expand(4, -1), atol=1e-10, rtol=0)
    frames = poutine.trace(guide).get_trace(x).nodes["code"]["cond_indep_stack"]
    assert [(frame.name, frame.size) for frame in frames] == [("people", 7)]


def test_names_that_are_not_given_stay(vae):
    trace = poutine.trace(renamed(vae.model, {"z": "code"})).get_trace(torch.randn(2, 5))
    assert {"data", "code", "x"} <= set(trace.nodes)


def test_two_names_cannot_become_one(vae):
    with pytest.raises(
        ValueError, match=r"^'names' must give each site and plate a name of its own, got \{"
    ):
        renamed(vae.guide, {"z": "a", "data": "a"})


def test_the_guide_in_a_plate_of_another_size_and_dimension(vae, reference):
    # Five classes of seven: the classes are a plate of the user's at dim -2.
    x = torch.randn(5, 7, 5)

    def model(x):
        with pyro.plate("classes", 5, dim=-2), pyro.plate("pupils", 7, dim=-1):
            z = pyro.sample("z", vae.prior())
            pyro.sample("x", vae.likelihood(z), obs=x)

    def guide(x):
        with pyro.plate("classes", 5, dim=-2), pyro.plate("pupils", 7, dim=-1):
            pyro.sample("z", vae.posterior(x))

    assert -Trace_ELBO().loss(model, guide, x) == pytest.approx(
        reference.log_marginal(x).sum().item(), abs=1e-10
    )


def test_two_vaes_in_one_model(vae, reference):
    other_reference = LinearGaussian(torch.randn(4, 2), torch.randn(4), 0.5)
    other = linear_gaussian_vae(other_reference)
    x, u = torch.randn(7, 5), torch.randn(3, 4)
    expected = reference.log_marginal(x).sum() + other_reference.log_marginal(u).sum()

    def both(first, second):
        def program(x, u):
            first(x)
            second(u)

        return program

    names = {"z": "w", "x": "u", "data": "others"}
    renaming = (
        both(vae.model, renamed(other.model, names)),
        both(vae.guide, renamed(other.guide, names)),
    )
    scoped = (
        both(vae.model, scope(other.model, prefix="other")),
        both(vae.guide, scope(other.guide, prefix="other")),
    )
    for model, guide in (renaming, scoped):
        assert -Trace_ELBO().loss(model, guide, x, u) == pytest.approx(expected.item(), abs=1e-10)


def with_head(vae, weight, scale):
    """p(z) p(x | z) p(t | z): a second likelihood beside that of the VAE."""

    def model(x, target):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", vae.prior())
            pyro.sample("x", vae.likelihood(z), obs=x)
            pyro.sample("target", dist.Normal(z @ weight, scale), obs=target)

    return model


def test_a_head_beside_the_likelihood_is_corrected_row_by_row(vae, reference):
    # The guide knows of x alone; its weights make its draws those of p(z | x, t). 5 standard errors: once in two million.
    weight, scale = torch.tensor([1.0, -0.5, 0.3]), 0.8
    joint = LinearGaussian(
        torch.cat([reference.weight, weight.unsqueeze(0) * reference.scale / scale]),
        torch.cat([reference.bias, torch.zeros(1)]),
        reference.scale,
    )
    x, target = torch.randn(6, 5), torch.randn(6)
    both = torch.cat([x, (target * reference.scale / scale).unsqueeze(1)], dim=1)
    draws = importance_sample(
        with_head(vae, weight, scale), lambda x, _: vae.guide(x), x, target, num_samples=20_000
    )
    z = draws.latents["z"]
    error = (draws.expectation(z) - joint.posterior_loc(both)) / draws.standard_error(z)
    assert error.abs().max() < 5
    assert (vae.posterior(x).mean - joint.posterior_loc(both)).abs().max() > 0.1
    log_marginal = joint.log_marginal(both) + torch.tensor(reference.scale / scale).log()
    torch.testing.assert_close(draws.log_marginal, log_marginal, atol=0.1, rtol=0)


@pytest.mark.usefixtures("float64")
def test_global_weights_by_an_autoguide_beside_the_frozen_guide():
    # Hardly any noise in x makes z known, and the best point for the weights is that of Bayesian regression on z.
    vae = linear_gaussian_vae(LinearGaussian(torch.eye(2), torch.zeros(2), 1e-4)).requires_grad_(
        False
    )
    x = torch.randn(40, 2)
    target = x @ torch.tensor([1.0, -2.0]) + 0.5 * torch.randn(40)

    def model(x, target):
        weight = pyro.sample("weight", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with_head(vae, weight, 0.5)(x, target)

    weights = AutoDelta(poutine.block(model, expose=["weight"]))

    def guide(x, target):
        weights(x, target)
        vae.guide(x)

    with pyro.get_param_store().scope():
        svi = SVI(
            model, guide, lambda parameters: torch.optim.Adam(parameters, lr=0.05), Trace_ELBO()
        )
        for _ in range(400):
            svi.step(x, target)
        found = weights.median()["weight"].detach()
    precision = x.T @ x / 0.25 + torch.eye(2)
    torch.testing.assert_close(found, precision.inverse() @ x.T @ target / 0.25, atol=2e-3, rtol=0)


def trained(vae, steps):
    """The parameters before and after some steps of Pyro's own SVI on a model with a head beside the VAE."""
    x = torch.bernoulli(torch.full((9, 1, 4, 4), 0.5))
    head = linear(torch.zeros(1, 2), torch.zeros(1))

    def model(x):
        pyro.module("head", head)
        vae.register()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", vae.prior())
            pyro.sample("x", vae.likelihood(z), obs=x)
            pyro.sample("sum", dist.Normal(head(z).squeeze(-1), 1.0), obs=x.flatten(1).sum(1))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", vae.posterior(x))

    before = [parameter.clone() for parameter in vae.parameters()]
    with pyro.get_param_store().scope():
        svi = infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        for _ in range(steps):
            svi.step(x)
    return before, list(vae.parameters()), head


def test_a_frozen_vae_stays_while_a_head_learns():
    vae = binary_vae().requires_grad_(False)
    before, after, head = trained(vae, 3)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert head.weight.abs().min() > 0


def test_a_vae_that_is_not_frozen_is_fine_tuned_in_the_users_model():
    before, after, _ = trained(binary_vae(), 3)
    assert all(not torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_an_autoguide_of_another_latent_beside_the_vaes_own_guide(vae, reference):
    # A shared offset of all rows, given a point: the loss is that of the rows less the offset.
    x = torch.randn(7, 5)

    def model(x):
        offset = pyro.sample("offset", dist.Normal(0.0, 1.0))
        vae.model(x - offset)

    auto = AutoDelta(
        poutine.block(model, expose=["offset"]), init_loc_fn=lambda _: torch.tensor(0.4)
    )

    def guide(x):
        vae.guide(x - auto(x)["offset"])

    with pyro.get_param_store().scope():
        loss = Trace_ELBO().loss(model, guide, x)
    expected = reference.log_marginal(x - 0.4).sum() + dist.Normal(0.0, 1.0).log_prob(
        torch.tensor(0.4)
    )
    assert -loss == pytest.approx(expected.item(), abs=1e-10)


def test_the_exact_posterior_needs_no_correction(vae, reference):
    draws = importance_sample(vae.model, vae.guide, torch.randn(7, 5), num_samples=50)
    assert isinstance(vae.posterior, ExactPosterior)
    torch.testing.assert_close(draws.ess, torch.full((7,), 50.0))
    assert (draws.khat == 0).all()
