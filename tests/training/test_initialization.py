"""Where a likelihood starts: scale, dispersion and units from the training rows; and what a VAE has to beat."""

import copy
import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from test_contracts import LIKELIHOODS, network
from torch import nn

import pyro_vae as pv
from pyro_vae import (
    MLP,
    VAE,
    BernoulliLikelihood,
    DiagNormalPosterior,
    FixedScale,
    LaplaceLikelihood,
    LearnedScale,
    Likelihood,
    NegativeBinomialLikelihood,
    NetworkScale,
    NormalLikelihood,
    StandardNormalPrior,
    StudentTLikelihood,
    evaluate,
    initialize,
)
from pyro_vae.evaluation import Estimate
from pyro_vae.evaluation.without_latent import fit_without_latent

UNITS = torch.tensor([1e-4, 1.0, 1e5])


def table(num_rows=300):
    return UNITS * (1 + torch.randn(num_rows, 3))


def vae_of(likelihood):
    size = likelihood.x_shape.numel()
    return VAE(
        StandardNormalPrior(2),
        likelihood,
        DiagNormalPosterior(MLP(size, [4], 4), likelihood.x_shape, 2),
    )


def zero_network(out_shape):
    """A network whose outputs are all 0."""
    mlp = MLP(2, [], out_shape)
    for parameter in mlp.parameters():
        nn.init.zeros_(parameter)
    return mlp


# Real numbers


@pytest.mark.parametrize("family", [NormalLikelihood, LaplaceLikelihood, StudentTLikelihood])
@pytest.mark.parametrize("scale", [None, LearnedScale((3,)), NetworkScale()])
def test_a_location_scale_likelihood_starts_at_the_mean_and_the_spread_of_the_rows(family, scale):
    likelihood, x = family(zero_network, 3, copy.deepcopy(scale)), table()
    initialize(vae_of(likelihood), x)
    p_x = likelihood(torch.zeros(2))
    torch.testing.assert_close(p_x.mean, x.mean(0), rtol=1e-4, atol=0)
    # From the network it is the unit that the scale starts at, above the floor.
    torch.testing.assert_close(
        p_x.stddev, x.std(0, correction=0), rtol=0.02 if scale is None else 0.6, atol=0
    )


@pytest.mark.parametrize("make", [NormalLikelihood, LaplaceLikelihood, StudentTLikelihood])
def test_the_scale_is_learned_for_each_element_by_default(make):
    scale = make(network, (2, 3)).scale
    assert (type(scale), scale().shape) == (LearnedScale, (2, 3))
    assert torch.equal(scale(), torch.ones(2, 3))
    scale = NegativeBinomialLikelihood(network, (2, 3)).dispersion
    assert (type(scale), scale().shape) == (LearnedScale, (2, 3))


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (0.3, 0.3),
        (FixedScale(0.3), 0.3),
        (LearnedScale(init=0.3), 0.3),
        (LearnedScale(init=0.3, min_scale=0.2), 0.3),
    ],
)
def test_what_is_asked_for_in_numbers_is_in_the_units_of_x_and_stays(scale, expected):
    likelihood = NormalLikelihood(zero_network, 3, scale)
    likelihood.initialize(torch.zeros(3), torch.full((3,), 7.0))
    assert likelihood(torch.zeros(2)).stddev.tolist() == pytest.approx([expected] * 3)


def test_one_scale_for_all_starts_at_their_root_mean_square():
    likelihood = NormalLikelihood(zero_network, (1, 2, 2), LearnedScale())
    likelihood.initialize(torch.zeros(1, 2, 2), torch.tensor([[[3.0, 1.0], [1.0, 5.0]]]))
    assert likelihood.scale().item() == pytest.approx(3)


@pytest.mark.parametrize(
    ("min_scale", "expected"), [(None, 0.01 * UNITS), (0.5, torch.full((3,), 0.5))]
)
def test_the_floor_is_a_hundredth_of_the_unit_unless_it_is_given(min_scale, expected):
    likelihood = NormalLikelihood(zero_network, 3, LearnedScale((3,), min_scale=min_scale))
    likelihood.initialize(torch.zeros(3), UNITS)
    likelihood.scale.log_scale.data.fill_(-200.0)
    torch.testing.assert_close(likelihood(torch.zeros(2)).stddev, expected)


def test_a_constant_pixel_starts_near_the_floor_of_its_channel():
    std = torch.tensor([[[0.0, 0.3], [0.3, 0.3]]])
    likelihood = NormalLikelihood(zero_network, (1, 2, 2))
    likelihood.initialize(torch.zeros(1, 2, 2), std)
    floor = 0.01 * math.sqrt(0.75) * 0.3
    assert likelihood.scale()[0, 0, 0].item() == pytest.approx(1.1 * floor, rel=1e-4)
    assert likelihood.scale()[0, 0, 1].item() == pytest.approx(0.3, rel=1e-4)


def test_the_units_of_x_change_log_p_by_their_logs_alone():
    x, z = torch.randn(60, 3), torch.randn(60, 2)
    likelihood = NormalLikelihood(MLP(2, [4], (1, 3)), 3)
    other = copy.deepcopy(likelihood)
    initialize(vae_of(likelihood), x)
    initialize(vae_of(other), UNITS * x)
    received = other(z).log_prob(UNITS * x) + UNITS.log().sum()
    torch.testing.assert_close(received, likelihood(z).log_prob(x), rtol=1e-3, atol=1e-3)


def test_an_output_bias_still_starts_at_the_mean_after_the_units():
    likelihood, x = NormalLikelihood(zero_network, 3), table()
    initialize(vae_of(likelihood), x)
    mean = x.mean(0) + 2 * UNITS
    likelihood.initialize_bias(mean)
    torch.testing.assert_close(likelihood(torch.zeros(2)).mean, mean, rtol=1e-4, atol=0)


def test_weights_from_before_there_were_units_load():
    old = {
        "network.weight": torch.ones(3, 2),
        "network.bias": torch.ones(3),
        "scale.log_scale": torch.zeros(()),
    }
    likelihood = NormalLikelihood(nn.Linear(2, 3), 3, LearnedScale())
    likelihood.load_state_dict(old)
    assert sorted(old) == ["network.bias", "network.weight", "scale.log_scale"]
    assert likelihood(torch.zeros(2)).stddev.tolist() == pytest.approx([1.001] * 3)
    with pytest.raises(RuntimeError, match="network.bias"):
        likelihood.load_state_dict({name: old[name] for name in old if name != "network.bias"})


# Counts


def test_a_dispersion_starts_at_that_of_the_rows_by_moments():
    mean, dispersion = torch.tensor([3.0, 50.0, 1e4]), torch.tensor([0.05, 0.5, 3.0])
    likelihood = NegativeBinomialLikelihood(zero_network, 3)
    likelihood.initialize(mean, (mean + dispersion * mean**2).sqrt())
    torch.testing.assert_close(likelihood.dispersion(), dispersion, rtol=1e-3, atol=0)


@pytest.mark.parametrize("std", [0.0, 1.0, 1e6])
def test_a_dispersion_starts_in_a_range_from_which_it_can_be_learned(std):
    likelihood = NegativeBinomialLikelihood(zero_network, 2)
    likelihood.initialize(torch.tensor([0.0, 2.0]), torch.full((2,), std))
    assert ((likelihood.dispersion() >= 0.0099) & (likelihood.dispersion() <= 10.01)).all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_likelihood_can_start_from_data_and_scores_them_then(name):
    case = LIKELIHOODS[name]
    likelihood = case.make()
    likelihood.initialize(case.mean, 0.1 + case.mean)
    p_x = likelihood(torch.zeros(2))
    assert p_x.log_prob(case.x).isfinite()
    other = case.make()
    other.load_state_dict(likelihood.state_dict())
    assert torch.equal(other(torch.zeros(2)).log_prob(case.x), p_x.log_prob(case.x))


# Without z


def test_the_best_normal_without_z_has_the_moments_of_the_rows():
    x = torch.randn(300, 3) * torch.tensor([0.5, 1.0, 3.0]) + 2
    log_prob = fit_without_latent(vae_of(NormalLikelihood(MLP(2, [4], 3), 3)), x)
    expected = torch.distributions.Normal(x.mean(0), x.std(0, correction=0)).log_prob(x).sum(1)
    torch.testing.assert_close(log_prob(x), expected, rtol=1e-2, atol=1e-2)


def test_the_best_bits_without_z_cost_their_entropy():
    x = (torch.rand(400, 4) < torch.tensor([0.1, 0.5, 0.8, 0.97])).float()
    log_prob = fit_without_latent(vae_of(BernoulliLikelihood(MLP(2, [4], 4), 4)), x)
    p = x.mean(0)
    entropy = (torch.special.entr(p) + torch.special.entr(1 - p)).sum().item()
    assert -log_prob(x).mean().item() == pytest.approx(entropy, abs=2e-3)


def test_what_is_missing_has_no_part_in_the_best_model_without_z():
    x = torch.randn(300, 3)
    x[torch.rand(300, 3) < 0.3] = torch.nan
    vae = vae_of(NormalLikelihood(MLP(2, [4], 3), 3))
    vae = VAE(vae.prior, vae.likelihood, vae.posterior, missing="nan")
    before = copy.deepcopy(vae.state_dict())
    received = fit_without_latent(vae, x)(x).mean().item()
    std = torch.from_numpy(np.nanstd(x.numpy(), 0))
    columns = torch.distributions.Normal(x.nanmean(0), std, validate_args=False)
    assert received == pytest.approx(columns.log_prob(x).nansum(1).mean().item(), abs=0.02)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


def test_a_likelihood_with_a_context_has_no_best_model_without_z():
    vae = vae_of(BernoulliLikelihood(MLP(2, [4], 4, context_dim=3), 4))
    assert fit_without_latent(vae, torch.zeros(5, 4)) is None


class Given(Likelihood):
    """A density without parameters, or one whose parameter a step can make NaN."""

    def __init__(self):
        super().__init__(nn.Identity(), 3)
        self.scale = None

    def forward(self, z, y=None):
        scale = 1.0 if self.scale is None else self.scale / 0.0 * 0.0
        return dist.Normal(z.new_zeros(*z.shape[:-1], 3), scale).to_event(1)


def test_a_likelihood_with_nothing_to_fit_is_its_own_best_model_without_z():
    x = torch.randn(5, 3)
    expected = dist.Normal(0.0, 1.0).log_prob(x).sum(1)
    torch.testing.assert_close(fit_without_latent(vae_of(Given()), x)(x), expected)


def test_there_is_no_best_model_without_z_where_the_fit_leaves_the_numbers():
    vae = vae_of(Given())
    vae.likelihood.scale = nn.Parameter(torch.tensor(1.0))
    assert fit_without_latent(vae, torch.randn(5, 3)) is None


def test_an_evaluation_says_in_one_sentence_that_z_is_of_no_use():
    vae = vae_of(NormalLikelihood(MLP(2, [4], 3), 3, 1.0))
    for parameter in vae.posterior.parameters():
        nn.init.zeros_(parameter)
    result = evaluate(vae, torch.randn(300, 3), num_importance_samples=0)
    (sentence,) = result.remarks()
    assert sentence.startswith("No latent dimension is active, so that z tells nothing of x: try ")
    assert result.table().endswith(sentence)
    assert result.without_latent.num_samples == 0
    useless = result._replace(active_units=1)
    assert useless.remarks()[0].startswith("-ELBO is no better than the ")
    assert "of the best model without z: try " in useless.remarks()[0]
    useful = useless._replace(
        without_latent=Estimate(result.negative_elbo.mean + 1, 0.0, 0.1, 0, 300)
    )
    assert useful.remarks() == []
    assert "without z (nats)" in useful.table()
    assert pv.Evaluation(*result[:9]).remarks() == [sentence]
