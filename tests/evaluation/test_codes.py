"""Codes of rows: mean, scale, draws and k-hat of q(z | x), in the order of the rows."""

import pytest
import torch
from torch import nn

from pyro_vae import (
    VAE,
    DiagNormalPosterior,
    FlowPosterior,
    NormalLikelihood,
    Rows,
    SplineFlow,
    StandardNormalPrior,
)
from pyro_vae.data import Identity
from pyro_vae.evaluation import encode_rows

NUM_DRAWS = 400


@pytest.fixture
def x():
    return torch.randn(450, 3, generator=torch.Generator().manual_seed(0))


def vae_with(posterior):
    return VAE(StandardNormalPrior(2), NormalLikelihood(nn.Linear(2, 3), 3, scale=1.0), posterior)


def test_means_and_scales_are_those_of_the_posterior(x):
    vae = vae_with(DiagNormalPosterior(nn.Linear(3, 4), 3, 2))
    codes = encode_rows(vae, x)
    q_z = vae.encode(x)
    torch.testing.assert_close(codes.mean, q_z.mean)
    torch.testing.assert_close(codes.scale, q_z.stddev)
    assert (tuple(codes.draws.shape), codes.khat) == ((0, 450, 2), None)


def test_codes_go_with_their_rows_whatever_the_order(x):
    vae = vae_with(DiagNormalPosterior(nn.Linear(3, 4), 3, 2))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    counts = {"num_draws": 2, "num_importance_samples": 30}
    codes = encode_rows(vae, Rows(x, Identity()), **counts)
    shuffled = encode_rows(vae, x[order], **counts)
    assert torch.equal(shuffled.mean, codes.mean[order])
    assert torch.equal(shuffled.draws, codes.draws[:, order])
    assert torch.equal(shuffled.khat, codes.khat[order])


@pytest.mark.parametrize("with_flow", [False, True])
def test_draws_have_the_moments_of_the_posterior(x, with_flow):
    """|z| < 5 standard errors in 36 comparisons: fails by chance once in 50,000 seeds."""
    torch.manual_seed(0)
    posterior = DiagNormalPosterior(nn.Linear(3, 4), 3, 2)
    if with_flow:
        posterior = FlowPosterior(nn.Linear(3, 36), 3, 2, flow=SplineFlow())
    vae = vae_with(posterior)
    codes = encode_rows(vae, x[:9], num_draws=NUM_DRAWS)
    many = vae.encode(x[:9]).sample((20_000,))
    # A flow has no moments in closed form: 100 draws stand for them in the codes.
    num_of_codes = 100 if with_flow else NUM_DRAWS
    error = many.std(0) * (1 / num_of_codes + 1 / NUM_DRAWS) ** 0.5
    assert ((codes.draws.mean(0) - many.mean(0)).abs() < 5 * error).all()
    assert ((codes.mean - many.mean(0)).abs() < 5 * error).all()
    assert ((codes.scale / many.std(0)).log().abs() < (0.4 if with_flow else 0.05)).all()
