"""The contract that every posterior keeps, what each density is, and the exact posterior of a linear-Gaussian model."""

import copy
import pickle
from functools import partial

import pytest
import references
import torch
from models import linear, linear_gaussian_vae, nowhere_special
from pyro.infer import Trace_ELBO
from references import LinearGaussian
from torch import nn

from pyro_vae import (
    MLP,
    AffineFlow,
    DiagNormalPosterior,
    FlowPosterior,
    FullNormalPosterior,
    LowRankNormalPosterior,
    SplineFlow,
    evaluate,
)

X_SHAPE, LATENT_DIM, CONTEXT_DIM = (2, 3), 3, 2
# All but a posterior's network, the shape of the data and the latent dimension.
POSTERIORS = {
    "diagonal normal": DiagNormalPosterior,
    "full normal": FullNormalPosterior,
    "low-rank normal": partial(LowRankNormalPosterior, rank=2),
    "affine flow": partial(
        FlowPosterior, flow=AffineFlow(num_transforms=2, hidden=[4]), num_features=3
    ),
    "spline flow": partial(
        FlowPosterior, flow=SplineFlow(num_transforms=2, hidden=[4]), num_features=3
    ),
}
NORMALS = ["diagonal normal", "full normal", "low-rank normal"]
FLOWS = ["affine flow", "spline flow"]


def make_posterior(name, context_dim=0, latent_dim=LATENT_DIM):
    """A posterior with weights that are nowhere special."""

    def network(out_shape):
        return MLP(X_SHAPE, [5], out_shape, nn.Tanh, context_dim)

    return nowhere_special(POSTERIORS[name](network, X_SHAPE, latent_dim))


@pytest.fixture(params=POSTERIORS)
def name(request):
    return request.param


@pytest.fixture
def posterior(name):
    return make_posterior(name)


# The densities, written plainly from the numbers of the network for one row


def diagonal_density(posterior, numbers, z):
    loc, log_scale = numbers.reshape(2, LATENT_DIM)
    return references.normals(z, loc, 1e-6 + log_scale.exp())


def full_moments(numbers):
    loc, log_scale, below = numbers.split(
        [LATENT_DIM, LATENT_DIM, LATENT_DIM * (LATENT_DIM - 1) // 2]
    )
    below, lower = iter(below), torch.zeros(LATENT_DIM, LATENT_DIM)
    for row in range(LATENT_DIM):
        scale = 1e-6 + log_scale[row].exp()
        for column in range(row):
            lower[row, column] = scale * next(below) / (10 * LATENT_DIM)
        lower[row, row] = scale
    return loc, lower @ lower.T


def low_rank_moments(numbers):
    loc, log_scale, *columns = numbers.reshape(4, LATENT_DIM)
    scale = 1e-3 + log_scale.exp()
    inner = torch.eye(LATENT_DIM) + sum(torch.outer(column / 10, column / 10) for column in columns)
    return loc, torch.diag(scale) @ inner @ torch.diag(scale)


def flow_density(posterior, numbers, z):
    """z = f(ε): log q(z) = log N(ε; loc, scale) - log |det ∂f/∂ε|, with autograd's Jacobian."""
    loc, log_scale, features = numbers.split([LATENT_DIM, LATENT_DIM, 3])
    forward = posterior.transforms(features)
    noise = forward.inv(z).detach()
    torch.testing.assert_close(forward(noise).detach(), z)
    jacobian = torch.autograd.functional.jacobian(forward, noise)
    return (
        references.normals(noise, loc, 1e-6 + log_scale.exp()) - jacobian.det().abs().log().item()
    )


DENSITIES = {
    "diagonal normal": diagonal_density,
    "full normal": lambda _, numbers, z: references.multivariate_normal(z, *full_moments(numbers)),
    "low-rank normal": lambda _, numbers, z: references.multivariate_normal(
        z, *low_rank_moments(numbers)
    ),
    "affine flow": flow_density,
    "spline flow": flow_density,
}


def numbers_of(posterior, x):
    return posterior.call_network(x).detach().flatten()


@pytest.mark.usefixtures("float64")
def test_the_density_is_the_plain_formula(name, posterior):
    for x, z in zip(torch.randn(4, *X_SHAPE), torch.randn(4, LATENT_DIM), strict=True):
        expected = DENSITIES[name](posterior, numbers_of(posterior, x), z)
        assert posterior(x).log_prob(z).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("batch_shape", [(), (3,), (4, 1, 3)])
def test_leading_dimensions_are_kept_apart(posterior, batch_shape):
    x, z = torch.randn(*batch_shape, *X_SHAPE), torch.randn(*batch_shape, LATENT_DIM)
    q_z = posterior(x)
    assert (q_z.batch_shape, q_z.event_shape) == (batch_shape, (LATENT_DIM,))
    assert q_z.rsample().shape == (*batch_shape, LATENT_DIM)
    assert q_z.sample((2,)).shape == (2, *batch_shape, LATENT_DIM)
    rows = zip(x.reshape(-1, *X_SHAPE), z.reshape(-1, LATENT_DIM), strict=True)
    alone = torch.stack([posterior(row).log_prob(point) for row, point in rows])
    torch.testing.assert_close(q_z.log_prob(z).flatten(), alone)


def test_expanding_repeats_the_distribution(posterior):
    q_z, z = posterior(torch.randn(3, *X_SHAPE)), torch.randn(5, 3, LATENT_DIM)
    expanded = q_z.expand((5, 3))
    assert (expanded.batch_shape, expanded.event_shape) == ((5, 3), (LATENT_DIM,))
    assert expanded.sample((2,)).shape == (2, 5, 3, LATENT_DIM)
    torch.testing.assert_close(expanded.log_prob(z), q_z.log_prob(z))


def test_a_draw_gives_every_parameter_a_gradient(posterior):
    assert posterior(torch.zeros(X_SHAPE)).has_rsample
    posterior(torch.randn(5, *X_SHAPE)).rsample().square().sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for parameter in posterior.parameters()
    )


@pytest.mark.usefixtures("float64")
def test_a_draw_and_its_copy_have_one_density_and_one_gradient(posterior):
    q_z = posterior(torch.randn(5, *X_SHAPE))
    z = q_z.rsample((2,))
    received, expected = q_z.log_prob(z), q_z.log_prob(z.clone())
    torch.testing.assert_close(received, expected, atol=1e-9, rtol=0)
    gradients = [
        torch.autograd.grad(
            value.sum(), list(posterior.parameters()), retain_graph=True, allow_unused=True
        )
        for value in (received, expected)
    ]
    torch.testing.assert_close(*gradients, atol=1e-8, rtol=1e-8)


@pytest.mark.usefixtures("float64")
def test_a_draw_without_gradients_has_the_density_and_the_score_of_a_given_point(posterior):
    q_z = posterior(torch.randn(5, *X_SHAPE))
    z = q_z.sample()
    gradients = [
        torch.autograd.grad(
            q_z.log_prob(point).sum(), list(posterior.parameters()), retain_graph=True
        )
        for point in (z, z.clone())
    ]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():
        torch.testing.assert_close(q_z.log_prob(z), q_z.log_prob(z.clone()))


@pytest.mark.usefixtures("float64")
def test_draws_follow_the_density_and_the_density_is_normalised(posterior):
    # Failure rate: 6e-5 (4 standard errors), at a fixed seed.
    mean, error = references.mean_ratio(posterior(torch.randn(X_SHAPE)), 20_000)
    assert abs(mean - 1) < 4 * error
    assert error < 0.03


@pytest.mark.parametrize("name", ["full normal", "low-rank normal"])
@pytest.mark.usefixtures("float64")
def test_draws_have_the_mean_and_the_covariance_of_the_formula(posterior, name):
    # Failure rate: 6e-5 for each of 12 numbers (4 standard errors), at a fixed seed.
    x, num_draws = torch.randn(X_SHAPE), 20_000
    moments = full_moments if name == "full normal" else low_rank_moments
    loc, covariance = moments(numbers_of(posterior, x))
    torch.testing.assert_close(posterior(x).covariance_matrix.detach(), covariance)
    draws = posterior(x).sample((num_draws,))
    variance = covariance.diagonal()
    assert ((draws.mean(0) - loc).abs() < 4 * (variance / num_draws).sqrt()).all()
    error = ((torch.outer(variance, variance) + covariance**2) / num_draws).sqrt()
    assert ((draws.T.cov() - covariance).abs() < 4 * error).all()


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("dim", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("float64")
def test_the_density_of_a_flow_integrates_to_1_and_to_the_mean_of_its_draws(name, dim):
    # Failure rate: 6e-5 for each dimension (4 standard errors), at a fixed seed.
    q_z = make_posterior(name, latent_dim=dim)(torch.randn(X_SHAPE))
    draws = q_z.sample((5000,))
    points, volume = references.grid_around(draws, side=401)
    with torch.no_grad():
        mass = q_z.log_prob(points).exp() * volume
    assert mass.sum().item() == pytest.approx(1, abs=1e-3)
    assert ((draws.mean(0) - mass @ points).abs() < 4 * draws.std(0) / 5000**0.5 + 1e-3).all()


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_scores_its_own_draws_as_it_draws_them(posterior):
    passes = []
    for transform in posterior.transforms.transforms:
        transform.hyper.register_forward_hook(lambda *_: passes.append(1))
    q_z = posterior(torch.randn(5, *X_SHAPE))
    z = q_z.rsample()
    q_z.log_prob(z)
    assert len(passes) == 2  # one for each transform
    q_z.log_prob(z.detach())
    assert len(passes) > 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_distribution_follows_the_dtype_of_the_module(posterior, dtype):
    q_z = posterior.to(dtype)(torch.randn(3, *X_SHAPE, dtype=dtype))
    z = q_z.rsample()
    assert (z.dtype, q_z.log_prob(z).dtype, q_z.log_prob(z.detach()).dtype) == (dtype, dtype, dtype)


@pytest.mark.parametrize(
    "copied",
    [
        lambda posterior, fresh: copy.deepcopy(posterior),
        lambda posterior, fresh: pickle.loads(pickle.dumps(posterior)),
        lambda posterior, fresh: fresh if fresh.load_state_dict(posterior.state_dict()) else None,
    ],
    ids=["deep copy", "pickle", "state dict"],
)
def test_a_copy_has_the_same_density_and_parameters_of_its_own(name, posterior, copied):
    x, z, twin = (
        torch.randn(3, *X_SHAPE),
        torch.randn(3, LATENT_DIM),
        copied(posterior, make_posterior(name)),
    )
    density = posterior(x).log_prob(z)
    assert torch.equal(twin(x).log_prob(z), density)
    twin.network.layers[-1].bias.data += 0.1
    assert torch.equal(posterior(x).log_prob(z), density)
    assert not torch.isclose(twin(x).log_prob(z), density).any()


@pytest.mark.usefixtures("float64")
def test_the_context_changes_every_row(name):
    posterior = make_posterior(name, CONTEXT_DIM)
    assert posterior.context_dim == CONTEXT_DIM
    x, y, z = torch.randn(3, *X_SHAPE), torch.randn(3, CONTEXT_DIM), torch.randn(3, LATENT_DIM)
    assert not torch.isclose(posterior(x, y).log_prob(z), posterior(x, y + 1).log_prob(z)).any()
    one_by_one = [posterior(*row).log_prob(point) for *row, point in zip(x, y, z, strict=True)]
    torch.testing.assert_close(posterior(x, y).log_prob(z), torch.stack(one_by_one))
    # One context for a batch of particles in front of it.
    torch.testing.assert_close(
        posterior(x.expand(4, *x.shape), y).log_prob(z)[2], posterior(x, y).log_prob(z)
    )


def test_scales_that_underflow_are_held_by_their_floor(name):
    posterior = POSTERIORS[name](lambda out_shape: MLP(X_SHAPE, [], out_shape), X_SHAPE, LATENT_DIM)
    bias = posterior.network.layers[-1].bias.data
    bias[LATENT_DIM : 2 * LATENT_DIM] = -200.0
    x = torch.zeros(2, *X_SHAPE)
    z = posterior(x).rsample()
    assert torch.isfinite(z).all()
    assert torch.isfinite(posterior(x).log_prob(z.detach())).all()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("diagonal normal", 6),
        ("full normal", 9),
        ("low-rank normal", 12),
        ("affine flow", 9),
        ("spline flow", 9),
    ],
)
def test_a_network_of_the_wrong_size_is_refused(name, count):
    posterior = POSTERIORS[name](
        nn.Sequential(nn.Flatten(), nn.Linear(6, count + 1)), X_SHAPE, LATENT_DIM
    )
    sentence = (
        rf"'network' of {type(posterior).__name__}, a Sequential, must give {count} numbers for each "
        rf"row, got the shape \(2, {count + 1}\) for 2 rows."
    )
    with pytest.raises(ValueError, match=sentence):
        posterior(torch.zeros(2, *X_SHAPE))


def test_the_repr_names_the_sizes(name, posterior):
    sizes = "x_shape=(2, 3), latent_dim=3" + (", rank=2" if name == "low-rank normal" else "")
    assert repr(posterior).startswith(f"{type(posterior).__name__}(\n  {sizes}\n")


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: LowRankNormalPosterior(nn.Identity(), 6, 3, rank=0), "rank"),
        (lambda: FlowPosterior(nn.Identity(), 6, 3, num_features=0), "num_features"),
        (lambda: FullNormalPosterior(nn.Identity(), 6, 0), "latent_dim"),
        (lambda: AffineFlow(num_transforms=0), "num_transforms"),
        (lambda: SplineFlow(hidden=[8, 0]), "hidden"),
    ],
)
def test_sizes_must_be_positive_whole_numbers(make, argument):
    with pytest.raises(
        ValueError,
        match=f"'{argument}' must (be a whole number of at least 1|hold positive whole numbers), got",
    ):
        make()


# The exact posterior of a linear-Gaussian model, whose W has no orthogonal columns


def exact_full_posterior(reference):
    lower = torch.linalg.cholesky(reference.posterior_covariance())
    rows, columns = torch.tril_indices(len(lower), len(lower), offset=-1)
    below = 10 * len(lower) * lower / lower.diagonal().unsqueeze(1)
    numbers = torch.cat([(lower.diagonal() - 1e-6).log(), below[rows, columns]])
    return FullNormalPosterior(exact_network(reference, numbers), len(reference.bias), len(lower))


def exact_low_rank_posterior(reference):
    """The covariance as s² (W Wᵀ + I), where s² is less than every eigenvalue."""
    covariance = reference.posterior_covariance()
    scale = 0.5 * torch.linalg.eigvalsh(covariance).min().sqrt()
    factor = 10 * torch.linalg.cholesky(covariance / scale**2 - torch.eye(len(covariance)))
    numbers = torch.cat([(scale - 1e-3).log().expand(len(covariance)), factor.T.flatten()])
    return LowRankNormalPosterior(
        exact_network(reference, numbers), len(reference.bias), len(covariance), rank=3
    )


def exact_network(reference, numbers):
    """An affine map that gives the posterior's loc, and the same further numbers for every row."""
    loc_weight = reference.precision.inverse() @ reference.weight.T
    weight = torch.cat([loc_weight, torch.zeros(len(numbers), len(reference.bias))])
    return linear(weight, torch.cat([-loc_weight @ reference.bias, numbers]))


@pytest.mark.parametrize("make", [exact_full_posterior, exact_low_rank_posterior])
@pytest.mark.usefixtures("float64")
def test_a_normal_with_correlations_can_be_exact_for_every_draw(make):
    reference = LinearGaussian(torch.randn(5, 3), torch.randn(5), 0.7)
    assert (
        reference.weight.T @ reference.weight - torch.eye(3)
    ).abs().max() > 0.5  # far from orthogonal columns
    vae, x = linear_gaussian_vae(reference, make(reference)), torch.randn(7, 5)
    expected = reference.log_marginal(x)
    assert -Trace_ELBO().loss(vae.model, vae.guide, x) == pytest.approx(
        expected.sum().item(), abs=1e-9
    )
    torch.testing.assert_close(vae.elbo(x, num_samples=4), expected.expand(7), atol=1e-10, rtol=0)
    log_marginal = evaluate(vae, x, num_importance_samples=20).log_marginal
    assert log_marginal.mean == pytest.approx(expected.mean().item(), abs=1e-10)
    assert log_marginal.monte_carlo_error == pytest.approx(0, abs=1e-7)
