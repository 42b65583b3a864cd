"""The contract that every prior, likelihood and posterior keeps; a new class adds one row."""

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

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
    BetaLikelihood,
    BinomialLikelihood,
    Columns,
    ContinuousBernoulliLikelihood,
    DiagNormalPosterior,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    Execution,
    LaplaceLikelihood,
    LearnedScale,
    Likelihood,
    NegativeBinomialLikelihood,
    NetworkScale,
    NormalLikelihood,
    OneHotCategoricalLikelihood,
    PoissonLikelihood,
    ProductLikelihood,
    StandardNormalPrior,
    StudentTLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)

X_SHAPE = (2, 3)
LATENT_DIM = 2


def network(out_shape):
    return MLP(LATENT_DIM, [4], out_shape, activation=nn.Tanh)


class Case(NamedTuple):
    """A likelihood, a row of data that it can score, the plain formula, and a mean that training can start from."""

    make: Callable
    x: torch.Tensor
    log_prob: Callable  # of x and the numbers that the network gives for it
    mean: torch.Tensor = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]])


def scored_with(density):
    """log p(x) from a density of one element and the network's numbers for it."""
    return lambda x, outputs: sum(
        density(value, *numbers)
        for value, numbers in zip(
            x.flatten().tolist(), outputs.reshape(-1, x.numel()).T.tolist(), strict=True
        )
    )


def discretized_logistic(level, raw_loc, log_scale):
    return references.discretized_logistic(
        level, 7.5 * (1 + raw_loc), 7.5 * (1e-3 + math.exp(log_scale)), 16
    )


def discretized_logistic_mixture(level, *numbers):
    logits, *parameters = (numbers[start : start + 5] for start in (0, 5, 10))
    densities = [discretized_logistic(level, *pair) for pair in zip(*parameters, strict=True)]
    return references.mixture(densities, logits)


def beta(x, logit, log_precision):
    mean = 1 / (1 + math.exp(-logit))
    precision = 1 / (math.exp(-log_precision) + 1e-4)
    return references.beta(x, 1e-3 + mean * precision, 1e-3 + (1 - mean) * precision)


def zero_inflated(x, log_mean, gate_logit, log_dispersion):
    gate, dispersion = 1 / (1 + math.exp(-gate_logit)), 1e-3 + math.exp(log_dispersion)
    return references.zero_inflated_negative_binomial(x, math.exp(log_mean), dispersion, gate)


def columns_of_four_kinds(x, outputs):
    x, outputs = x.tolist(), outputs.tolist()
    return (
        references.normal(x[0], outputs[0], 1e-3 + math.exp(outputs[2]))
        + references.normal(x[1], outputs[1], 1e-3 + math.exp(outputs[3]))
        + references.poisson(x[2], 1e-6 + math.exp(outputs[4]))
        + references.categorical(x[3:6], outputs[5:8])
        + references.bernoulli(x[6], outputs[8])
    )


REAL = torch.tensor([[0.0, -1, 1], [2, 0.5, 3]])
COUNTS = torch.tensor([[0.0, 2, 7], [1, 0, 30]])
LEVELS = torch.tensor([[0.0, 15, 7], [1, 8, 14]])
LEVELS_MEAN = torch.tensor([[0.2, 3.0, 7.5], [10.0, 14.0, 14.9]])
COUNTS_MEAN = torch.tensor([[0.1, 2.0, 7.0], [1.0, 0.01, 300.0]])
TABLE = [
    Columns(2, lambda network, x_shape: NormalLikelihood(network, x_shape, NetworkScale())),
    Columns(1, PoissonLikelihood),
    Columns(3, OneHotCategoricalLikelihood),
    Columns(1, BernoulliLikelihood),
]
LIKELIHOODS = {
    "bernoulli": Case(
        lambda: BernoulliLikelihood(network, X_SHAPE),
        torch.tensor([[0.0, 1, 1], [1, 0, 0]]),
        scored_with(references.bernoulli),
    ),
    "relaxed bernoulli": Case(
        lambda: BernoulliLikelihood(network, X_SHAPE, relaxed=True),
        torch.tensor([[0.0, 0.25, 1], [0.9, 0.5, 0.1]]),
        scored_with(references.bernoulli),
    ),
    "continuous bernoulli": Case(
        lambda: ContinuousBernoulliLikelihood(network, X_SHAPE),
        torch.tensor([[0.0, 0.25, 1], [0.9, 0.5, 0.1]]),
        scored_with(references.continuous_bernoulli),
    ),
    "beta": Case(
        lambda: BetaLikelihood(network, X_SHAPE),
        torch.tensor([[0.001, 0.25, 0.999], [0.9, 0.5, 0.1]]),
        scored_with(beta),
    ),
    "normal, fixed scale": Case(
        lambda: NormalLikelihood(network, X_SHAPE, scale=0.3),
        REAL,
        scored_with(lambda x, loc: references.normal(x, loc, 0.3)),
    ),
    "normal, one learned scale": Case(
        lambda: NormalLikelihood(network, X_SHAPE, LearnedScale(init=2.0)),
        REAL,
        scored_with(lambda x, loc: references.normal(x, loc, 2.0)),
    ),
    "normal, a scale an element": Case(
        lambda: NormalLikelihood(network, X_SHAPE, LearnedScale(shape=X_SHAPE, init=0.5)),
        REAL,
        scored_with(lambda x, loc: references.normal(x, loc, 0.5)),
    ),
    "normal, scale from the network": Case(
        lambda: NormalLikelihood(network, X_SHAPE, NetworkScale()),
        REAL,
        scored_with(
            lambda x, loc, log_scale: references.normal(x, loc, 1e-3 + math.exp(log_scale))
        ),
    ),
    "laplace": Case(
        lambda: LaplaceLikelihood(network, X_SHAPE, LearnedScale(init=0.5)),
        REAL,
        scored_with(lambda x, loc: references.laplace(x, loc, 0.5)),
    ),
    "student t": Case(
        lambda: StudentTLikelihood(network, X_SHAPE, NetworkScale(), df=3.0),
        REAL,
        scored_with(
            lambda x, loc, log_scale: references.student_t(x, 3.0, loc, 1e-3 + math.exp(log_scale))
        ),
    ),
    "binomial": Case(
        lambda: BinomialLikelihood(network, X_SHAPE, total_count=16),
        torch.tensor([[0.0, 16, 7], [1, 8, 15]]),
        scored_with(lambda x, logit: references.binomial(x, 16, logit)),
    ),
    "one-hot": Case(
        lambda: OneHotCategoricalLikelihood(network, X_SHAPE),
        torch.tensor([[0.0, 1, 0], [0, 0, 1]]),
        lambda x, outputs: sum(map(references.categorical, x.tolist(), outputs.tolist())),
    ),
    "discretized logistic": Case(
        lambda: DiscretizedLogisticLikelihood(network, X_SHAPE, num_levels=16),
        LEVELS,
        scored_with(discretized_logistic),
        LEVELS_MEAN,
    ),
    "discretized logistic mixture": Case(
        lambda: DiscretizedLogisticMixtureLikelihood(network, X_SHAPE, num_levels=16),
        LEVELS,
        scored_with(discretized_logistic_mixture),
        LEVELS_MEAN,
    ),
    "poisson": Case(
        lambda: PoissonLikelihood(network, X_SHAPE),
        COUNTS,
        scored_with(lambda x, log_rate: references.poisson(x, 1e-6 + math.exp(log_rate))),
        COUNTS_MEAN,
    ),
    "negative binomial": Case(
        lambda: NegativeBinomialLikelihood(network, X_SHAPE),
        COUNTS,
        scored_with(lambda x, log_mean: references.negative_binomial(x, math.exp(log_mean), 1.0)),
        COUNTS_MEAN,
    ),
    "negative binomial, fixed dispersion": Case(
        lambda: NegativeBinomialLikelihood(network, X_SHAPE, dispersion=0.2),
        COUNTS,
        scored_with(lambda x, log_mean: references.negative_binomial(x, math.exp(log_mean), 0.2)),
        COUNTS_MEAN,
    ),
    "zero-inflated negative binomial": Case(
        lambda: ZeroInflatedNegativeBinomialLikelihood(network, X_SHAPE, NetworkScale()),
        COUNTS,
        scored_with(zero_inflated),
        COUNTS_MEAN,
    ),
    "product": Case(
        lambda: ProductLikelihood(network, 7, TABLE),
        torch.tensor([0.5, -1, 3, 0, 1, 0, 1]),
        columns_of_four_kinds,
        torch.tensor([0.2, -3.0, 5.0, 0.2, 0.3, 0.5, 0.6]),
    ),
}
OTHERS = {
    "standard normal": lambda: StandardNormalPrior(LATENT_DIM),
    "diagonal normal": lambda: DiagNormalPosterior(
        lambda out_shape: MLP(6, [4], out_shape), X_SHAPE, LATENT_DIM
    ),
}
PARTS = {name: case.make for name, case in LIKELIHOODS.items()} | OTHERS


@pytest.fixture(params=LIKELIHOODS)
def likelihood_case(request):
    case = LIKELIHOODS[request.param]
    return case.make(), case


def test_a_likelihood_scores_like_the_plain_formula(likelihood_case):
    likelihood, case = likelihood_case
    likelihood, z = likelihood.double(), torch.randn(LATENT_DIM, dtype=torch.float64)
    expected = case.log_prob(case.x.double(), likelihood.call_network(z).detach())
    assert likelihood(z).log_prob(case.x.double()).item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("batch_shape", [(), (3,), (4, 1, 3), (2, 4, 1, 3)])
def test_a_likelihood_keeps_leading_dimensions_apart(likelihood_case, batch_shape):
    likelihood, case = likelihood_case
    z = torch.randn(*batch_shape, LATENT_DIM)
    p_x = likelihood(z)
    assert p_x.batch_shape == batch_shape
    assert p_x.event_shape == case.x.shape
    one_by_one = torch.stack(
        [likelihood(row).log_prob(case.x) for row in z.reshape(-1, LATENT_DIM)]
    )
    torch.testing.assert_close(p_x.log_prob(case.x).flatten(), one_by_one)


def test_every_parameter_of_a_likelihood_gets_a_gradient(likelihood_case):
    likelihood, case = likelihood_case
    likelihood(torch.randn(5, LATENT_DIM)).log_prob(case.x).sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for parameter in likelihood.parameters()
    )


def test_a_likelihood_accepts_its_own_draws(likelihood_case):
    likelihood, _ = likelihood_case
    likelihood.check(likelihood(torch.randn(50, LATENT_DIM)).sample())


def test_the_bias_starts_at_the_mean_of_the_data(likelihood_case):
    likelihood, case = likelihood_case
    nn.init.zeros_(likelihood.network.layers[-1].weight)
    likelihood.initialize_bias(case.mean)
    torch.testing.assert_close(
        likelihood(torch.randn(LATENT_DIM)).mean, case.mean, atol=1e-4, rtol=1e-4
    )


def test_every_number_of_the_network_gets_a_gradient_at_that_start(likelihood_case):
    likelihood, case = likelihood_case
    likelihood.initialize_bias(case.mean)
    likelihood(torch.zeros(LATENT_DIM)).log_prob(case.x).backward()
    assert (likelihood.network.output_bias.grad != 0).all()


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
    expected = f"x_shape={tuple(part.x_shape)}" if hasattr(part, "x_shape") else "latent_dim=2"
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
    "beta": (0.0, r"must lie in \(0, 1\), without 0 and 1, .*from 0 to .*OpenUnitInterval"),
    "normal, fixed scale": (math.nan, "must be finite"),
    "laplace": (math.inf, "must be finite for LaplaceLikelihood"),
    "student t": (math.nan, "must be finite for StudentTLikelihood"),
    "binomial": (3.5, "whole levels from 0 to total_count = 16"),
    "one-hot": (1.0, "one-hot along its last axis"),
    "discretized logistic": (
        16.0,
        "whole levels from 0 to num_levels - 1 = 15 .*to 16: the transform Identity",
    ),
    "discretized logistic mixture": (
        0.5,
        "for DiscretizedLogisticMixtureLikelihood.* the transform Identity",
    ),
    "poisson": (-1.0, "must hold counts .* for PoissonLikelihood, got values from -1 to 30"),
    "negative binomial": (
        0.5,
        "must hold counts .* for NegativeBinomialLikelihood, got the fraction 0.5",
    ),
    "zero-inflated negative binomial": (
        math.inf,
        "must be finite for ZeroInflatedNegativeBinomialLikelihood",
    ),
    "product": (math.nan, "In columns 0 to 1, 'x' must be finite for NormalLikelihood"),
}


@pytest.mark.parametrize("name", SUPPORT_ERRORS)
def test_data_outside_the_support_get_one_sentence(name):
    case, (value, sentence) = LIKELIHOODS[name], SUPPORT_ERRORS[name]
    x = case.x.clone()
    x.view(-1)[0] = value
    case.make().check(case.x)
    with pytest.raises(ValueError, match=sentence):
        case.make().check(x)


@pytest.mark.parametrize("name", [name for name in SUPPORT_ERRORS if not name.startswith("normal")])
def test_not_a_number_is_outside_every_support(name):
    case = LIKELIHOODS[name]
    with pytest.raises(ValueError, match="'x' must"):
        case.make().check(torch.full_like(case.x, math.nan))


def test_a_network_of_the_wrong_size_is_refused():
    with pytest.raises(
        ValueError,
        match=r"'network' of BernoulliLikelihood, a Linear, must give 6 numbers.*got the shape .3, 5.",
    ):
        BernoulliLikelihood(nn.Linear(2, 5), X_SHAPE)(torch.zeros(3, 2))


@pytest.mark.parametrize("sizes", [(2, 0), (-1,), 2.5, "8"])
def test_a_shape_must_hold_positive_whole_numbers(sizes):
    with pytest.raises(ValueError, match="'x_shape' must hold positive whole numbers"):
        BernoulliLikelihood(nn.Identity(), sizes)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_scale_must_be_positive(value):
    with pytest.raises(ValueError, match="'scale' must be a finite number greater than 0"):
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
    with pytest.raises(
        ValueError, match="accepts 3 numbers a row and a context 'y' of 2, got 3 and 0"
    ):
        mlp(inputs)


def test_an_mlp_without_hidden_layers_is_affine():
    mlp = MLP(3, [], 2)
    a, b = torch.randn(2, 1, 3)
    torch.testing.assert_close(mlp(a) + mlp(b), mlp(a + b) + mlp(torch.zeros(1, 3)))


# Each class of likelihood with one objective, and each pair in the slow tests. The product has the normal, Bernoulli,
# Poisson and one-hot ones.
OBJECTIVES = [Trace_ELBO, TraceMeanField_ELBO]
TRACED_BY_DEFAULT = [
    *("continuous bernoulli", "student t", "discretized logistic mixture"),
    *("negative binomial", "product"),
]
TRACED = [
    pytest.param(
        name,
        objective,
        marks=() if name in TRACED_BY_DEFAULT and (place + which) % 2 else pytest.mark.slow,
    )
    for place, name in enumerate(LIKELIHOODS)
    for which, objective in enumerate(OBJECTIVES)
]


@pytest.mark.parametrize(("name", "objective"), TRACED)
def test_a_traced_step_is_that_of_plain_pyro_bit_for_bit(name, objective):
    likelihood, x = LIKELIHOODS[name].make(), LIKELIHOODS[name].x
    posterior = DiagNormalPosterior(
        lambda out_shape: MLP(x.shape, [4], out_shape), x.shape, LATENT_DIM
    )
    vae = VAE(OTHERS["standard normal"](), likelihood, posterior)
    other = likelihood(torch.zeros(LATENT_DIM)).sample()
    batches = [torch.stack([x, other]), torch.stack([other, other])]
    received, expected = [steps(vae, objective(), batches, trace) for trace in (True, False)]
    torch.testing.assert_close(received, expected, rtol=0, atol=0)


def steps(vae, objective, batches, trace):
    """Losses and gradients of some steps from the same start, and the random number that follows."""
    vae = copy.deepcopy(vae)
    svi = SVI(
        vae.model,
        vae.guide,
        torch.optim.Adam(vae.parameters(), lr=0.01),
        objective,
        execution=Execution(trace=trace),
    )
    torch.manual_seed(1)
    results = []
    for x in batches * 3:
        loss = svi.step(x)
        results.append([loss, *(parameter.grad for parameter in vae.parameters())])
    assert svi.how == ("traced" if trace else "plain")
    return results, torch.randn(())
