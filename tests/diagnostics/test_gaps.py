"""The inference gap in two parts, against the closed forms of a linear-Gaussian model."""

import copy
import math

import pytest
import torch
from models import ExactPosterior, PriorAsPosterior, binary_vae, linear, linear_gaussian_vae
from references import LinearGaussian

from pyro_vae import (
    MLP,
    VAE,
    DiagNormalPosterior,
    FlowPosterior,
    FullNormalPosterior,
    NormalLikelihood,
    StandardNormalPrior,
    VampPrior,
)
from pyro_vae.diagnostics import inference_gaps

NUM_ROWS = 30
# Rows are independent: their mean is off by 5 standard errors once in 10^6 runs, and Adam leaves less than this, in nats.
NUM_ERRORS, LEFT = 5.0, 0.005


@pytest.fixture
def reference(float64):
    return LinearGaussian(torch.randn(4, 3), torch.randn(4), scale=0.7)


@pytest.fixture
def x(float64):
    return torch.randn(NUM_ROWS, 4)


def posterior_precision(reference):
    return reference.precision / reference.scale**2


def best_diagonal(reference, shift=0.0):
    """The best of all diagonal normals in KL(q ‖ p): the exact loc, here shifted, and the inverse diagonal of P."""
    loc_weight = reference.precision.inverse() @ reference.weight.T
    log_scale = (posterior_precision(reference).diagonal() ** -0.5 - 1e-6).log()
    bias = torch.cat([shift - loc_weight @ reference.bias, log_scale])
    return DiagNormalPosterior(
        linear(torch.cat([loc_weight, torch.zeros_like(loc_weight)]), bias), 4, 3
    )


def mean_field_gap(reference):
    """KL(q ‖ p) of the best diagonal normal, ½ (Σ log P_dd − log det P)."""
    precision = posterior_precision(reference)
    return 0.5 * (precision.diagonal().log().sum() - precision.logdet())


def assert_mean(values, expected):
    error = values.std() / math.sqrt(len(values))
    assert (values.mean() - expected).abs() < NUM_ERRORS * error + LEFT


def test_the_best_of_the_family_has_an_approximation_gap_alone(reference, x):
    vae = linear_gaussian_vae(reference, best_diagonal(reference))
    log_marginal = reference.log_marginal(x)
    gaps = inference_gaps(vae, x, log_marginal=log_marginal, num_steps=200)
    assert mean_field_gap(reference) > 0.2
    assert_mean(gaps.approximation, mean_field_gap(reference))
    assert_mean(gaps.amortisation, 0.0)
    torch.testing.assert_close(gaps.approximation + gaps.amortisation, log_marginal - gaps.elbo)
    torch.testing.assert_close(gaps.amortisation, gaps.local_elbo - gaps.elbo)


def test_a_shifted_guide_has_the_amortisation_gap_of_its_shift(reference, x):
    """½ δᵀ P δ nats."""
    shift = torch.tensor([0.5, 0.0, -0.3])
    vae = linear_gaussian_vae(reference, best_diagonal(reference, shift))
    gaps = inference_gaps(
        vae, x, log_marginal=reference.log_marginal(x), num_steps=250, learning_rate=0.04
    )
    expected = 0.5 * shift @ posterior_precision(reference) @ shift
    assert_mean(gaps.amortisation, expected)
    assert_mean(gaps.approximation, mean_field_gap(reference))


@pytest.mark.slow
def test_a_family_that_holds_the_posterior_has_no_approximation_gap(reference, x):
    reference = LinearGaussian(0.3 * reference.weight, reference.bias, reference.scale)
    posterior = FullNormalPosterior(torch.nn.Linear(4, 9), 4, 3)
    gaps = inference_gaps(
        linear_gaussian_vae(reference, posterior),
        x,
        log_marginal=reference.log_marginal(x),
        num_steps=300,
        learning_rate=0.1,
    )
    assert gaps.approximation.mean().abs() < 0.05  # what Adam leaves of correlations
    assert gaps.amortisation.mean() > 0.5


def test_each_row_is_on_its_own(reference, x):
    """A row that the network serves badly has a gap; the others have none."""
    shift = torch.zeros(4)
    shift[0] = 50.0
    far = x.clone()
    far[0] += shift
    posterior = best_diagonal(reference)
    posterior.network = torch.nn.Sequential(torch.nn.Hardtanh(-6.0, 6.0), posterior.network)
    gaps = inference_gaps(
        linear_gaussian_vae(reference, posterior),
        far,
        log_marginal=reference.log_marginal(far),
        num_steps=200,
    )
    assert gaps.amortisation[0] > 10
    assert gaps.amortisation[1:].mean().abs() < 0.05


def gaps_of(vae, x, y=None, num_steps=3):
    return inference_gaps(
        vae, x, y, log_marginal=vae.elbo(x, y).detach(), num_steps=num_steps, num_samples=2
    )


def test_the_vae_stays_as_it_was():
    vae = binary_vae().train()
    vae.likelihood.eval()
    next(vae.parameters()).requires_grad_(False)
    x = vae.sample(3)
    state = copy.deepcopy(vae.state_dict())
    grads = [parameter.requires_grad for parameter in vae.parameters()]
    modes = [module.training for module in vae.modules()]
    network = vae.posterior.network
    with torch.no_grad():
        gaps = gaps_of(vae, x)
    assert not any(values.requires_grad for values in gaps)
    assert all(torch.equal(value, state[name]) for name, value in vae.state_dict().items())
    assert [parameter.requires_grad for parameter in vae.parameters()] == grads
    assert [module.training for module in vae.modules()] == modes
    assert all(parameter.grad is None for parameter in vae.parameters())
    assert vae.posterior.network is network
    assert not network._forward_hooks


def test_a_vamp_prior_keeps_the_network(float64):
    """Its density must not move when the outputs of the rows do: log p(x) bounds both ELBOs."""
    vae = VAE(
        VampPrior(2, 3),
        NormalLikelihood(MLP(2, [], 4), 4, 0.7),
        DiagNormalPosterior(MLP(4, [], (2, 2)), 4, 2),
    )
    x = torch.randn(20, 4)
    grid = torch.cartesian_prod(torch.linspace(-9, 9, 201), torch.linspace(-9, 9, 201))
    with torch.no_grad():
        log_joint = vae.prior().log_prob(grid) + vae.log_likelihood(x.unsqueeze(1), grid)
        truth = log_joint.logsumexp(1) + 2 * math.log(18 / 200)
    gaps = inference_gaps(vae, x, log_marginal=truth, num_steps=100, learning_rate=0.05)
    assert (gaps.approximation > -0.1).all()
    assert (gaps.amortisation > -0.1).all()
    assert gaps.amortisation.mean() > 0.1


def test_contexts_missing_entries_and_flows():
    context = VAE(
        StandardNormalPrior(2),
        NormalLikelihood(MLP(2, [], 4, context_dim=3), 4, 0.7),
        DiagNormalPosterior(MLP(4, [], (2, 2), context_dim=3), 4, 2),
    )
    flow = linear_gaussian_vae(
        LinearGaussian(torch.randn(4, 2), torch.randn(4), 0.7),
        FlowPosterior(lambda shape: MLP(4, [8], shape), 4, 2),
    )
    missing = VAE(
        StandardNormalPrior(2),
        NormalLikelihood(MLP(2, [], 4), 4, 0.7),
        DiagNormalPosterior(MLP(4, [], (2, 2)), 4, 2),
        missing="nan",
    )
    x = torch.randn(5, 4)
    for vae, rows, y in (
        (context, x, torch.randn(5, 3)),
        (flow, x, None),
        (missing, torch.where(torch.arange(4) == 1, math.nan, x), None),
    ):
        gaps = gaps_of(vae, rows, y, num_steps=50)
        assert all(values.shape == (5,) and values.isfinite().all() for values in gaps)
        assert gaps.amortisation.mean() > 0


@pytest.mark.parametrize("name", ["num_steps", "num_samples"])
def test_counts_are_checked(name):
    vae = binary_vae()
    with pytest.raises(ValueError, match=f"^'{name}' must be a whole number of at least 1"):
        inference_gaps(vae, vae.sample(2), log_marginal=torch.zeros(2), **{name: 0})


@pytest.mark.parametrize("shape", [(), (3,), (2, 1)])
def test_log_marginal_must_be_of_the_rows(shape):
    vae = binary_vae()
    with pytest.raises(ValueError, match=r"'log_marginal' must have the shape \(2,\)"):
        inference_gaps(vae, vae.sample(2), log_marginal=torch.zeros(shape))


def test_a_posterior_without_outputs_to_set_free_is_refused(reference, x):
    for posterior in (ExactPosterior(reference), PriorAsPosterior(torch.nn.Identity(), 4, 3)):
        vae = linear_gaussian_vae(reference, posterior)
        with pytest.raises(
            ValueError,
            match="'vae' must have a posterior with rsample that calls its network once, got",
        ):
            inference_gaps(vae, x, log_marginal=reference.log_marginal(x))


def test_where_nothing_has_moved_the_amortisation_gap_is_exactly_zero():
    # Both ELBOs are measured with the same noise.
    vae = binary_vae()
    x = vae.sample(4)
    gaps = inference_gaps(vae, x, log_marginal=torch.zeros(4), num_steps=1, learning_rate=0.0)
    assert (gaps.amortisation == 0).all()


def test_gradients_are_needed():
    vae = binary_vae()
    with (
        torch.inference_mode(),
        pytest.raises(ValueError, match="^'inference_gaps' must be called with gradients"),
    ):
        inference_gaps(vae, torch.zeros(3, 1, 4, 4), log_marginal=torch.zeros(3))
