"""Densities by row in a guide's coordinates, and the step of Hamiltonian Monte Carlo on them."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from models import linear_gaussian_vae
from references import LinearGaussian, normals
from torch.distributions import MultivariateNormal

from pyro_vae.inference.hamiltonian import Point, hmc_transition, with_gradient
from pyro_vae.inference.programs import Programs
from pyro_vae.inference.row_densities import RowDensities

pytestmark = pytest.mark.usefixtures("float64")

# Φ^-1 of a failure rate of 6e-7 for each number, two-sided.
NUM_ERRORS = 5.0


@pytest.fixture
def reference():
    return LinearGaussian(torch.randn(4, 2), torch.randn(4), scale=0.7)


@pytest.fixture
def x():
    return torch.randn(3, 4)


def wide_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample(
            "z", dist.Normal(torch.tensor([0.5, -0.3]), torch.tensor([2.0, 0.4])).to_event(1)
        )


def beta_binomial(x):
    """Rows at dim -2, with throws of each coin at dim -1."""
    with pyro.plate("coins", len(x), dim=-2):
        p = pyro.sample("p", dist.Beta(2.0, 3.0))
        with pyro.plate("throws", x.shape[1], dim=-1):
            pyro.sample("x", dist.Bernoulli(p), obs=x)


def beta_guide(x):
    with pyro.plate("coins", len(x), dim=-2):
        pyro.sample("p", dist.Beta(1.5, 4.0))


def nested(x):
    """Rows at dim -1, with repeats at dim -2, outside of which z lies: a trace has it without that dimension."""
    with pyro.plate("rows", x.shape[1], dim=-1):
        z = pyro.sample("z", dist.Dirichlet(torch.tensor([2.0, 1.0, 3.0])))
        with pyro.plate("repeats", len(x), dim=-2):
            u = pyro.sample("u", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., 0] + u, 0.5), obs=x)


def nested_guide(x):
    with pyro.plate("rows", x.shape[1], dim=-1):
        pyro.sample("z", dist.Dirichlet(torch.tensor([1.0, 2.0, 2.0])))
        with pyro.plate("repeats", len(x), dim=-2):
            pyro.sample("u", dist.Normal(0.3, 0.8))


def of(model, guide, *args):
    return RowDensities(Programs(model, guide, args, {}))


# Densities


def test_densities_are_the_closed_forms_but_for_one_constant(reference, x):
    densities = of(linear_gaussian_vae(reference).model, wide_guide, x)
    white = torch.randn(5, 3, 2)
    z = densities.latents(white)["z"]
    loc, scale = torch.tensor([0.5, -0.3]), torch.tensor([2.0, 0.4])
    log_q = torch.tensor([[normals(z[c, b], loc, scale) for b in range(3)] for c in range(5)])
    posterior = MultivariateNormal(reference.posterior_loc(x), reference.posterior_covariance())
    log_joint = reference.log_marginal(x) + posterior.log_prob(z)
    torch.testing.assert_close(densities.log_guide(white), log_q)
    torch.testing.assert_close(densities.log_joint(white), log_joint)


def test_the_jacobian_is_that_of_the_map_to_the_support():
    x = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    densities = of(beta_binomial, beta_guide, x)
    white = torch.randn(4, 2, 1)
    p = densities.latents(white)["p"].reshape(4, 2)
    log_jacobian = p.log() + (1 - p).log()  # of the logistic function
    heads = x.sum(1)
    log_joint = dist.Beta(2.0, 3.0).log_prob(p) + heads * p.log() + (3 - heads) * (1 - p).log()
    torch.testing.assert_close(densities.log_joint(white), log_joint + log_jacobian)
    torch.testing.assert_close(
        densities.log_guide(white), dist.Beta(1.5, 4.0).log_prob(p) + log_jacobian
    )


def test_densities_integrate_over_w_to_what_they_do_over_z():
    """∫ q(z | x) |dz/dw| dw = 1 / scale: the constant that both densities share."""
    densities = of(beta_binomial, beta_guide, torch.zeros(1, 3))
    grid = torch.linspace(-30, 30, 20_001).reshape(-1, 1, 1)
    integral = (densities.log_guide(grid).exp().sum() * (grid[1] - grid[0])).item()
    assert integral == pytest.approx(1 / densities.coordinates.scale.item(), rel=1e-6)


def test_inner_plates_and_simplices_are_summed_by_row():
    x = torch.randn(4, 3)
    densities = of(nested, nested_guide, x)
    white = torch.randn(2, 3, 6)
    latents = densities.latents(white)
    z, u = latents["z"].reshape(2, 3, 3), latents["u"].reshape(2, 3, 4)
    log_ratio = dist.Dirichlet(torch.tensor([2.0, 1.0, 3.0])).log_prob(z) + dist.Normal(
        0.0, 1.0
    ).log_prob(u).sum(-1)
    log_ratio = log_ratio + dist.Normal(z[..., :1] + u, 0.5).log_prob(x.T).sum(-1)
    log_ratio = log_ratio - dist.Dirichlet(torch.tensor([1.0, 2.0, 2.0])).log_prob(z)
    log_ratio = log_ratio - dist.Normal(0.3, 0.8).log_prob(u).sum(-1)
    torch.testing.assert_close(densities.log_joint(white) - densities.log_guide(white), log_ratio)


def test_the_gradient_is_that_of_finite_differences():
    densities = of(nested, nested_guide, torch.randn(4, 3))
    white, step = torch.randn(2, 3, 6), 1e-5
    value, gradient = with_gradient(densities.log_joint)(white)
    torch.testing.assert_close(value, densities.log_joint(white))
    assert not value.requires_grad
    for number in range(6):
        shift = step * torch.eye(6)[number]
        slope = (densities.log_joint(white + shift) - densities.log_joint(white - shift)) / (
            2 * step
        )
        torch.testing.assert_close(gradient[..., number], slope, rtol=1e-6, atol=1e-6)


def test_rows_stand_apart():
    densities = of(nested, nested_guide, torch.randn(4, 3))
    evaluate = with_gradient(densities.log_joint)
    white = torch.randn(2, 3, 6)
    other = torch.cat([white[:, :1], torch.randn(2, 2, 6)], dim=1)
    (value, gradient), (other_value, other_gradient) = evaluate(white), evaluate(other)
    assert torch.equal(value[:, 0], other_value[:, 0])
    assert torch.equal(gradient[:, 0], other_gradient[:, 0])
    assert (value[:, 1:] != other_value[:, 1:]).all()


@pytest.mark.parametrize(
    ("model", "guide", "shape"),
    [
        (beta_binomial, beta_guide, (3, 5)),
        (nested, nested_guide, (4, 3)),
        (nested, nested_guide, (3, 3)),
    ],
)
def test_latents_of_a_trace_find_their_place(model, guide, shape):
    x = torch.randint(2, shape).double()
    densities = of(model, guide, x)
    trace = pyro.poutine.trace(guide).get_trace(x)
    exact = {name: trace.nodes[name]["value"] for name in densities.names}
    white = densities.place(exact)
    assert white.shape[:2] == (1, densities.plate.size)
    back = densities.latents(white)
    for name, value in exact.items():
        torch.testing.assert_close(
            densities.plate.rows_in_place(back[name]).reshape(value.shape), value
        )


def test_latents_of_another_shape_are_refused(reference, x):
    densities = of(linear_gaussian_vae(reference).model, wide_guide, x)
    for shape in ((1, 2), (2,), (2, 3), (3, 1), (1, 3, 2)):
        with pytest.raises(ValueError, match="'z' must have the shape"):
            densities.place({"z": torch.zeros(shape)})


def test_draws_of_the_guide_have_mean_0_and_variance_1(reference, x):
    """10,000 draws in the scale that 200 found: its own standard errors are 1 / √200 and 1 / √400."""
    start = of(linear_gaussian_vae(reference).model, wide_guide, x).start(10_000)
    assert start.shape == (10_000, 3, 2)
    assert start.mean(0).abs().max() < NUM_ERRORS / math.sqrt(200)
    assert (start.std(0) - 1).abs().max() < NUM_ERRORS / math.sqrt(400)


# A transition


COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)


def gaussian(white):
    """A correlated normal of two dimensions in each row."""
    solved = white @ COVARIANCE.inverse()
    return Point(white, -0.5 * (white * solved).sum(-1), -solved)


def test_a_transition_leaves_the_density_as_it_is():
    """From exact draws come exact draws. Kolmogorov's distance exceeds the limit once in 10^6; 5 standard errors.

    The step is so large that without rejection the variances would be 1.3 times as large or more.
    """
    count = 20_000
    point = gaussian(MultivariateNormal(torch.zeros(2), COVARIANCE).sample((count, 1)))
    for _ in range(4):
        point, probability = hmc_transition(gaussian, point, torch.full((1, 2), 0.75), 3)
    assert 0.5 < probability.mean() < 0.95
    places = point.white[:, 0]
    spread = (count - 1) / count * places.T.cov() - COVARIANCE
    assert places.mean(0).abs().max() < NUM_ERRORS / math.sqrt(count)
    assert spread.abs().max() < NUM_ERRORS * math.sqrt(2 / count)
    ranks = (torch.arange(count) + 0.5) / count
    distance = (dist.Normal(0.0, 1.0).cdf(places.sort(0).values) - ranks.unsqueeze(-1)).abs().max()
    assert distance < math.sqrt(math.log(2 / 1e-6) / (2 * count)) + 0.5 / count


def test_what_a_transition_returns_belongs_together():
    start = gaussian(torch.randn(500, 2, 2))
    point, probability = hmc_transition(gaussian, start, torch.tensor([[0.9, 0.9], [0.5, 0.5]]), 3)
    for received, expected in zip(point, gaussian(point.white), strict=True):
        torch.testing.assert_close(received, expected)
    moved = (point.white != start.white).any(-1)
    assert 0 < moved.double().mean() < 1
    share, error = moved.double().mean(0), 0.5 / math.sqrt(500)
    assert (share - probability.mean(0)).abs().max() < NUM_ERRORS * error


def trajectory(monkeypatch, start, momentum, step, num_steps):
    """The places that a trajectory passes, the momentum at its end, and its probability of being accepted."""
    places = [start]

    def evaluate(white):
        places.append(white)
        return gaussian(white)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda _: momentum)
        _, probability = hmc_transition(evaluate, gaussian(start), step, num_steps)
    last = (places[-1] - places[-2]) / step + 0.5 * step * gaussian(places[-1]).gradient
    return places, last, probability


def test_a_trajectory_goes_back_the_way_that_it_came(monkeypatch):
    start, momentum, step = (
        torch.randn(3, 2, 2),
        torch.randn(3, 2, 2),
        torch.tensor([[0.3, 0.2], [0.1, 0.4]]),
    )
    there, last, _ = trajectory(monkeypatch, start, momentum, step, 7)
    back, first, _ = trajectory(monkeypatch, there[-1], -last, step, 7)
    assert len(there) == len(back) == 8
    for one, other in zip(there, reversed(back), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    torch.testing.assert_close(first, -momentum, rtol=0, atol=1e-10)


def test_the_error_of_the_energy_is_of_second_order(monkeypatch):
    start, momentum = torch.randn(200, 1, 2), torch.randn(200, 1, 2)
    errors = [
        -trajectory(monkeypatch, start, momentum, torch.full((1, 2), 0.04 / refined), 10 * refined)[
            2
        ].log()
        for refined in (1, 2)
    ]
    rejectable = errors[0] > 1e-4
    assert rejectable.sum() > 20
    ratio = errors[0][rejectable] / errors[1][rejectable]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 4.0), rtol=0.1, atol=0.0)


@pytest.mark.parametrize("outside", [math.nan, -math.inf, math.inf])
def test_what_has_left_the_numbers_is_not_accepted(outside):
    def broken(white):
        point = gaussian(white)
        beyond = white.abs().amax(-1) > 1
        return point._replace(log_density=torch.where(beyond, outside, point.log_density))

    start = broken(torch.rand(400, 1, 2) - 0.5)
    point, probability = hmc_transition(broken, start, torch.full((1, 2), 0.5), 3)
    assert 0.05 < (probability == 0).double().mean() < 0.95
    assert point.white.abs().max() <= 1
    stayed = probability[:, 0] == 0
    for before, after in zip(start, point, strict=True):
        assert torch.equal(before[stayed], after[stayed])
