"""Supports that depend on other latents: the samplers against known answers, the map against autograd, and refusals."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.transforms import (
    AffineTransform,
    ExpTransform,
    OrderedTransform,
    SigmoidTransform,
)
from torch import nn

from pyro_vae import hmc, importance_sample, nuts
from pyro_vae.diagnostics import sandwich
from pyro_vae.inference.programs import Programs
from pyro_vae.inference.row_densities import RowDensities
from pyro_vae.inference.supports import Kinds, Support, ToSupport

pytestmark = pytest.mark.usefixtures("float64")

# Standard errors, by the chains' own effective sample size: a failure rate of 6e-7 for each number.
NUM_ERRORS = 5.0
ZERO = torch.zeros((), dtype=torch.float64)


def shifted(distribution, loc, scale=1.0):
    return dist.TransformedDistribution(distribution, [AffineTransform(loc, scale)])


def below(concentration=3.0, rate=1.0):
    """a ~ Gamma(3, 1), b ~ Uniform(0, a): E[a] = 3, E[b] = 1.5."""
    a = pyro.sample("a", dist.Gamma(concentration, rate))
    pyro.sample("b", dist.Uniform(ZERO, a))


def chained():
    """Each latent bounds the next one: by a simplex, an interval, a lower bound and an order."""
    p = pyro.sample("p", dist.Dirichlet(torch.tensor([2.0, 1.0, 3.0])))
    a = pyro.sample("a", dist.Uniform(-p[..., 0], 1 + p[..., 2]))
    b = pyro.sample("b", shifted(dist.Exponential(torch.tensor(2.0)), a))
    pyro.sample("c", dist.Pareto(b + 2, 6.0))


# E[p] = (1/3, 1/6, 1/2), E[a] = (1 + E[p_3] - E[p_1]) / 2, E[b] = E[a] + 1/2, E[c] = 6/5 (E[b] + 2).
CHAINED_MEANS = {
    "p": torch.tensor([1 / 3, 1 / 6, 1 / 2], dtype=torch.float64),
    "a": 7 / 12,
    "b": 13 / 12,
    "c": 1.2 * 37 / 12,
}


def in_rows(program, *args):
    def rows(size):
        with pyro.plate("rows", size):
            program(*args)

    return rows


def assert_means(chains, means):
    for name, mean in means.items():
        draws = chains.merged()[name]
        error = (draws.mean(0) - mean) * (chains.ess()[name] / draws.var(0)).sqrt()
        assert error.abs().max() < NUM_ERRORS, name


@pytest.mark.parametrize(
    ("program", "means"),
    [
        pytest.param(below, {"a": 3.0, "b": 1.5}, marks=pytest.mark.slow),  # NUTS samples it below
        (chained, CHAINED_MEANS),
    ],
    ids=["below", "chained"],
)
def test_hmc_where_a_support_depends_on_another_latent(program, means):
    chains = hmc(in_rows(program), in_rows(program), 20, num_samples=60, num_warmup=40, num_steps=4)
    assert_means(chains, means)


@pytest.mark.slow
def test_nuts_where_a_support_depends_on_another_latent():
    assert_means(
        nuts(below, below, num_samples=120, num_warmup=40, num_chains=1), {"a": 3.0, "b": 1.5}
    )


class Bounded:
    """a ~ Gamma(α_b, 1) and b ~ Uniform(−a, a / 2) in each row b, and x ~ N(b, σ²) in repeats of it.

    α and σ are arguments. The means of a and b, and log p(x), are integrals over a grid of a and t = (b + a) / (1.5 a).
    """

    def __init__(self):
        self.concentration = torch.tensor([1.5, 3.0, 6.0]).double()
        self.x = torch.tensor([[0.2, -1.0, 1.5], [0.9, -2.0, 0.5]]).double()

    def model(self, x, concentration, scale):
        with pyro.plate("rows", x.shape[1]):
            a = pyro.sample("a", dist.Gamma(concentration, 1.0))
            b = pyro.sample("b", dist.Uniform(-a, a / 2))
            with pyro.plate("repeats", len(x), dim=-2):
                pyro.sample("x", dist.Normal(b, scale), obs=x)

    def guide(self, x, concentration, scale):
        with pyro.plate("rows", x.shape[1]):
            a = pyro.sample("a", dist.Gamma(0.8 * concentration, 0.8))
            pyro.sample(
                "b", shifted(dist.Beta(torch.full_like(concentration, 0.9), 0.9), -a, 1.5 * a)
            )

    @property
    def args(self):
        return self.x, self.concentration, 0.7

    def answers(self):
        a = torch.linspace(0, 40, 4_001)[1:].double().unsqueeze(1)
        t = ((torch.arange(200) + 0.5) / 200).double()
        b = -a + 1.5 * a * t
        log_joint = [
            dist.Gamma(concentration, 1.0).log_prob(a)
            + dist.Normal(b.unsqueeze(-1), 0.7).log_prob(x).sum(-1)
            for concentration, x in zip(self.concentration, self.x.T, strict=True)
        ]
        weights = torch.stack(log_joint).flatten(1)
        log_marginal = weights.logsumexp(1) + math.log((40 / 4_000) / 200)
        weights = weights.softmax(1)
        means = {
            name: weights @ value.expand(4_000, 200).flatten()
            for name, value in (("a", a), ("b", b))
        }
        return {name: mean.unsqueeze(0) for name, mean in means.items()}, log_marginal


@pytest.mark.slow
def test_supports_that_depend_on_latents_and_rows_under_data():
    """Means by HMC; log p(x) by annealing and by weights: E exp(lower − log p) = 1 at 5 standard errors over chains."""
    bounded = Bounded()
    means, log_marginal = bounded.answers()
    chains = hmc(
        bounded.model,
        bounded.guide,
        *bounded.args,
        num_samples=60,
        num_warmup=40,
        num_chains=16,
        num_steps=4,
    )
    assert chains.latents["b"].shape[2:] == (3, 1)
    assert_means(chains, {name: mean.reshape(3, 1) for name, mean in means.items()})
    weighted = importance_sample(bounded.model, bounded.guide, *bounded.args, num_samples=4000)
    error = weighted.log_weights.exp().std(0) / 4000**0.5 / log_marginal.exp()
    assert ((weighted.log_marginal - log_marginal).abs() < NUM_ERRORS * error).all()
    found = sandwich(
        bounded.model, bounded.guide, *bounded.args, num_temperatures=4, num_chains=500, num_steps=2
    )
    assert ((found.lower - log_marginal).abs() < NUM_ERRORS * found.lower_error).all()


def test_weights_of_annealing_are_unbiased_in_both_directions_without_data():
    """log p = 0: E exp(lower) = 1 and E exp(−upper) = 1, over 1,000 rows, at 5 standard errors (once in 10^6)."""

    def guide(size):
        with pyro.plate("rows", size):
            a = pyro.sample("a", dist.Gamma(2.5, 1.0))
            pyro.sample("b", shifted(dist.Beta(torch.full((size,), 0.9), 0.9), ZERO, a))

    size = 1_000
    a = dist.Gamma(3.0, 1.0).sample((size,))
    exact = {"a": a, "b": a * torch.rand(size)}
    found = sandwich(
        in_rows(below), guide, size, exact=exact, num_temperatures=4, num_chains=1, num_steps=2
    )
    for ratio in (found.lower.exp(), (-found.upper).exp()):
        assert abs(ratio.mean() - 1) < NUM_ERRORS * ratio.std() / size**0.5


# The map


def mixed(x):
    """Rows at dim -2, an inner plate at dim -1, and an order, an interval and a bound that depend on latents and rows."""
    with pyro.plate("rows", len(x), dim=-2):
        a = pyro.sample("a", dist.LogNormal(x, 0.5))
        order = pyro.sample(
            "order",
            dist.TransformedDistribution(
                dist.Normal(a.unsqueeze(-1), 1.0).expand_by(()).expand([*a.shape, 3]).to_event(1),
                [OrderedTransform()],
            ),
        )
        with pyro.plate("inner", 2, dim=-1):
            b = pyro.sample("b", dist.Uniform(order[..., 0], order[..., 0] + a))
            base = dist.Beta(torch.tensor([2.0, 3.0]), 2.0)
            scale = b.unsqueeze(-1).abs() + 1
            pyro.sample("c", shifted(base, a.unsqueeze(-1), scale).to_event(1))


def test_the_density_of_w_is_that_of_the_latents_times_the_jacobian_of_autograd():
    x = torch.tensor([[0.3], [-1.0], [2.0]])
    densities = RowDensities(Programs(mixed, mixed, (x,), {}))
    white = 0.7 * torch.randn(2, 3, 1 + 3 + 2 + 4)
    latents = {
        name: densities.plate.rows_in_place(value)
        for name, value in densities.latents(white).items()
    }
    with pyro.plate("draws", 2, dim=-3):
        trace = pyro.poutine.trace(pyro.poutine.condition(mixed, data=latents)).get_trace(x)
    trace.compute_log_prob()
    sites = [trace.nodes[name] for name in densities.names]
    log_prob = sum(site["unscaled_log_prob"].sum(-1) for site in sites)

    def flat(draw, row, row_white):
        changed = white.clone()
        changed[draw, row] = row_white
        at = densities._joint_at(changed)[1].values
        return torch.cat(
            [densities.plate.rows_second(at[name])[draw, row].flatten() for name in densities.names]
        )

    for draw, row in ((0, 0), (1, 2)):
        jacobian = torch.autograd.functional.jacobian(partial(flat, draw, row), white[draw, row])
        # Both densities leave out the constant |du/dw|.
        log_det = jacobian.det().abs().log() - densities.coordinates.scale[row].log().sum()
        found = densities.log_joint(white)[draw, row]
        torch.testing.assert_close(found, log_prob[draw, row] + log_det, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(
        densities.log_guide(white), densities.log_joint(white), atol=1e-8, rtol=1e-8
    )


def test_the_guides_draws_are_standard_in_the_coordinates_of_each_draw():
    """At 5 standard errors of the mean and scale of 200 draws, and of 4,000 (once in 10^5)."""
    start = RowDensities(Programs(in_rows(below), in_rows(below), (4,), {})).start(4000)
    assert start.mean(0).abs().max() < NUM_ERRORS / 200**0.5
    assert (start.std(0) - 1).abs().max() < NUM_ERRORS / 200**0.5


@pytest.mark.parametrize(
    "distribution",
    [
        dist.Normal(1.0, 2.0),
        dist.Gamma(2.0, 1.0).expand([3]).mask(torch.tensor(True)),
        dist.Uniform(torch.tensor([-1.0, 4.0]), torch.tensor([1.0, 6.0])).to_event(1),
        dist.Pareto(torch.tensor([1.0, 5.0]), 2.0),
        dist.LogNormal(torch.zeros(2), 1.0).to_event(1),
        shifted(dist.Gamma(torch.tensor(2.0), 1.0), torch.tensor([3.0, -4.0])),
        shifted(dist.Uniform(torch.tensor(0.0), 1.0), torch.tensor(2.0), torch.tensor(-3.0)),
        dist.TransformedDistribution(
            dist.Gamma(torch.tensor(2.0), 1.0), [AffineTransform(1.0, 1.0), ExpTransform()]
        ),
        dist.TransformedDistribution(
            dist.Normal(torch.tensor(2.0), 1.0), [SigmoidTransform(), AffineTransform(2.0, 3.0)]
        ),
        shifted(dist.Exponential(torch.ones(3)), torch.arange(3.0)).to_event(1),
        dist.MixtureSameFamily(dist.Categorical(torch.ones(3)), dist.Gamma(torch.ones(3), 1.0)),
        dist.MixtureSameFamily(
            dist.Categorical(torch.ones(2, 3)), dist.Beta(torch.ones(2, 3), 1.0)
        ).to_event(1),
    ],
    ids=str,
)
def test_the_map_leads_onto_the_support(distribution):
    """What it makes of real numbers has a finite density, and draws are found again."""
    support = Support.of(distribution)
    bijection, draws = support.bijection(), distribution.sample((50,)).double()
    values = bijection(torch.randn_like(bijection.inv(draws)) * 2)
    assert support.contains(draws)
    assert support.contains(values)
    assert distribution.log_prob(values).isfinite().all()
    torch.testing.assert_close(bijection(bijection.inv(draws)), draws, atol=1e-6, rtol=1e-6)


def test_what_lies_outside_is_not_contained():
    assert not Support.of(shifted(dist.Gamma(2.0, 1.0), 3.0)).contains(torch.tensor(2.9))
    assert not Support.of(shifted(dist.Uniform(ZERO, 1.0), 2.0, 3.0)).contains(torch.tensor(5.1))


# Refusals


def changing_kind(first, second):
    """Another distribution, or another size, where the first latent is negative."""

    def program():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", first() if a.mean() < 0 else second())

    return program


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda: dist.Normal(0.0, 1.0), lambda: dist.Gamma(2.0, 1.0)),
        (lambda: dist.Beta(2.0, 1.0), lambda: dist.LogNormal(2.0, 1.0)),
        (lambda: dist.Dirichlet(torch.ones(3)), lambda: dist.Dirichlet(torch.ones(4))),
        (
            lambda: dist.Normal(torch.zeros(1), 1.0).to_event(1),
            lambda: dist.Normal(torch.zeros(2), 1.0).to_event(1),
        ),
    ],
)
def test_a_support_of_another_kind_or_size_in_another_run_is_refused(first, second):
    program = changing_kind(first, second)
    with pytest.raises(
        ValueError,
        match="^'model' must give 'b' a support of one kind and shape in every run, got ",
    ):
        nuts(program, program)


def test_a_support_of_another_kind_in_another_run_of_rows_is_refused():
    calls = []

    def program():
        calls.append(0)
        with pyro.plate("rows", 3):
            pyro.sample("b", dist.Normal(0.0, 1.0) if len(calls) < 14 else dist.Gamma(1.0, 1.0))

    for sampler in (hmc, sandwich):
        calls.clear()
        with pytest.raises(
            ValueError,
            match=r"a support of one kind and shape in every run, got \w+ of the event shape",
        ):
            sampler(program, program)


def test_a_latent_in_some_runs_only_is_refused():
    def program():
        if pyro.sample("a", dist.Normal(0.0, 1.0)) > 0:
            pyro.sample("b", dist.Normal(0.0, 1.0))

    def guide():
        pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", dist.Normal(0.0, 1.0))

    with pytest.raises(
        ValueError, match="^'guide' must have the same latents in every run, got a.* after a"
    ):
        nuts(program, program)
    with pytest.raises(ValueError, match="^'model' must have "):
        nuts(program, guide)
    at = ToSupport({"a": torch.tensor(-1.0), "b": torch.tensor(0.0)}, Kinds())
    with pytest.raises(
        ValueError,
        match="^'model' must have the same latents in every run, got none of b in one of them",
    ):
        at(program)()
    at = ToSupport({"a": torch.tensor(1.0)}, Kinds())
    with pytest.raises(
        ValueError,
        match="^'model' must have the same latents in every run, got 'b' in one of them only",
    ):
        at(program)()


@pytest.mark.parametrize("sampler", [hmc, nuts, sandwich])
def test_a_guide_that_draws_outside_a_support_is_refused(sampler):
    def guide(size):
        with pyro.plate("rows", size):
            pyro.sample("a", dist.Gamma(3.0, 1.0))
            pyro.sample("b", dist.Gamma(1.5, 1.0))

    with pytest.raises(
        ValueError, match="^'guide' must have each 'b' inside the support that the model gives it"
    ):
        sampler(in_rows(below), guide, 3)


def test_an_exact_draw_outside_a_support_is_refused():
    exact = {"a": torch.ones(2), "b": torch.tensor([0.5, 1.5])}
    with pytest.raises(ValueError, match="^'exact' must have each 'b' inside the support"):
        sandwich(in_rows(below), in_rows(below), 2, exact=exact)


@pytest.mark.parametrize(
    "make",
    [
        lambda: dist.ProjectedNormal(torch.tensor([1.0, 0.5])),
        lambda: dist.MixtureSameFamily(
            dist.Categorical(torch.ones(2)),
            dist.Uniform(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 3.0])),
        ),
    ],
)
@pytest.mark.parametrize("sampler", [hmc, nuts, sandwich])
def test_supports_without_a_map_are_refused(sampler, make):
    def program():
        with pyro.plate("rows", 2):
            pyro.sample("b", make())

    with pytest.raises(
        ValueError,
        match="^'model' must give 'b' a support onto which real numbers can be mapped, got",
    ):
        sampler(program, program)


def test_latents_of_a_model_are_found_without_running_its_decoder():
    """The samplers need latents of many draws at once, of which decoding would fill the memory."""
    decoded = []

    class Decoder(nn.Module):
        def forward(self, z):
            decoded.append(len(z))
            return z

    decoder = Decoder()

    def model():
        with pyro.plate("rows", 2):
            z = pyro.sample("z", dist.Gamma(2.0, 1.0))
            pyro.sample("x", dist.Normal(decoder(z), 1.0), obs=torch.zeros(2))

    def guide():
        with pyro.plate("rows", 2):
            pyro.sample("z", dist.Gamma(2.0, 1.0))

    RowDensities(Programs(model, guide, (), {})).start(50)
    assert max(decoded) <= 2
