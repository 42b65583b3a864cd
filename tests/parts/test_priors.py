"""The contract that every prior keeps, what each density is, and the VampPrior, which shares the VAE's posterior."""

import copy
import math
import pickle
import sys
from functools import partial

import pyro
import pytest
import references
import torch
from models import binary_vae, nowhere_special
from pyro.infer import Trace_ELBO
from test_posteriors import POSTERIORS, make_posterior
from torch import nn
from torch.distributions import Distribution

from pyro_vae import (
    MLP,
    SVI,
    VAE,
    AffineFlow,
    BernoulliLikelihood,
    ConditionalNormalPrior,
    DiagNormalPosterior,
    DiagNormalPrior,
    FlowPosterior,
    FlowPrior,
    LaplacePrior,
    MixtureNormalPrior,
    SplineFlow,
    StandardNormalPrior,
    VampPrior,
)

X_SHAPE, LATENT_DIM, CONTEXT_DIM, NUM_COMPONENTS = (2, 3), 3, 2, 4
# All but the latent dimension.
PRIORS = {
    "standard normal": StandardNormalPrior,
    "laplace": partial(LaplacePrior, scale=0.6),
    "diagonal normal": DiagNormalPrior,
    "conditional normal": partial(ConditionalNormalPrior, context_dim=CONTEXT_DIM),
    "mixture": partial(MixtureNormalPrior, num_components=NUM_COMPONENTS),
    "vamp": partial(VampPrior, num_components=NUM_COMPONENTS),
    "affine flow": partial(FlowPrior, flow=AffineFlow(num_transforms=2, hidden=[4])),
    "spline flow": partial(FlowPrior, flow=SplineFlow(num_transforms=2, hidden=[4])),
}


def make_vae(prior, posterior=None):
    """A VAE with weights that are nowhere special."""
    likelihood = BernoulliLikelihood(MLP(LATENT_DIM, [4], X_SHAPE), X_SHAPE)
    encoder = DiagNormalPosterior(MLP(X_SHAPE, [4], (2, LATENT_DIM), nn.Tanh), X_SHAPE, LATENT_DIM)
    return nowhere_special(VAE(prior, likelihood, posterior or encoder))


@pytest.fixture(params=PRIORS)
def name(request):
    return request.param


@pytest.fixture
def vae(name):
    return make_vae(PRIORS[name](LATENT_DIM))


@pytest.fixture
def y(name):
    return torch.randn(5, CONTEXT_DIM) if name == "conditional normal" else None


# The densities of one z, written plainly


def normal_density(loc, log_scale, z, floor=1e-6):
    return references.normals(z, loc, floor + log_scale.exp())


def mixture_density(vae, z, y):
    prior = vae.prior
    components = [
        normal_density(*numbers, z, floor=1e-3)
        for numbers in zip(prior.loc, prior.log_scale, strict=True)
    ]
    return references.mixture(components, prior.logits.tolist())


def vamp_density(vae, z, y):
    components = [
        normal_density(*numbers, z) for numbers in vae.posterior.network(vae.prior.pseudo_inputs)
    ]
    return references.mixture(components, [0.0] * NUM_COMPONENTS)


def flow_density(vae, z, y):
    def standard_normal(noise):
        return normal_density(torch.zeros(LATENT_DIM), torch.zeros(LATENT_DIM), noise, floor=0)

    return references.change_of_variables(vae.prior.transforms(), z, standard_normal)


DENSITIES = {
    "standard normal": lambda vae, z, y: sum(
        references.normal(value, 0, 1) for value in z.tolist()
    ),
    "laplace": lambda vae, z, y: sum(references.laplace(value, 0, 0.6) for value in z.tolist()),
    "diagonal normal": lambda vae, z, y: normal_density(vae.prior.loc, vae.prior.log_scale, z),
    "conditional normal": lambda vae, z, y: normal_density(
        *vae.prior.network(y).reshape(2, LATENT_DIM), z
    ),
    "mixture": mixture_density,
    "vamp": vamp_density,
    "affine flow": flow_density,
    "spline flow": flow_density,
}


@pytest.mark.usefixtures("float64")
def test_the_density_is_the_plain_formula(name, vae, y):
    points = torch.randn(5, LATENT_DIM)
    rows = [None] * 5 if y is None else y
    expected = [DENSITIES[name](vae, z, row) for z, row in zip(points, rows, strict=True)]
    torch.testing.assert_close(
        vae.prior(y).log_prob(points), torch.tensor(expected), atol=1e-9, rtol=0
    )


def test_draws_have_the_shape_of_the_latent(vae, y):
    p_z = vae.prior(y)
    batch_shape = () if y is None else (5,)
    assert (p_z.batch_shape, p_z.event_shape) == (batch_shape, (LATENT_DIM,))
    z = p_z.sample((4,))
    assert z.shape == (4, *batch_shape, LATENT_DIM)
    assert p_z.log_prob(z).shape == (4, *batch_shape)
    assert torch.isfinite(p_z.log_prob(z)).all()


def test_expanding_repeats_the_distribution(vae, y):
    p_z, z = vae.prior(y), torch.randn(3, 5, LATENT_DIM)
    expanded = p_z.expand((3, 5))
    assert (expanded.batch_shape, expanded.event_shape) == ((3, 5), (LATENT_DIM,))
    draws = expanded.sample()
    assert draws.shape == (3, 5, LATENT_DIM)
    assert len(draws.unique()) == draws.numel()
    torch.testing.assert_close(expanded.log_prob(z), p_z.log_prob(z))


@pytest.mark.usefixtures("float64")
def test_draws_follow_the_density_and_the_density_is_normalised(vae, y):
    # Failure rate: 6e-5 (4 standard errors), at a fixed seed.
    mean, error = references.mean_ratio(vae.prior(None if y is None else y[0]), 20_000)
    assert abs(mean - 1) < 4 * error
    assert error < 0.03


def test_the_latent_and_every_parameter_get_a_gradient(vae, y):
    z = torch.randn(5, LATENT_DIM, requires_grad=True)
    (-vae.prior(y).log_prob(z)).sum().backward()
    for tensor in (z, *vae.prior.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_distribution_follows_the_dtype_of_the_module(vae, y, dtype):
    p_z = vae.to(dtype).prior(None if y is None else y.to(dtype))
    z = p_z.sample()
    assert (z.dtype, p_z.log_prob(z).dtype) == (dtype, dtype)


@pytest.mark.parametrize(
    "copied",
    [
        lambda vae, fresh: copy.deepcopy(vae),
        lambda vae, fresh: pickle.loads(pickle.dumps(vae)),
        lambda vae, fresh: fresh if fresh.load_state_dict(vae.state_dict()) else None,
    ],
    ids=["deep copy", "pickle", "state dict"],
)
def test_a_copy_has_the_same_density_and_parameters_of_its_own(name, vae, y, copied):
    z, twin = torch.randn(5, LATENT_DIM), copied(vae, make_vae(PRIORS[name](LATENT_DIM)))
    density = vae.prior(y).log_prob(z)
    assert torch.equal(twin.prior(y).log_prob(z), density)
    for parameter in twin.prior.parameters():
        parameter.data += 0.1
    assert torch.equal(vae.prior(y).log_prob(z), density)
    if list(twin.prior.parameters()):
        assert not torch.isclose(twin.prior(y).log_prob(z), density).any()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda prior: pickle.loads(pickle.dumps(prior))])
def test_a_prior_can_be_copied_without_its_vae(vae, y, copied):
    z = torch.randn(5, LATENT_DIM)
    assert torch.equal(copied(vae.prior)(y).log_prob(z), vae.prior(y).log_prob(z))


def test_the_repr_names_the_sizes(name, vae):
    text = repr(vae.prior)
    assert text.startswith(type(vae.prior).__name__)
    assert "latent_dim=3" in text
    assert ("num_components=4" in text) == (name in ("mixture", "vamp"))


def test_a_context_leaves_the_other_priors_as_they_are(name, vae):
    if name != "conditional normal":
        z = torch.randn(5, LATENT_DIM)
        assert torch.equal(
            vae.prior(torch.randn(5, CONTEXT_DIM)).log_prob(z), vae.prior().log_prob(z)
        )


def test_a_conditional_normal_takes_any_leading_dimensions_and_any_network():
    prior = ConditionalNormalPrior(LATENT_DIM, CONTEXT_DIM, partial(MLP, hidden=[4]))
    y, z = torch.randn(4, 1, 3, CONTEXT_DIM), torch.randn(LATENT_DIM)
    assert prior(y).batch_shape == (4, 1, 3)
    one_by_one = torch.stack([prior(row).log_prob(z) for row in y.reshape(-1, CONTEXT_DIM)])
    torch.testing.assert_close(prior(y).log_prob(z).flatten(), one_by_one)
    with pytest.raises(ValueError, match="'y' must be given to a ConditionalNormalPrior, got none"):
        prior()


BAD_PRIORS = {
    "'latent_dim' must be a whole number of at least 1, got 0": lambda: StandardNormalPrior(0),
    "'scale' of LaplacePrior must be greater than 0, got 0": lambda: LaplacePrior(2, scale=0.0),
    "'scale' of LaplacePrior must be greater than 0, got nan": lambda: LaplacePrior(
        2, scale=math.nan
    ),
    "'context_dim' must be a whole number of at least 1, got 0": lambda: ConditionalNormalPrior(
        2, 0
    ),
    "'num_components' must be a whole number of at least 1, got 0": lambda: MixtureNormalPrior(
        2, 0
    ),
    "'num_components' must be a whole number of at least 1, got -1": lambda: VampPrior(2, -1),
    "LaplacePrior does not start from data: leave 'initialize_prior' at false": lambda: (
        LaplacePrior(2).initialize(torch.zeros(3, 2))
    ),
}


@pytest.mark.parametrize("sentence", BAD_PRIORS)
def test_what_no_prior_can_be_is_refused(sentence):
    with pytest.raises(ValueError, match=sentence):
        BAD_PRIORS[sentence]()


# VampPrior


@pytest.fixture
def vamp():
    return make_vae(VampPrior(LATENT_DIM, NUM_COMPONENTS))


@pytest.mark.parametrize("family", POSTERIORS)
@pytest.mark.usefixtures("float64")
def test_a_vamp_prior_averages_the_posteriors_of_its_pseudo_inputs(family):
    vae, z = (
        make_vae(VampPrior(LATENT_DIM, NUM_COMPONENTS), make_posterior(family)),
        torch.randn(5, LATENT_DIM),
    )
    components = [vae.posterior(u).log_prob(z).exp() for u in vae.prior.pseudo_inputs]
    torch.testing.assert_close(vae.prior().log_prob(z), (sum(components) / NUM_COMPONENTS).log())
    assert vae.prior().expand((6,)).sample().shape == (6, LATENT_DIM)


@pytest.mark.parametrize("family", POSTERIORS)
def test_a_vamp_prior_of_one_component_is_that_posterior(family):
    vae, z = make_vae(VampPrior(LATENT_DIM, 1), make_posterior(family)), torch.randn(5, LATENT_DIM)
    torch.testing.assert_close(
        vae.prior().log_prob(z), vae.posterior(vae.prior.pseudo_inputs[0]).log_prob(z)
    )


@pytest.mark.parametrize("family", POSTERIORS)
@pytest.mark.usefixtures("float64")
def test_a_conditional_vamp_prior_averages_the_posteriors_at_that_context(family):
    vae = make_vae(VampPrior(LATENT_DIM, NUM_COMPONENTS), make_posterior(family, CONTEXT_DIM))
    assert (vae.prior.context_dim, vae.context_dim) == (CONTEXT_DIM, CONTEXT_DIM)
    y, z = torch.randn(6, CONTEXT_DIM), torch.randn(2, 6, LATENT_DIM)
    p_z = vae.prior(y)
    assert p_z.batch_shape == (6,)
    received = p_z.log_prob(z)
    for row, context in enumerate(y):
        components = [
            vae.posterior(u, context).log_prob(z[:, row]).exp() for u in vae.prior.pseudo_inputs
        ]
        torch.testing.assert_close(received[:, row], (sum(components) / NUM_COMPONENTS).log())
        torch.testing.assert_close(vae.prior(context).log_prob(z[:, row]), received[:, row])
    received.sum().backward()
    assert (vae.prior.pseudo_inputs.grad.flatten(1).abs().sum(1) > 0).all()


def test_a_vamp_prior_shares_each_tensor_of_the_posterior_and_owns_none(vamp):
    assert [name for name, _ in vamp.prior.named_parameters()] == ["pseudo_inputs"]
    assert list(vamp.prior.children()) == []
    parameters = list(vamp.parameters())
    assert len({id(parameter) for parameter in parameters}) == len(parameters)
    assert set(vamp.state_dict()) == {name for name, _ in vamp.named_parameters()}
    places = [tensor.data_ptr() for tensor in vamp.state_dict().values()]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda vae: pickle.loads(pickle.dumps(vae))])
def test_a_copy_shares_within_itself_and_not_with_the_original(vamp, duplicate):
    z, twin = torch.randn(5, LATENT_DIM), duplicate(vamp)
    density = vamp.prior().log_prob(z)
    twin.posterior.network.layers[-1].bias.data += 0.5
    assert torch.equal(vamp.prior().log_prob(z), density)
    components = torch.stack([twin.posterior(u).log_prob(z) for u in twin.prior.pseudo_inputs])
    torch.testing.assert_close(
        twin.prior().log_prob(z), components.logsumexp(0) - math.log(NUM_COMPONENTS)
    )
    assert not torch.isclose(twin.prior().log_prob(z), density).any()


def test_a_vamp_prior_follows_its_posterior_to_another_dtype(vamp):
    vamp.double()
    assert vamp.prior().sample().dtype == torch.float64
    prior = VampPrior(LATENT_DIM, 4)
    prior.attach(make_posterior("full normal").double())
    assert prior.pseudo_inputs.dtype == torch.float64


def loss_by_hand(vae, x, posterior_of_prior):
    """−ELBO with the mixture written out over this posterior."""
    torch.manual_seed(3)
    q_z = vae.posterior(x)
    z = q_z.rsample()
    log_p = posterior_of_prior(vae.prior.pseudo_inputs).log_prob(z.unsqueeze(1)).logsumexp(
        1
    ) - math.log(NUM_COMPONENTS)
    return -(vae.likelihood(z).log_prob(x) + log_p - q_z.log_prob(z)).sum()


def gradients_of_ours(vae, x):
    optimizer = torch.optim.SGD(vae.parameters(), lr=0.0)
    SVI(vae.model, vae.guide, optimizer, Trace_ELBO()).backward(x)


def gradients_of_pyro(vae, x):
    Trace_ELBO().loss_and_grads(vae.model, vae.guide, x)


@pytest.mark.parametrize("backward", [gradients_of_ours, gradients_of_pyro])
def test_the_shared_encoder_gets_its_gradient_through_posterior_and_prior(vamp, backward):
    x = vamp.sample(6)
    expected = torch.autograd.grad(loss_by_hand(vamp, x, vamp.posterior), list(vamp.parameters()))
    one_path = torch.autograd.grad(
        loss_by_hand(vamp, x, copy.deepcopy(vamp.posterior)), list(vamp.parameters())
    )
    torch.manual_seed(3)
    backward(vamp, x)
    for (name, parameter), gradient, partial_gradient in zip(
        vamp.named_parameters(), expected, one_path, strict=True
    ):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-5)
        assert torch.allclose(gradient, partial_gradient) == (not name.startswith("posterior")), (
            name
        )


def step_of_ours(vae, x):
    SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), lr=0.1), Trace_ELBO()).step(x)


def step_of_pyro(vae, x):
    pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step(x)


@pytest.mark.parametrize("step", [step_of_ours, step_of_pyro])
def test_training_moves_the_pseudo_inputs_and_the_shared_encoder(vamp, step):
    before, x = copy.deepcopy(vamp.state_dict()), vamp.sample(6)
    step(vamp, x)
    for name, value in vamp.state_dict().items():
        assert not torch.equal(value, before[name]), name


def test_pseudo_inputs_start_at_rows_of_data_with_noise_between_them():
    x = torch.rand(6, *X_SHAPE)
    vae = make_vae(VampPrior(LATENT_DIM, NUM_COMPONENTS, noise=0.01))
    vae.prior.initialize(x)
    noise = vae.prior.pseudo_inputs - x[:NUM_COMPONENTS]
    assert 0.003 < noise.std() < 0.03
    vae.prior.initialize(torch.ones(6, *X_SHAPE))
    assert len(vae.prior.pseudo_inputs.unique(dim=0)) == NUM_COMPONENTS
    exact = make_vae(VampPrior(LATENT_DIM, NUM_COMPONENTS, noise=0.0)).prior
    exact.initialize(x.double())
    assert torch.equal(exact.pseudo_inputs, x[:NUM_COMPONENTS])
    assert exact.pseudo_inputs.requires_grad


def test_too_few_rows_to_start_from_are_refused(vamp):
    with pytest.raises(ValueError, match="'x' must have at least num_components = 4 rows, got 3"):
        vamp.prior.initialize(torch.rand(3, *X_SHAPE))


@pytest.mark.parametrize(
    "use", [lambda prior: prior(), lambda prior: prior.initialize(torch.rand(9, *X_SHAPE))]
)
def test_a_vamp_prior_outside_a_vae_is_refused(use):
    with pytest.raises(
        ValueError, match="'prior' must be part of a VAE, whose posterior a VampPrior is made of"
    ):
        use(VampPrior(LATENT_DIM))


# Flows


@pytest.mark.parametrize("expected", [True, False])
@pytest.mark.parametrize("flow", [AffineFlow, SplineFlow])
def test_flows_leave_the_validation_of_every_other_distribution_as_it_was(
    flow, expected, monkeypatch
):
    for name in [name for name in sys.modules if name.split(".")[0] == "zuko"]:
        monkeypatch.delitem(sys.modules, name)  # so that it is imported again
    monkeypatch.setattr(Distribution, "_validate_args", expected)
    p_z = FlowPrior(2, flow())()
    p_z.log_prob(p_z.sample())
    FlowPosterior(nn.Linear(3, 36), 3, 2, flow())(torch.zeros(3)).rsample()
    assert Distribution._validate_args is expected
    assert "zuko" in sys.modules


def test_the_repr_of_a_flow_names_its_sizes():
    assert (
        repr(SplineFlow(num_transforms=2, hidden=[8, 8]))
        == "SplineFlow(num_transforms=2, hidden=(8, 8))"
    )


def test_a_vamp_prior_belongs_to_one_posterior():
    vae, other = (binary_vae() for _ in range(2))
    prior = VampPrior(2, 3)
    VAE(prior, vae.likelihood, vae.posterior)
    VAE(prior, vae.likelihood, vae.posterior)
    with pytest.raises(ValueError, match="'prior' must not be the VampPrior of another VAE"):
        VAE(prior, other.likelihood, other.posterior)


def test_a_vae_that_is_refused_leaves_its_vamp_prior_free():
    prior, vae = VampPrior(2, 3), binary_vae()
    with pytest.raises(ValueError, match="'posterior', a Diag.*, must make a distribution"):
        VAE(prior, vae.likelihood, DiagNormalPosterior(nn.Linear(3, 4), (1, 4, 4), 2))
    VAE(prior, vae.likelihood, vae.posterior)


@pytest.mark.parametrize(
    "make", [DiagNormalPrior, MixtureNormalPrior, partial(ConditionalNormalPrior, context_dim=2)]
)
def test_a_floor_must_not_be_negative(make):
    with pytest.raises(ValueError, match="'min_scale' must be 0 or more, got -0.1"):
        make(latent_dim=2, min_scale=-0.1)
