"""Imputation against what is known of a linear-Gaussian model, and of data with a known conditional mean."""

import pytest
import references
import torch
from models import PriorAsPosterior, binary_vae
from test_contracts import LIKELIHOODS
from test_missing import NAN, ObservedPosterior, linear_vae, make_vae, nowhere_special
from torch import nn

from pyro_vae import (
    MLP,
    VAE,
    DiagNormalPosterior,
    ImportanceWeightedELBO,
    LearnedScale,
    NormalLikelihood,
    OneHotCategoricalLikelihood,
    Shuffled,
    StandardNormalPrior,
    Training,
    fit,
    impute,
)


@pytest.fixture
def reference(float64):
    return references.LinearGaussian(torch.randn(4, 2), torch.randn(4), 0.6)


@pytest.fixture
def x(reference):
    x = torch.randn(5, 2) @ reference.weight.T + reference.bias + 0.6 * torch.randn(5, 4)
    observed = torch.tensor(
        [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    ).bool()
    return torch.where(observed, x, NAN)


def conditional(reference, row):
    """Mean and covariance of the missing entries given the others."""
    seen = ~row.isnan()
    covariance = reference.weight @ reference.weight.T + reference.scale**2 * torch.eye(len(row))
    gain = covariance[~seen][:, seen] @ covariance[seen][:, seen].inverse()
    mean = reference.bias[~seen] + gain @ (row - reference.bias)[seen]
    return mean, covariance[~seen][:, ~seen] - gain @ covariance[seen][:, ~seen]


@pytest.mark.parametrize(
    "make",
    [ObservedPosterior, lambda reference: PriorAsPosterior(nn.Identity(), 4, 2)],
    ids=["exact", "prior"],
)
def test_the_imputed_mean_is_the_conditional_mean_and_draws_spread_like_the_conditional(
    reference, x, make
):
    imputed = impute(linear_vae(reference, make(reference)), x, num_samples=20_000, num_draws=4_000)
    for number, row in list(enumerate(x))[1:]:
        missing = row.isnan()
        mean, covariance = conditional(reference, row)
        # Five standard errors, which the missing entries of all rows fail with probability 6e-7 each.
        bound = 5 * covariance.diagonal().sqrt()
        assert (
            (imputed.mean[number][missing] - mean).abs() < bound / imputed.ess[number] ** 0.5
        ).all()
        draws = imputed.draws[:, number, missing]
        error = bound * (1 / 4_000 + 1 / imputed.ess[number]) ** 0.5
        assert ((draws.mean(0) - mean).abs() < error).all()
        ratio = draws.var(0) / covariance.diagonal()
        assert ((ratio - 1).abs() < 2**0.5 * 5 * (1 / 4_000 + 1 / imputed.ess[number]) ** 0.5).all()
        assert torch.equal(imputed.mean[number][~missing], row[~missing])
        assert (imputed.draws[:, number, ~missing] == row[~missing]).all()


def test_with_the_exact_posterior_all_draws_count_alike(reference, x):
    imputed = impute(linear_vae(reference, ObservedPosterior(reference)), x, num_samples=400)
    assert imputed.ess.tolist() == pytest.approx([400] * 5)
    assert imputed.khat.tolist() == [0] * 5
    assert imputed.draws.shape == (0, 5, 4)


def test_with_another_posterior_they_do_not(reference, x):
    imputed = impute(
        linear_vae(reference, PriorAsPosterior(nn.Identity(), 4, 2)), x, num_samples=2_000
    )
    assert (imputed.ess[:3] < 1_000).all()
    assert imputed.ess[4] == pytest.approx(2_000)  # where nothing is observed, the prior is exact


@pytest.mark.parametrize("name", ["beta", "poisson", "product", "discretized logistic mixture"])
def test_draws_lie_in_the_support_and_observed_entries_stay(name):
    case = LIKELIHOODS[name]
    vae, x = make_vae(nowhere_special(case.make())), case.x.repeat(3, *[1] * case.x.dim())
    x[0], x[1, ..., 0] = NAN, NAN
    imputed = impute(vae, x, num_samples=100, num_draws=7)
    assert imputed.draws.shape == (7, *x.shape)
    vae.likelihood.check(imputed.draws)
    assert torch.equal(imputed.mean[2], x[2])
    assert (imputed.draws[:, 2] == x[2]).all()
    assert imputed.mean.isfinite().all()


def test_a_missing_category_is_imputed_by_probabilities_that_add_up():
    vae = make_vae(OneHotCategoricalLikelihood(nn.Linear(2, 6), (2, 3)))
    x = torch.eye(3)[torch.tensor([[0, 1], [2, 2]])]
    x[0, 1] = NAN
    assert impute(vae, x, num_samples=50).mean.sum(-1).flatten().tolist() == pytest.approx([1] * 4)


def test_the_order_of_rows_does_not_matter_and_the_seed_does():
    vae, x = make_vae(NormalLikelihood(MLP(2, [4], 3), 3)), torch.randn(250, 3)
    x[::2, 1] = NAN
    order = torch.randperm(250)
    state = torch.get_rng_state()
    first, second = (impute(vae, rows, num_samples=30, num_draws=2) for rows in (x, x[order]))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.mean[order], second.mean)
    assert torch.equal(first.draws[:, order], second.draws)
    assert torch.equal(first.ess[order], second.ess)
    assert not torch.equal(impute(vae, x, num_samples=30, seed=1).mean, first.mean)


def test_more_draws_than_pass_at_once_are_all_averaged(monkeypatch):
    vae, x = make_vae(NormalLikelihood(nn.Linear(2, 3), 3)), torch.randn(4, 3)
    x[:, 0] = NAN
    whole = impute(vae, x, num_samples=101, num_draws=13)
    monkeypatch.setattr("pyro_vae.evaluation.imputation._CHUNK", 20)
    torch.testing.assert_close(impute(vae, x, num_samples=101, num_draws=13).mean, whole.mean)


def test_a_vae_in_training_is_imputed_with_in_evaluation_mode_and_left_as_it_was():
    vae = make_vae(NormalLikelihood(nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5)), 3)).train()
    x = torch.tensor([[NAN, 1.0, 2.0]])
    first = impute(vae, x, num_samples=30).mean
    assert vae.likelihood.network[1].training
    assert torch.equal(impute(vae.eval(), x, num_samples=30).mean, first)


def test_an_imputation_that_cannot_be_is_refused():
    vae, x = make_vae(NormalLikelihood(nn.Linear(2, 3), 3)), torch.randn(4, 3)
    for refusing, sentence in (
        (
            lambda: impute(binary_vae(), x),
            "'vae' must be made with missing=\"nan\" to impute, got one that takes no NaN",
        ),
        (
            lambda: impute(vae, x, num_samples=0),
            "'num_samples' must be a whole number of at least 1, got 0",
        ),
        (
            lambda: impute(vae, x, num_draws=-1),
            "'num_draws' must be a whole number of at least 0, got -1",
        ),
        (lambda: impute(vae, x[:, :2]), r"'data' must have rows of the shape \(3,\), got \(2,\)"),
    ):
        with pytest.raises(ValueError, match=sentence):
            refusing()


def correlated_gaussians(num_rows, seed):
    """Rows of N(0, I + 11ᵀ), feature 0 missing in half of them."""
    generator = torch.Generator().manual_seed(seed)
    noise, common = (
        torch.randn(num_rows, 2, generator=generator),
        torch.randn(num_rows, 1, generator=generator),
    )
    x = noise + common
    x[torch.rand(num_rows, generator=generator) < 0.5, 0] = NAN
    return x


def imputation_error(seed, epochs=6, num_rows=4_000):
    """The mean of (imputed − x₁ / 2)², where x₁ / 2 is the conditional mean."""
    torch.manual_seed(seed)
    x = correlated_gaussians(num_rows, seed)
    vae = VAE(
        StandardNormalPrior(1),
        NormalLikelihood(MLP(1, [], 2), 2, LearnedScale()),
        DiagNormalPosterior(MLP(2, [16], (2, 1)), 2, 1),
        missing="nan",
    )
    training = Training(
        epochs=epochs,
        batches=Shuffled(100),
        objective=ImportanceWeightedELBO(20),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
    )
    fit(vae, x, training)
    missing = x[x[:, 0].isnan()][:500]
    imputed = impute(vae, missing, num_samples=500).mean[:, 0]
    return ((imputed - missing[:, 1] / 2) ** 2).mean().item()


@pytest.mark.slow
def test_a_miwae_finds_the_conditional_mean():
    assert imputation_error(seed=0) < 0.02
