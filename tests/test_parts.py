"""The contract that every prior, likelihood and posterior keeps; a new class adds one row."""

import copy
import math

import pytest
import references
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from pyro_vae import (
    MLP,
    SVI,
    VAE,
    BernoulliLikelihood,
    BinomialLikelihood,
    ContinuousBernoulliLikelihood,
    DiagNormalPosterior,
    LearnedScale,
    Likelihood,
    NetworkScale,
    NormalLikelihood,
    OneHotCategoricalLikelihood,
    StandardNormalPrior,
)

X_SHAPE = (2, 3)
LATENT_DIM = 2


def network(out_shape):
    return MLP(LATENT_DIM, [4], out_shape, activation=nn.Tanh)


def scored_with(density):
    """log p(x) from a density of one element and the network's numbers for it."""
    return lambda x, outputs: sum(
        density(*pair) for pair in zip(x.flatten().tolist(), outputs.flatten().tolist(), strict=True)
    )


def scored_by_network_scale(x, outputs):
    pairs = zip(x.flatten().tolist(), *(part.flatten().tolist() for part in outputs), strict=True)
    return sum(references.normal(value, loc, 1e-3 + math.exp(log_scale)) for value, loc, log_scale in pairs)


LIKELIHOODS = {
    "bernoulli": (
        lambda: BernoulliLikelihood(network, X_SHAPE),
        torch.tensor([[0.0, 1, 1], [1, 0, 0]]),
        scored_with(references.bernoulli),
    ),
    "relaxed bernoulli": (
        lambda: BernoulliLikelihood(network, X_SHAPE, relaxed=True),
        torch.tensor([[0.0, 0.25, 1], [0.9, 0.5, 0.1]]),
        scored_with(references.bernoulli),
    ),
    "continuous bernoulli": (
        lambda: ContinuousBernoulliLikelihood(network, X_SHAPE),
        torch.tensor([[0.0, 0.25, 1], [0.9, 0.5, 0.1]]),
        scored_with(references.continuous_bernoulli),
    ),
    "normal, fixed scale": (
        lambda: NormalLikelihood(network, X_SHAPE, scale=0.3),
        torch.tensor([[0.0, -1, 1], [2, 0.5, 3]]),
        scored_with(lambda x, loc: references.normal(x, loc, 0.3)),
    ),
    "normal, one learned scale": (
        lambda: NormalLikelihood(network, X_SHAPE, LearnedScale(init=2.0)),
        torch.tensor([[0.0, -1, 1], [2, 0.5, 3]]),
        scored_with(lambda x, loc: references.normal(x, loc, 2.0)),
    ),
    "normal, a scale an element": (
        lambda: NormalLikelihood(network, X_SHAPE, LearnedScale(shape=X_SHAPE, init=0.5)),
        torch.tensor([[0.0, -1, 1], [2, 0.5, 3]]),
        scored_with(lambda x, loc: references.normal(x, loc, 0.5)),
    ),
    "normal, scale from the network": (
        lambda: NormalLikelihood(network, X_SHAPE, NetworkScale()),
        torch.tensor([[0.0, -1, 1], [2, 0.5, 3]]),
        scored_by_network_scale,
    ),
    "binomial": (
        lambda: BinomialLikelihood(network, X_SHAPE, total_count=16),
        torch.tensor([[0.0, 16, 7], [1, 8, 15]]),
        scored_with(lambda x, logit: references.binomial(x, 16, logit)),
    ),
    "one-hot": (
        lambda: OneHotCategoricalLikelihood(network, X_SHAPE),
        torch.tensor([[0.0, 1, 0], [0, 0, 1]]),
        lambda x, outputs: sum(map(references.categorical, x.tolist(), outputs.tolist())),
    ),
}
OTHERS = {
    "standard normal": lambda: StandardNormalPrior(LATENT_DIM),
    "diagonal normal": lambda: DiagNormalPosterior(lambda out_shape: MLP(6, [4], out_shape), X_SHAPE, LATENT_DIM),
}
PARTS = {name: make for name, (make, _, _) in LIKELIHOODS.items()} | OTHERS


@pytest.fixture(params=LIKELIHOODS)
def likelihood_case(request):
    make, x, log_prob = LIKELIHOODS[request.param]
    return make(), x, log_prob


def test_a_likelihood_scores_like_the_plain_formula(likelihood_case):
    likelihood, x, log_prob = likelihood_case
    likelihood, z = likelihood.double(), torch.randn(LATENT_DIM, dtype=torch.float64)
    outputs = likelihood.call_network(z).detach()
    expected = log_prob(x, outputs if outputs.shape[0] == 2 and outputs.dim() == 3 else outputs.reshape(X_SHAPE))
    assert likelihood(z).log_prob(x.double()).item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("batch_shape", [(), (3,), (4, 1, 3), (2, 4, 1, 3)])
def test_a_likelihood_keeps_leading_dimensions_apart(likelihood_case, batch_shape):
    likelihood, x, _ = likelihood_case
    z = torch.randn(*batch_shape, LATENT_DIM)
    p_x = likelihood(z)
    assert p_x.batch_shape == batch_shape
    assert p_x.event_shape == X_SHAPE
    one_by_one = torch.stack([likelihood(row).log_prob(x) for row in z.reshape(-1, LATENT_DIM)])
    torch.testing.assert_close(p_x.log_prob(x).flatten(), one_by_one)


def test_every_parameter_of_a_likelihood_gets_a_gradient(likelihood_case):
    likelihood, x, _ = likelihood_case
    likelihood(torch.randn(5, LATENT_DIM)).log_prob(x).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in likelihood.parameters())


def test_a_likelihood_accepts_its_own_draws(likelihood_case):
    likelihood, _, _ = likelihood_case
    likelihood.check(likelihood(torch.randn(50, LATENT_DIM)).sample())


def test_the_bias_starts_at_the_mean_of_the_data(likelihood_case):
    likelihood, _, _ = likelihood_case
    mean = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]])
    nn.init.zeros_(likelihood.network.layers[-1].weight)
    likelihood.initialize_bias(mean)
    torch.testing.assert_close(likelihood(torch.randn(LATENT_DIM)).mean, mean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_the_same_after_saving_and_loading(name, tmp_path):
    part, other = PARTS[name](), PARTS[name]()
    torch.save(part.state_dict(), tmp_path / "part.pt")
    other.load_state_dict(torch.load(tmp_path / "part.pt", weights_only=True))
    for key, value in part.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


@pytest.mark.parametrize("name", PARTS)
def test_the_repr_of_a_part_names_its_sizes(name):
    part = PARTS[name]()
    expected = "x_shape=(2, 3)" if hasattr(part, "x_shape") else "latent_dim=2"
    assert type(part).__name__ in repr(part)
    assert expected in repr(part)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_other_parts_follow_the_dtype_of_their_module(dtype):
    assert OTHERS["standard normal"]().to(dtype)().sample().dtype == dtype
    q_z = OTHERS["diagonal normal"]().to(dtype)(torch.zeros(3, *X_SHAPE, dtype=dtype))
    assert q_z.sample().dtype == dtype


@pytest.mark.parametrize("batch_shape", [(), (3,), (4, 1, 3)])
def test_a_diagonal_normal_posterior_has_the_network_loc_and_scale(batch_shape):
    posterior, x = OTHERS["diagonal normal"](), torch.randn(*batch_shape, *X_SHAPE)
    q_z = posterior(x)
    assert (q_z.batch_shape, q_z.event_shape) == (batch_shape, (LATENT_DIM,))
    outputs = posterior.network(x.reshape(-1, *X_SHAPE)).reshape(*batch_shape, 2, LATENT_DIM)
    torch.testing.assert_close(q_z.mean, outputs[..., 0, :])
    torch.testing.assert_close(q_z.stddev, outputs[..., 1, :].exp(), atol=2e-6, rtol=1e-6)


def test_a_diagonal_normal_posterior_survives_a_scale_that_underflows():
    posterior = DiagNormalPosterior(nn.Linear(6, 4), 6, LATENT_DIM)
    posterior.network.bias.data[2:] = -200.0
    assert torch.isfinite(posterior(torch.zeros(6)).log_prob(torch.zeros(2)))


SUPPORT_ERRORS = {
    "bernoulli": (0.5, "must be 0 or 1 .* Threshold.*ContinuousBernoulliLikelihood.*relaxed=True"),
    "relaxed bernoulli": (1.5, r"must lie in \[0, 1\].*to 1.5"),
    "continuous bernoulli": (-0.5, r"must lie in \[0, 1\].*from -0.5"),
    "normal, fixed scale": (math.nan, "must be finite"),
    "binomial": (3.5, "whole levels from 0 to total_count = 16"),
    "one-hot": (1.0, "one-hot along its last axis"),
}


@pytest.mark.parametrize("name", SUPPORT_ERRORS)
def test_data_outside_the_support_get_one_sentence(name):
    make, x, _ = LIKELIHOODS[name]
    value, sentence = SUPPORT_ERRORS[name]
    x = x.clone()
    x[0, 0] = value
    make().check(LIKELIHOODS[name][1])
    with pytest.raises(ValueError, match=sentence):
        make().check(x)


@pytest.mark.parametrize("name", [name for name in SUPPORT_ERRORS if not name.startswith("normal")])
def test_not_a_number_is_outside_every_support(name):
    make, x, _ = LIKELIHOODS[name]
    with pytest.raises(ValueError, match="'x' must"):
        make().check(torch.full_like(x, math.nan))


def test_a_network_of_the_wrong_size_is_refused():
    with pytest.raises(ValueError, match=r"'network' of BernoulliLikelihood must give 6 numbers.*got 5"):
        BernoulliLikelihood(nn.Linear(2, 5), X_SHAPE)(torch.zeros(3, 2))


@pytest.mark.parametrize("sizes", [(2, 0), (-1,), 2.5, "8"])
def test_a_shape_must_hold_positive_whole_numbers(sizes):
    with pytest.raises(ValueError, match="'x_shape' must hold positive whole numbers"):
        BernoulliLikelihood(nn.Identity(), sizes)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_scale_must_be_positive(value):
    with pytest.raises(ValueError, match="'value' of a FixedScale must be greater than 0"):
        NormalLikelihood(network, X_SHAPE, scale=value)


def test_a_likelihood_without_a_link_says_so():
    class Plain(Likelihood):
        def forward(self, z, y=None):
            raise NotImplementedError

    with pytest.raises(ValueError, match="Plain defines no 'link'"):
        Plain(network, X_SHAPE).initialize_bias(torch.zeros(X_SHAPE))
    with pytest.raises(ValueError, match="must offer an 'output_bias'"):
        Plain(nn.Linear(2, 6), X_SHAPE).initialize_bias(torch.zeros(X_SHAPE))


def test_an_mlp_appends_the_context():
    mlp = MLP(3, [5], (2, 4), context_dim=2)
    inputs, y = torch.randn(6, 3), torch.randn(6, 2)
    assert mlp(inputs, y).shape == (6, 2, 4)
    assert not torch.allclose(mlp(inputs, y), mlp(inputs, -y))
    with pytest.raises(ValueError, match="accepts 3 numbers a row and a context 'y' of 2, got 3 and 0"):
        mlp(inputs)


def test_an_mlp_without_hidden_layers_is_affine():
    mlp = MLP(3, [], 2)
    a, b = torch.randn(2, 1, 3)
    torch.testing.assert_close(mlp(a) + mlp(b), mlp(a + b) + mlp(torch.zeros(1, 3)))


@pytest.mark.parametrize("objective", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_traced_step_is_that_of_plain_pyro_bit_for_bit(name, objective):
    make, x, _ = LIKELIHOODS[name]
    vae = VAE(OTHERS["standard normal"](), make(), OTHERS["diagonal normal"]())
    batches = [torch.stack([x, x.flip(0)]), torch.stack([x.flip(0), x.flip(0)])]
    received, expected = [steps(vae, objective(), batches, trace) for trace in (True, False)]
    torch.testing.assert_close(received, expected, rtol=0, atol=0)


def steps(vae, objective, batches, trace):
    """Losses and gradients of some steps from the same start, and the random number that follows."""
    vae = copy.deepcopy(vae)
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), lr=0.01), objective, trace=trace)
    torch.manual_seed(1)
    results = []
    for x in batches * 3:
        loss = svi.step(x)
        results.append([loss, *(parameter.grad for parameter in vae.parameters())])
    assert svi.how == ("traced" if trace else "plain")
    return results, torch.randn(())
