"""Which latent dimensions are active, mixed and collapsed, and how a report says so."""

import pyro.distributions as dist
import pytest
import torch
from models import PriorAsPosterior, linear_gaussian_vae
from references import LinearGaussian
from torch import nn

from pyro_vae import VAE, BernoulliLikelihood, Posterior, StandardNormalPrior, evaluate
from pyro_vae.diagnostics import collapse_report
from pyro_vae.evaluation import Estimate, Evaluation


def exact(value):
    return Estimate(value, 0.0, 0.1, 0, 100)


def evaluation(variances, rates, rate=None):
    total = exact(sum(rates) if rate is None else rate)
    by_dim = None if rates is None else [exact(value) for value in rates]
    return Evaluation(total, total, total, None, None, by_dim, variances, 0, "Identity()")


def test_dimensions_are_told_apart_by_their_mean_and_their_kl():
    report = collapse_report(
        evaluation([0.9, 0.001, 0.0, 0.02, 0.0], [2.0, 0.0001, 0.5, 0.0, 0.0099])
    )
    assert (report.active, report.mixed, report.collapsed) == ([0, 3], [2], [1, 4])
    assert report.rate == pytest.approx(2.51)
    assert report.active_share == pytest.approx(2.0 / 2.51)
    assert report.verdict() == (
        "partial collapse: 2 of 5 latent dimensions are active, the rate is 2.51 nats, 79.7 % of it in them; "
        "off the prior but not with x: z_3; no KL: z_2, z_5"
    )


@pytest.mark.parametrize(
    ("num_active", "degree"), [(0, "full"), (1, "partial"), (2, "no"), (4, "no")]
)
def test_the_degree_goes_by_the_share_of_active_dimensions(num_active, degree):
    flags = [float(dim < num_active) for dim in range(4)]
    verdict = collapse_report(evaluation(flags, flags)).verdict()
    assert verdict.startswith(f"{degree} collapse: {num_active} of 4 latent dimensions are active")


def test_without_a_kl_by_dimension_the_means_alone_decide():
    report = collapse_report(evaluation([0.9, 0.0, 0.3], None, rate=3.0))
    assert (report.active, report.mixed, report.collapsed, report.active_share) == (
        [0, 2],
        [],
        [1],
        None,
    )
    assert report.verdict() == (
        "no collapse: 2 of 3 latent dimensions are active, the rate is 3.00 nats; a constant mean, KL unknown: z_2"
    )


def test_a_posterior_that_is_the_prior_has_collapsed():
    vae = VAE(
        StandardNormalPrior(3),
        BernoulliLikelihood(nn.Linear(3, 4), 4),
        PriorAsPosterior(nn.Identity(), 4, 3),
    )
    report = collapse_report(evaluate(vae, vae.sample(50), num_importance_samples=0))
    assert report.collapsed == [0, 1, 2]
    assert (report.rate, report.active_share) == (0, 0)
    assert report.verdict().startswith("full collapse: 0 of 3 ")


class Elsewhere(Posterior):
    """The same for all x, and not the prior."""

    def forward(self, x, y=None):
        return dist.Normal(torch.ones(*x.shape[:-1], self.latent_dim), 0.5).to_event(1)


def test_a_constant_posterior_off_the_prior_wastes_its_rate():
    vae = VAE(
        StandardNormalPrior(2),
        BernoulliLikelihood(nn.Linear(2, 4), 4),
        Elsewhere(nn.Identity(), 4, 2),
    )
    report = collapse_report(evaluate(vae, vae.sample(50), num_importance_samples=0))
    assert (report.mixed, report.active_share) == ([0, 1], 0)
    assert report.rate > 1


def test_the_latent_that_the_decoder_does_not_read_has_collapsed_in_the_exact_posterior():
    reference = LinearGaussian(
        torch.tensor([[2.0, 0.0], [0.0, 0.0], [1.0, 0.0]]), torch.zeros(3), 0.3
    )
    vae = linear_gaussian_vae(reference)
    report = collapse_report(evaluate(vae, vae.sample(200), num_importance_samples=0))
    assert (report.active, report.collapsed, report.active_share) == ([0], [1], None)
