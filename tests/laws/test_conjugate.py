"""Conjugate models, whose posteriors are known exactly, through SVI with plain Pyro models and guides."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.testing.fakes import (
    NonreparameterizedBeta,
    NonreparameterizedGamma,
    NonreparameterizedNormal,
)
from pyro.infer import RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae import SVI, Execution

# Adam's learning rate at the start, and the number of steps over which it falls to 0.
LR, NUM_STEPS = 0.2, 150
# Tolerances, at least 3.5 times the root mean square over seeds of the Monte Carlo noise left at the end: of loc in
# deviations of the exact posterior, of covariance relative to it, by the kind of gradient; and of a loss in nats.
REPARAMETERISED, SCORE_FUNCTION, LOSS = 0.04, 0.08, 0.04


class Conjugate(NamedTuple):
    """p(z) and p(x | z) of independent rows x, with the exact p(z | x) and log p(x)."""

    prior: dist.Distribution
    likelihood: Callable[[Tensor], dist.Distribution]
    x: Tensor
    posterior: dist.Distribution
    log_evidence: Tensor

    def model(self):
        z = pyro.sample("z", self.prior)
        with pyro.plate("rows", len(self.x)):
            pyro.sample("x", self.likelihood(z), obs=self.x)


def normal_normal():
    x, loc, scale, noise = torch.tensor([1.2, 2.9, 0.7, 2.2]), 0.5, 1.5, 0.8
    precision = scale**-2 + len(x) * noise**-2
    posterior = dist.Normal(
        (loc * scale**-2 + x.sum() * noise**-2) / precision, torch.tensor(precision**-0.5)
    )
    covariance = noise**2 * torch.eye(len(x)) + scale**2
    evidence = dist.MultivariateNormal(torch.full((len(x),), loc), covariance)
    prior = dist.Normal(torch.tensor(loc), torch.tensor(scale))
    return Conjugate(prior, lambda z: dist.Normal(z, noise), x, posterior, evidence.log_prob(x))


def beta_bernoulli():
    x, a, b = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0]), torch.tensor(2.0), torch.tensor(3.0)
    posterior = dist.Beta(a + x.sum(), b + (1 - x).sum())
    log_evidence = log_beta(posterior.concentration1, posterior.concentration0) - log_beta(a, b)
    return Conjugate(dist.Beta(a, b), dist.Bernoulli, x, posterior, log_evidence)


def poisson_gamma():
    x, a, b = torch.tensor([2.0, 4.0, 1.0, 3.0]), torch.tensor(3.0), torch.tensor(2.0)
    posterior = dist.Gamma(a + x.sum(), b + len(x))
    log_evidence = (
        log_gamma_integral(posterior)
        - log_gamma_integral(dist.Gamma(a, b))
        - (x + 1).lgamma().sum()
    )
    return Conjugate(dist.Gamma(a, b), dist.Poisson, x, posterior, log_evidence)


def log_beta(a, b):
    return a.lgamma() + b.lgamma() - (a + b).lgamma()


def log_gamma_integral(gamma):
    return gamma.concentration.lgamma() - gamma.concentration * gamma.rate.log()


def params(family, start):
    """The parameters of a family as Pyro's, each under its constraint (a positive one is trained as its logarithm)."""
    constraints = family.arg_constraints.items()
    return {
        name: pyro.param(name, getattr(start, name).clone(), constraint=support)
        for name, support in constraints
    }


def guide_of(family, start):
    return lambda: pyro.sample("z", family(**params(family, start)))


def linear_regression(design, x, prior_scale, noise):
    """x = design w + noise, with w standard normal times `prior_scale`: the model, and the exact p(w | x)."""

    def model():
        weight = pyro.sample(
            "weight", dist.Normal(torch.zeros(design.shape[1]), prior_scale).to_event(1)
        )
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal((design * weight).sum(-1), noise), obs=x)

    precision = torch.eye(design.shape[1]) * prior_scale**-2 + design.T @ design * noise**-2
    loc = torch.linalg.solve(precision, design.T @ x * noise**-2)
    return model, dist.MultivariateNormal(loc, precision_matrix=precision)


def mean_field(normal):
    """The diagonal normal nearest in KL(q || p): the same loc, and the inverse diagonal of the precision."""
    return dist.MultivariateNormal(
        normal.loc, precision_matrix=normal.precision_matrix.diagonal().diag()
    )


def particles(objective, num):
    return objective(num_particles=num, vectorize_particles=True)


def fit(model, guide, loss):
    """Adam whose learning rate falls to 0, which averages the noise of the gradients out."""
    svi = SVI(model, guide, lambda parameters: torch.optim.Adam(parameters, lr=LR), loss)
    svi.step()
    schedule = torch.optim.lr_scheduler.LinearLR(svi.optim, 1.0, 0.0, total_iters=NUM_STEPS)
    for _ in range(NUM_STEPS):
        svi.step()
        schedule.step()


def losses_at(problem, guide, objective, num, execution=Execution()):
    """The loss of steps that move nothing, and without a step."""
    still = partial(torch.optim.SGD, lr=0.0)
    svi = SVI(problem.model, guide, still, objective, execution=execution)
    return torch.stack(
        [*(svi.step() for _ in range(num)), *(svi.evaluate_loss() for _ in range(num))]
    )


def moments(normal):
    if isinstance(normal, dist.MultivariateNormal):
        return normal.loc, normal.covariance_matrix
    return normal.mean.reshape(1), normal.variance.reshape(1, 1)


def assert_reaches(exact, found, atol):
    """Whitened by the exact posterior, `found` has mean 0 and covariance I, so that `atol` is in posterior deviations."""
    exact_loc, exact_covariance = moments(exact)
    loc, covariance = moments(found)
    whiten = torch.linalg.cholesky(exact_covariance).inverse()
    whitened = whiten @ (loc - exact_loc), whiten @ covariance @ whiten.T
    torch.testing.assert_close(
        whitened, (torch.zeros_like(loc), torch.eye(len(loc))), atol=atol, rtol=0.0
    )


@pytest.mark.parametrize(
    ("problem", "family", "objective", "num", "atol"),
    [
        (normal_normal, dist.Normal, Trace_ELBO, 1000, REPARAMETERISED),
        (normal_normal, NonreparameterizedNormal, Trace_ELBO, 5000, SCORE_FUNCTION),
        (beta_bernoulli, dist.Beta, TraceMeanField_ELBO, 1000, REPARAMETERISED),
        (poisson_gamma, dist.Gamma, Trace_ELBO, 2000, REPARAMETERISED),
        pytest.param(
            *(poisson_gamma, NonreparameterizedGamma, Trace_ELBO, 40_000, SCORE_FUNCTION),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_svi_goes_from_the_prior_to_the_exact_posterior(problem, family, objective, num, atol):
    exact = problem()
    with pyro.get_param_store().scope():
        fit(exact.model, guide_of(family, exact.prior), particles(objective, num))
        assert_reaches(exact.posterior, family(**params(family, exact.prior)), atol)


@pytest.mark.parametrize(
    "autoguide", [AutoNormal, pytest.param(AutoMultivariateNormal, marks=pytest.mark.slow)]
)
def test_an_autoguide_reaches_the_exact_posterior_of_linear_regression_or_its_mean_field(autoguide):
    mixing = torch.tensor([[1.0, 0.6, 0.0], [0.0, 1.0, 0.6], [0.0, 0.0, 1.0]])
    orthogonal = torch.tensor(
        [[1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, -1.0], [1.0, -1.0, -1.0]]
    )
    model, exact = linear_regression(
        orthogonal @ mixing, torch.tensor([2.0, -0.5, 1.0, 0.3]), 1.5, 0.7
    )
    with pyro.get_param_store().scope():
        guide = autoguide(model)
        fit(model, guide, particles(Trace_ELBO, 5000))
        if autoguide is AutoNormal:
            found = dist.MultivariateNormal(
                guide.locs.weight, scale_tril=guide.scales.weight.diag()
            )
            assert_reaches(mean_field(exact), found, REPARAMETERISED)
        else:
            assert_reaches(exact, guide.get_posterior(), REPARAMETERISED)


@pytest.mark.parametrize(
    ("objective", "num"),
    [
        (Trace_ELBO, 5),
        (TraceGraph_ELBO, 5),
        (RenyiELBO, 5),
        (partial(RenyiELBO, alpha=0.5), 5),
    ],
)
@pytest.mark.parametrize(
    ("problem", "family"),
    [
        (normal_normal, dist.Normal),
        (normal_normal, NonreparameterizedNormal),
        (beta_bernoulli, dist.Beta),
        (beta_bernoulli, NonreparameterizedBeta),
        (poisson_gamma, dist.Gamma),
        (poisson_gamma, NonreparameterizedGamma),
    ],
)
def test_at_the_exact_posterior_every_draw_gives_the_log_evidence(
    problem, family, objective, num, float64
):
    exact = problem()
    with pyro.get_param_store().scope():
        losses = losses_at(exact, guide_of(family, exact.posterior), particles(objective, num), 3)
    torch.testing.assert_close(
        losses, -exact.log_evidence.expand(len(losses)), rtol=1e-10, atol=0.0
    )


@pytest.mark.parametrize("objective", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize(
    ("problem", "family", "elsewhere"),
    [
        (normal_normal, dist.Normal, (1.0, 0.8)),
        (beta_bernoulli, dist.Beta, (2.0, 2.0)),
        (poisson_gamma, dist.Gamma, (6.0, 4.0)),
    ],
)
def test_elsewhere_the_elbo_falls_short_of_the_log_evidence_by_the_divergence(
    problem, family, elsewhere, objective
):
    exact, start = problem(), family(*torch.tensor(elsewhere))
    with pyro.get_param_store().scope():
        many = particles(objective, 20_000)
        losses = losses_at(exact, guide_of(family, start), many, 5, Execution(trace=False))
    gap = losses.mean() + exact.log_evidence
    torch.testing.assert_close(gap, kl_divergence(start, exact.posterior), atol=LOSS, rtol=0.0)
