"""Every prior with every posterior, under the objectives in turn; and every part by its name on the command line."""

import copy
from functools import partial
from itertools import cycle

import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from test_posteriors import POSTERIORS
from test_priors import CONTEXT_DIM, PRIORS
from torch import nn

import pyro_vae
from pyro_vae import (
    MLP,
    SVI,
    VAE,
    AffineFlow,
    BernoulliLikelihood,
    DoublyReparameterizedELBO,
    Execution,
    FlowPosterior,
    FlowPrior,
    FreeBitsELBO,
    ImportanceWeightedELBO,
    SplineFlow,
    StickingTheLandingELBO,
    TotalCorrelationELBO,
)
from pyro_vae.runs import build_vae, instantiate, read_preset, settings_parser

X_SHAPE, LATENT_DIM, NUM_ROWS = (1, 4, 4), 2, 5
# A flow of one transform is traced in half the time.
FLOWS = {
    name: flow(num_transforms=1, hidden=[8])
    for name, flow in (("affine flow", AffineFlow), ("spline flow", SplineFlow))
}
SHORT_PRIORS = PRIORS | {name: partial(FlowPrior, flow=flow) for name, flow in FLOWS.items()}
SHORT_POSTERIORS = POSTERIORS | {
    name: partial(FlowPosterior, flow=flow, num_features=3) for name, flow in FLOWS.items()
}
OBJECTIVES = [
    lambda: ImportanceWeightedELBO(num_particles=5),
    StickingTheLandingELBO,
    lambda: DoublyReparameterizedELBO(num_particles=5),
    Trace_ELBO,
    TraceMeanField_ELBO,
]
# Each objective meets each prior and each posterior. A trace takes a second or more: each prior, each posterior and each
# objective is traced by default, and the other pairs where slow tests run.
PAIRS = [
    pytest.param(
        prior,
        posterior,
        OBJECTIVES[(i + j) % len(OBJECTIVES)],
        id=f"{prior}, {posterior}",
        marks=() if i % len(SHORT_POSTERIORS) == j and i % 2 == 0 else pytest.mark.slow,
    )
    for i, prior in enumerate(SHORT_PRIORS)
    for j, posterior in enumerate(SHORT_POSTERIORS)
]
# Those that factorise, for the objectives that want that; the first of each is traced by default.
PRODUCTS = [
    pytest.param(
        prior,
        "diagonal normal",
        objective,
        id=f"{prior}, {objective.__name__}",
        marks=() if prior == priors[0] else pytest.mark.slow,
    )
    for objective, priors in (
        (FreeBitsELBO, ["conditional normal", "laplace", "diagonal normal", "standard normal"]),
        (TotalCorrelationELBO, ["mixture", "vamp", "affine flow", "standard normal"]),
    )
    for prior in priors
]


def make_vae(prior, posterior):
    return VAE(
        SHORT_PRIORS[prior](LATENT_DIM),
        BernoulliLikelihood(MLP(LATENT_DIM, [4], X_SHAPE, nn.Tanh), X_SHAPE),
        SHORT_POSTERIORS[posterior](
            lambda out_shape: MLP(X_SHAPE, [4], out_shape, nn.Tanh), X_SHAPE, LATENT_DIM
        ),
    )


def batches_of(vae):
    """Three batches with their contexts, if any."""
    y = torch.randn(NUM_ROWS, CONTEXT_DIM) if vae.context_dim else None
    return [(vae.sample(NUM_ROWS, y), y) for _ in range(3)]


def steps(vae, objective, batches, **how):
    """Losses and gradients of some steps from the same start, the random number that follows, and how they were run."""
    vae = copy.deepcopy(vae)
    svi = SVI(
        vae.model,
        vae.guide,
        torch.optim.Adam(vae.parameters(), lr=0.01),
        objective,
        execution=Execution(**how),
    )
    torch.manual_seed(1)
    results = []
    for batch in batches:
        loss = svi.step(*batch)
        results.append([loss, *(parameter.grad for parameter in vae.parameters())])
    return (results, torch.randn(())), svi.how


@pytest.mark.parametrize(("prior", "posterior", "make_objective"), PAIRS + PRODUCTS)
def test_traced_steps_are_those_of_plain_pyro_bit_for_bit(prior, posterior, make_objective):
    vae = make_vae(prior, posterior)
    batches = batches_of(vae)
    expected, how_expected = steps(vae, make_objective(), batches, trace=False)
    received, how_received = steps(vae, make_objective(), batches, trace=True)
    assert (how_expected, how_received) == ("plain", "traced")
    torch.testing.assert_close(received, expected, rtol=0, atol=0)
    for name, gradient in zip(dict(vae.named_parameters()), expected[0][0][1:], strict=True):
        assert gradient is not None, name
        assert gradient.abs().sum() > 0, name


@pytest.mark.slow  # a minute or more to compile
@pytest.mark.parametrize(
    ("prior", "posterior"),
    [(name, "diagonal normal") for name in PRIORS]
    + [("standard normal", name) for name in list(POSTERIORS)[1:]],
)
def test_compiled_steps_are_those_of_plain_pyro_up_to_rounding(prior, posterior):
    vae = make_vae(prior, posterior)
    batches = batches_of(vae)
    expected, _ = steps(vae, Trace_ELBO(), batches, trace=False)
    received, how = steps(vae, Trace_ELBO(), batches, compile=True)
    assert how == "compiled"
    torch.testing.assert_close(received, expected, rtol=1e-3, atol=1e-4)


# The command line

PRIOR_ARGUMENTS = {
    "StandardNormalPrior": [],
    "LaplacePrior": ["scale", "0.5"],
    "DiagNormalPrior": ["min_scale", "0.01"],
    "ConditionalNormalPrior": ["context_dim", "3", "network", "GatedMLP", "network.hidden", "[8]"],
    "MixtureNormalPrior": ["num_components", "4"],
    "VampPrior": ["num_components", "4"],
    "FlowPrior": ["flow", "AffineFlow", "flow.num_transforms", "2"],
}
POSTERIOR_ARGUMENTS = {
    "DiagNormalPosterior": ["min_scale", "0.01"],
    "FullNormalPosterior": [],
    "LowRankNormalPosterior": ["rank", "1"],
    "FlowPosterior": ["flow", "SplineFlow", "flow.hidden", "[8, 8]", "num_features", "4"],
}
LIKELIHOOD_ARGUMENTS = {
    "BernoulliLikelihood": ["relaxed", "true"],
    "BetaLikelihood": [],
    "BinomialLikelihood": ["total_count", "7"],
    "ContinuousBernoulliLikelihood": [],
    "DiscretizedLogisticLikelihood": ["num_levels", "17"],
    "DiscretizedLogisticMixtureLikelihood": ["num_levels", "17", "num_components", "2"],
    "LaplaceLikelihood": ["scale", "0.3"],
    "NegativeBinomialLikelihood": ["dispersion", "NetworkScale"],
    "NormalLikelihood": ["scale", "LearnedScale", "scale.init", "0.5"],
    "OneHotCategoricalLikelihood": [],
    "PoissonLikelihood": [],
    "ProductLikelihood": [
        "columns",
        "[{size: 12, likelihood: NormalLikelihood}, {size: 4, likelihood: OneHotCategoricalLikelihood}]",
    ],
    "StudentTLikelihood": ["df", "3"],
    "ZeroInflatedNegativeBinomialLikelihood": [],
}
ARGUMENTS = {
    "prior": PRIOR_ARGUMENTS,
    "posterior": POSTERIOR_ARGUMENTS,
    "likelihood": LIKELIHOOD_ARGUMENTS,
}


# There are more likelihoods than priors and posteriors, which take turns.
@pytest.mark.parametrize(
    ("prior", "posterior", "likelihood"),
    list(zip(cycle(PRIOR_ARGUMENTS), cycle(POSTERIOR_ARGUMENTS), LIKELIHOOD_ARGUMENTS)),
)
def test_a_part_is_called_by_its_name_on_the_command_line(prior, posterior, likelihood):
    names = {"prior": prior, "posterior": posterior, "likelihood": likelihood}
    arguments = []
    for role, name in names.items():
        values = ARGUMENTS[role][name]
        arguments += [f"--vae.{role}", name]
        for option, value in zip(values[::2], values[1::2], strict=True):
            arguments += [f"--vae.{role}.{option}", value]
    parser = settings_parser(read_preset("digits")[0])
    settings = instantiate(parser, parser.parse_args(arguments))
    vae = build_vae(settings.vae, (16,) if likelihood == "ProductLikelihood" else X_SHAPE)
    for role, name in names.items():
        assert type(getattr(vae, role)) is getattr(pyro_vae, name)
    y = torch.eye(3) if vae.context_dim else None
    assert torch.isfinite(vae.elbo(vae.sample(3, y), y)).all()


def test_the_options_of_a_part_reach_it():
    parser = settings_parser(read_preset("digits")[0])
    arguments = ["--vae.prior", "VampPrior", "--vae.prior.num_components", "4"]
    arguments += ["--vae.posterior", "FlowPosterior", "--vae.posterior.flow", "SplineFlow"]
    arguments += ["--vae.posterior.flow.num_transforms", "2", "--vae.encoder.context_dim", "10"]
    vae = build_vae(instantiate(parser, parser.parse_args(arguments)).vae, X_SHAPE)
    assert vae.prior.pseudo_inputs.shape == (4, *X_SHAPE)
    assert len(vae.posterior.transforms.transforms) == 2
    assert vae.context_dim == vae.prior.context_dim == 10


@pytest.mark.parametrize("role", ARGUMENTS)
def test_no_part_is_forgotten(role):
    suffix = role.capitalize()
    public = {
        name
        for name in pyro_vae.__all__
        if name.endswith(suffix) and name not in (suffix, "AggregatedPosterior")
    }
    assert set(ARGUMENTS[role]) == public
    for table in {"prior": [PRIORS, SHORT_PRIORS], "posterior": [POSTERIORS, SHORT_POSTERIORS]}.get(
        role, []
    ):
        assert {getattr(make, "func", make).__name__ for make in table.values()} == public
