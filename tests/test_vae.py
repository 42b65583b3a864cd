"""The VAE as a Pyro program: what Pyro's own tools see, and what they leave behind."""

import copy
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from models import FixedNoisePosterior, binary_vae, linear_gaussian_vae
from pyro import poutine
from pyro.contrib.autoname import scope
from pyro.infer import (
    MCMC,
    NUTS,
    Importance,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from references import LinearGaussian, kl_from_standard_normal
from torch import nn

from pyro_vae import (
    MLP,
    VAE,
    BernoulliLikelihood,
    DiagNormalPosterior,
    StandardNormalPrior,
)


@pytest.fixture
def vae():
    return binary_vae()


@pytest.fixture
def x(vae):
    return vae.sample(6)


def sites(program, *args, **kwargs):
    trace = poutine.trace(program).get_trace(*args, **kwargs)
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and name != "data"
    }


def test_the_model_is_two_sites_in_a_plate_and_the_guide_is_one(vae, x):
    model, guide = sites(vae.model, x), sites(vae.guide, x)
    assert list(model) == ["z", "x"]
    assert list(guide) == ["z"]
    assert model["x"]["is_observed"]
    assert {
        frame.name
        for site in (*model.values(), *guide.values())
        for frame in site["cond_indep_stack"]
    } == {"data"}


def test_the_model_returns_x_and_the_guide_z(vae, x):
    assert torch.equal(vae.model(x), x)
    assert vae.guide(x).shape == (6, 2)
    assert vae.model(num_rows=4).shape == (4, 1, 4, 4)


def test_reconstructions_and_samples_have_the_shape_of_the_data(vae, x):
    assert vae.reconstruct(x).shape == x.shape
    assert vae.sample(3).shape == (3, 1, 4, 4)
    torch.testing.assert_close(vae.reconstruct(x), vae.decode(vae.encode(x).mean).mean.detach())


def test_the_elbo_by_row_is_its_definition(vae, x):
    torch.manual_seed(3)
    elbo = vae.elbo(x, num_samples=2)
    torch.manual_seed(3)
    q_z = vae.posterior(x)
    z = q_z.rsample((2,))
    expected = vae.likelihood(z).log_prob(x) + vae.prior().log_prob(z) - q_z.log_prob(z)
    torch.testing.assert_close(elbo, expected.mean(0))


def test_every_objective_gives_the_elbo_by_row_at_the_same_draw(vae, x):
    losses = []
    for loss in (
        lambda: Trace_ELBO().loss(vae.model, vae.guide, x),
        lambda: Trace_ELBO()(vae.model, vae.guide)(x).item(),
        lambda: -vae.elbo(x).sum().item(),
    ):
        torch.manual_seed(5)
        losses.append(loss())
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def test_the_kl_is_its_formula_whichever_objective_computes_it(vae, x):
    # Failure rate: 6e-5 each (4 standard errors), at a fixed seed.
    normal = vae.encode(x).base_dist
    formula = kl_from_standard_normal(normal.loc, normal.scale).sum()
    torch.testing.assert_close(dist.kl.kl_divergence(vae.encode(x), vae.prior()).sum(), formula)
    z = vae.encode(x).sample((1000,))
    draws = (vae.encode(x).log_prob(z) - vae.prior().log_prob(z)).sum(1)
    assert abs(draws.mean() - formula) < 4 * draws.std() / 1000**0.5
    losses = []
    for objective in (Trace_ELBO, TraceMeanField_ELBO):
        torch.manual_seed(7)  # the same draws of z: only the KL differs
        losses.append(objective().loss(vae.model, vae.guide, x.repeat(200, 1, 1, 1)) / 200)
    assert abs(losses[0] - losses[1]) < 4 * draws.std() / 200**0.5


def test_the_kl_is_zero_where_the_posterior_is_the_prior(vae, x):
    for parameter in vae.posterior.parameters():
        nn.init.zeros_(parameter)
    kl = dist.kl.kl_divergence(vae.encode(x), vae.prior())
    torch.testing.assert_close(kl, torch.zeros(6), atol=1e-5, rtol=0)  # the scale is 1 + min_scale


@pytest.mark.parametrize("objective", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("weight", [0.25, 4.0, torch.tensor(4.0)])
def test_the_kl_weight_acts_exactly_once(objective, weight):
    vae = binary_vae(FixedNoisePosterior)
    x = vae.sample(6)
    q_z = vae.encode(x)
    z = q_z.rsample()
    distortion = -vae.decode(z).log_prob(x).sum()
    kl = (q_z.log_prob(z) - vae.prior().log_prob(z)).sum()
    if objective is TraceMeanField_ELBO:
        normal = vae.posterior.network(x)
        kl = kl_from_standard_normal(normal[:, :2], 1e-6 + normal[:, 2:].exp()).sum()
        vae.posterior.forward = lambda x, y=None: DiagNormalPosterior.forward(vae.posterior, x)
        torch.manual_seed(0)
        plain = objective().loss(vae.model, vae.guide, x)
        torch.manual_seed(0)
        weighted = objective().loss(vae.model, vae.guide, x, kl_weight=weight)
        assert weighted - plain == pytest.approx(((weight - 1) * kl).item(), rel=1e-4)
    else:
        loss = objective().loss(vae.model, vae.guide, x, kl_weight=weight)
        assert loss == pytest.approx((distortion + weight * kl).item(), rel=1e-5)


@pytest.mark.parametrize("weight", [0, -1.0, float("nan")])
def test_the_kl_weight_must_be_positive(vae, x, weight):
    for program in (vae.model, vae.guide):
        with pytest.raises(ValueError, match="'kl_weight' must be greater than 0"):
            program(x, kl_weight=weight)


def test_rows_that_stand_for_a_data_set_are_scaled_to_it(vae, x):
    for objective in (Trace_ELBO(), TraceMeanField_ELBO()):
        torch.manual_seed(0)
        loss = objective.loss(vae.model, vae.guide, x)
        torch.manual_seed(0)
        assert objective.loss(vae.model, vae.guide, x, size=60) == pytest.approx(
            10 * loss, rel=1e-6
        )


def test_subsampled_losses_average_to_the_loss_of_all_rows():
    vae = binary_vae(FixedNoisePosterior)
    x = vae.sample(12)
    whole = Trace_ELBO().loss(vae.model, vae.guide, x)
    parts = [Trace_ELBO().loss(vae.model, vae.guide, part, size=12) for part in x.split(4)]
    assert sum(parts) / 3 == pytest.approx(whole, rel=1e-6)


def test_duplicated_rows_leave_the_loss_and_gradient_of_a_row_unchanged():
    vae = binary_vae(FixedNoisePosterior)
    x = vae.sample(6)
    results = []
    for rows in (x, torch.cat([x, x])):
        loss = Trace_ELBO()(vae.model, vae.guide)(rows) / len(rows)
        results.append((loss.detach(), *torch.autograd.grad(loss, list(vae.parameters()))))
    torch.testing.assert_close(results[0], results[1])


def test_vectorised_particles_average_single_ones(vae, x):
    vectorised = Trace_ELBO(num_particles=1000, vectorize_particles=True, max_plate_nesting=1)
    single = torch.stack([-vae.elbo(x).sum().detach() for _ in range(1000)])
    error = single.std() / 1000**0.5
    # Failure rate: 6e-5 (4 standard errors of a difference), at a fixed seed.
    assert abs(vectorised.loss(vae.model, vae.guide, x) - single.mean()) < 4 * 2**0.5 * error


def test_predictive_draws_from_the_prior_and_from_the_posterior(vae, x):
    assert Predictive(vae.model, num_samples=5)(num_rows=4)["x"].shape == (5, 4, 1, 4, 4)
    assert Predictive(vae.model, num_samples=5, parallel=True)(num_rows=4)["z"].shape == (5, 4, 2)
    assert Predictive(vae.model, guide=vae.guide, num_samples=5)(x)["z"].shape == (5, 6, 2)


def test_importance_and_nuts_find_the_exact_posterior():
    # z ~ N(0, 1), x | z ~ N(z, 1): the posterior at x = 1 is N(0.5, 0.5). 5 standard errors at a fixed seed.
    vae = linear_gaussian_vae(LinearGaussian(torch.ones(1, 1), torch.zeros(1), 1.0))
    x = torch.ones(1, 1)
    with torch.no_grad():
        weights = Importance(vae.model, vae.guide, num_samples=50).run(x)
    assert weights.get_ESS().item() == pytest.approx(50, rel=1e-3)
    mcmc = MCMC(NUTS(vae.model), num_samples=100, warmup_steps=50, disable_progbar=True)
    mcmc.run(x)
    z = mcmc.get_samples()["z"].flatten()
    effective = mcmc.diagnostics()["z"]["n_eff"].item()
    assert abs(z.mean() - 0.5) < 5 * (0.5 / effective) ** 0.5


def test_condition_and_uncondition_set_and_free_x(vae, x):
    conditioned = poutine.condition(vae.model, data={"x": x})
    assert sites(conditioned, num_rows=6)["x"]["is_observed"]
    free = sites(poutine.uncondition(vae.model), x)["x"]
    assert not free["is_observed"]
    assert not torch.equal(free["value"], x)


def test_render_model_draws_the_plate(vae, x):
    source = pyro.render_model(vae.model, model_args=(x,)).source
    assert "data" in source
    assert "z -> x" in source


def test_two_vaes_fit_into_one_model_under_prefixes(vae, x):
    other = binary_vae()

    def model(a, b):
        with scope(prefix="a"):
            vae.model(a)
        with scope(prefix="b"):
            other.model(b)

    def guide(a, b):
        with scope(prefix="a"):
            vae.guide(a)
        with scope(prefix="b"):
            other.guide(b)

    y = other.sample(3)
    torch.manual_seed(0)
    together = Trace_ELBO().loss(model, guide, x, y)
    torch.manual_seed(0)
    assert together == pytest.approx(
        -vae.elbo(x).sum().item() - other.elbo(y).sum().item(), rel=1e-5
    )


def test_a_call_inside_a_row_plate_is_refused(vae, x):
    for program in (vae.model, vae.guide):
        with (
            pytest.raises(
                ValueError, match=r"use vae.prior\(\), vae.likelihood\(z\) and vae.posterior\(x\)"
            ),
            pyro.plate("rows", 6),
        ):
            program(x)


def test_the_parts_can_stand_in_the_users_own_plate(vae, x):
    def model():
        with pyro.plate("rows", 6):
            z = pyro.sample("z", vae.prior())
            pyro.sample("x", vae.likelihood(z), obs=x)

    def guide():
        with pyro.plate("rows", 6):
            pyro.sample("z", vae.posterior(x))

    torch.manual_seed(0)
    by_hand = Trace_ELBO().loss(model, guide)
    torch.manual_seed(0)
    assert by_hand == pytest.approx(Trace_ELBO().loss(vae.model, vae.guide, x), rel=1e-6)


def test_a_label_can_be_enumerated_to_the_left_of_the_rows(vae, x):
    labels = vae.likelihood(torch.randn(3, 1, 2))  # one distribution of x for each of three classes

    def guide():
        pass

    @config_enumerate
    def model():
        with pyro.plate("rows", 6):
            label = pyro.sample("label", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
            logits = labels.base_dist.logits.squeeze(1)[label]
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(3), obs=x)

    by_hand = (
        (labels.log_prob(x) + torch.tensor([0.2, 0.3, 0.5]).log().unsqueeze(1)).logsumexp(0).sum()
    )
    enumerated = TraceEnum_ELBO(max_plate_nesting=1).loss(model, guide)
    assert -enumerated == pytest.approx(by_hand.item(), rel=1e-5)


def test_a_context_reaches_every_part_that_takes_one():
    vae = VAE(
        StandardNormalPrior(2),
        BernoulliLikelihood(MLP(2, [8], 16, context_dim=3), (1, 4, 4)),
        DiagNormalPosterior(MLP(16, [8], 4, context_dim=3), (1, 4, 4), 2),
    )
    y = torch.eye(3).repeat(2, 1)
    x = vae.sample(6, y)
    assert vae.elbo(x, y, num_samples=4).shape == (6,)
    assert not torch.allclose(vae.encode(x, y).mean, vae.encode(x, y.roll(1, 0)).mean)
    torch.manual_seed(0)
    loss = Trace_ELBO().loss(vae.model, vae.guide, x, y)
    torch.manual_seed(0)
    assert loss == pytest.approx(-vae.elbo(x, y).sum().item(), rel=1e-5)
    assert vae.model(y=y).shape == x.shape


class IndependentlessPrior(StandardNormalPrior):
    def forward(self, y=None):
        return super().forward(y).base_dist


BAD_VAES = {
    "'prior' must be a Prior, got an MLP": lambda prior, likelihood, posterior: VAE(
        MLP(2, [], 2), likelihood, posterior
    ),
    "'posterior' must have the likelihood's x_shape": lambda prior, likelihood, posterior: VAE(
        prior, likelihood, DiagNormalPosterior(MLP(9, [], 4), 9, 2)
    ),
    "'likelihood', a Bern.*, must make a distribution from rows of the shape .3,., but its 'netw": lambda prior, likelihood, posterior: (
        VAE(StandardNormalPrior(3), likelihood, posterior)
    ),
    "'posterior', a Diag.*, must return a distribution .* event shape .2,.": lambda prior, likelihood, posterior: (
        VAE(prior, likelihood, DiagNormalPosterior(MLP(16, [], 6), (1, 4, 4), 3))
    ),
    "'prior', an Ind.*, must return a distribution with .* event shape .2,., got": lambda prior, likelihood, posterior: (
        VAE(IndependentlessPrior(2), likelihood, posterior)
    ),
    "^'network' of BernoulliLikelihood, a Linear, must give 16 numbers": lambda prior, likelihood, posterior: (
        VAE(prior, BernoulliLikelihood(nn.Linear(2, 15), (1, 4, 4)), posterior)
    ),
}


@pytest.mark.parametrize("sentence", BAD_VAES)
def test_parts_that_do_not_fit_are_refused_when_joined(vae, sentence):
    with pytest.raises(ValueError, match=sentence):
        BAD_VAES[sentence](vae.prior, vae.likelihood, vae.posterior)


def test_x_of_another_shape_and_grey_pixels_are_refused(vae, x):
    with pytest.raises(
        ValueError, match=r"'x' must have the shape \(rows, 1, 4, 4\), got \(6, 16\)"
    ):
        vae.model(x.flatten(1))
    with pytest.raises(ValueError, match="'x' must be 0 or 1"):
        vae.model(x / 2)
    with pytest.raises(ValueError, match="'num_rows' must be omitted or equal"):
        vae.model(x, num_rows=5)


def test_building_a_vae_keeps_the_modes_of_its_modules():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Dropout(0.5))
    network[2].eval()
    VAE(
        StandardNormalPrior(2),
        BernoulliLikelihood(MLP(2, [], 16), 16),
        DiagNormalPosterior(network, 16, 2),
    )
    assert [module.training for module in network] == [True, True, False]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda vae: pickle.loads(pickle.dumps(vae))])
def test_a_copy_trains_itself_and_not_the_original(vae, x, duplicate):
    pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step(x)
    original, twin = copy.deepcopy(vae.state_dict()), duplicate(vae)
    pyro.infer.SVI(twin.model, twin.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step(x)
    for name, value in vae.state_dict().items():
        assert torch.equal(value, original[name])
        assert not torch.equal(value, twin.state_dict()[name])


def test_a_vae_and_its_copy_train_side_by_side_in_one_model(vae, x):
    twin = copy.deepcopy(vae)
    before = [parameter.clone() for parameter in (*vae.parameters(), *twin.parameters())]

    def both(first, second):
        with scope(prefix="a"):
            first(x)
        with scope(prefix="b"):
            second(x)

    svi = pyro.infer.SVI(
        lambda: both(vae.model, twin.model),
        lambda: both(vae.guide, twin.guide),
        pyro.optim.Adam({"lr": 0.1}),
        Trace_ELBO(),
    )
    svi.step()
    after = [*vae.parameters(), *twin.parameters()]
    assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_a_part_can_be_pickled_after_pyro_has_trained_it(vae, x):
    pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step(x)
    twin = pickle.loads(pickle.dumps(vae.posterior))
    torch.testing.assert_close(twin(x).mean, vae.posterior(x).mean)


def test_a_data_set_cannot_be_smaller_than_the_rows_that_stand_for_it(vae, x):
    with pytest.raises(
        ValueError, match="'size' must be at least the number of rows given, 6, got 5"
    ):
        vae.model(x, size=5)


def test_what_a_vae_showed_to_the_store_goes_with_it(x):
    store = pyro.get_param_store()
    before = set(store.keys())
    vae = binary_vae()
    vae.guide(x)
    assert len(set(store.keys()) - before) == len(list(vae.posterior.parameters()))
    del vae
    assert set(store.keys()) == before


def test_frozen_parameters_are_not_shown_and_replaced_ones_are_shown_again(vae, x):
    for parameter in vae.likelihood.parameters():
        parameter.requires_grad_(False)
    trace = poutine.trace(vae.model).get_trace(x)
    assert not [name for name, site in trace.nodes.items() if site["type"] == "param"]
    vae.guide(x)
    vae.posterior.network.layers[-1].bias = nn.Parameter(torch.ones(4))
    trace = poutine.trace(vae.guide).get_trace(x)
    shown = [site["value"] for site in trace.nodes.values() if site["type"] == "param"]
    assert any(value is vae.posterior.network.layers[-1].bias for value in shown)


def test_the_repr_names_the_three_parts_and_their_sizes(vae):
    text = repr(vae)
    for words in (
        "StandardNormalPrior(latent_dim=2)",
        "BernoulliLikelihood",
        "x_shape=(1, 4, 4)",
        "DiagNormalPosterior",
    ):
        assert words in text


def test_the_state_dict_holds_each_tensor_once_and_only_parameters(vae):
    assert set(vae.state_dict()) == {name for name, _ in vae.named_parameters()}


def test_latents_of_other_rows_are_refused(vae, x):
    z = torch.zeros(3, len(x), vae.latent_dim)
    assert vae.log_likelihood(x, z).shape == (3, len(x))
    assert vae.log_likelihood(x[0], z).shape == (3, len(x))
    with pytest.raises(
        ValueError, match=r"^'z' must have the batch shape \(6,\) of x, .*got \(5,\)"
    ):
        vae.log_likelihood(x, z[0, :5])


def test_a_vae_is_not_called_itself(vae, x):
    with pytest.raises(TypeError, match="^A VAE is not called itself: call its encode"):
        vae(x)


LATENTS = [
    (lambda: dist.Normal(torch.zeros(40, 2), 1.0).to_event(1), r"got \(40,\) and \(2,\).$"),
    (lambda: dist.Normal(torch.zeros(2), 1.0), r"got \(2,\) and \(\): add .to_event\(1\).$"),
    (lambda: dist.Normal(torch.zeros(3), 1.0).to_event(1), r"got \(\) and \(3,\).$"),
]


@pytest.mark.parametrize(("latent", "received"), LATENTS)
def test_a_latent_of_another_shape_is_refused(vae, latent, received):
    with pytest.raises(ValueError, match=r"^'latent' .* \(16,\) .* \(2,\), " + received):
        vae.sample(16, latent=latent())


REFUSED_CALLS = [
    lambda vae, x: vae.model(x, kl_weight=-1.0),
    lambda vae, x: vae.model(x, num_rows=5),
    lambda vae, x: vae.guide(x, num_rows=5),
    lambda vae, x: vae.guide(x[:, :, :2]),
]


@pytest.mark.parametrize("call", REFUSED_CALLS)
def test_a_refused_call_leaves_the_store_empty(vae, x, call):
    with pyro.get_param_store().scope():
        with pytest.raises(ValueError, match="must be|must have"):
            call(vae, x)
        assert not list(pyro.get_param_store().keys())


def test_half_precision_encodes_and_refuses_to_score(vae, x):
    vae.half()
    assert vae.encode(x).mean.dtype == torch.float16
    with pytest.raises(ValueError, match="^'vae' must have parameters of float32, .* got float16"):
        vae.elbo(x)
