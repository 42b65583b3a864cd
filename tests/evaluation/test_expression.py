"""Shares of counts and their change between groups: closed forms, batches, and the rate of false calls."""

import math

import pytest
import torch
from torch import nn
from torch.special import ndtr

import pyro_vae as pv
from pyro_vae.evaluation import (
    DifferentialExpression,
    differential_expression,
    normalized_expression,
)

SCALE = 0.3
SHARES = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]])


class LogShares(nn.Module):
    """Shares exp(z − 5) and 1 − exp(z − 5) of two elements, so that a log share is normal where z is."""

    def forward(self, z):
        log_share = z - 5
        return torch.cat([log_share, torch.log1p(-log_share.exp())], dim=-1)


class FirstCount(nn.Module):
    """q(z | x) = N(x_0, 0.3²)."""

    def forward(self, x):
        return torch.stack([x[:, :1], torch.full_like(x[:, :1], math.log(SCALE))], dim=1)


class SharesOfContext(nn.Module):
    """Shares that depend on the context alone."""

    context_dim = 2

    def forward(self, z, y):
        return y @ SHARES.to(z).log()


def make_vae(network, num_columns):
    likelihood = pv.PoissonLikelihood(network, num_columns, library_size=True)
    posterior = pv.DiagNormalPosterior(FirstCount(), num_columns, 1)
    return pv.VAE(pv.StandardNormalPrior(1), likelihood, posterior).double()


@pytest.fixture
def vae():
    return make_vae(LogShares(), 2)


@pytest.fixture
def batches():
    """A VAE whose shares depend on the batch alone, with rows of both batches."""
    vae = make_vae(SharesOfContext(), 3)
    x = torch.tensor([[1.0, 20.0, 300.0], [0.0, 5.0, 5.0], [2.0, 0.0, 1.0]], dtype=torch.float64)
    return vae, (x, torch.tensor([0, 1, 1]))


def rows_at(loc, total=100.0):
    return torch.tensor([[loc, total - loc]], dtype=torch.float64)


def test_the_change_of_a_share_has_its_closed_form(vae):
    """log2 share = (z − 5) / log 2, so that its change is N((3 − 2) / log 2, 2 (0.3 / log 2)²)."""
    found = differential_expression(
        vae,
        rows_at(3.0),
        rows_at(2.0, total=7.0),
        least_change=1.0,
        pseudocount=0.0,
        num_pairs=10_000,
    )
    loc, scale = 1 / math.log(2), math.sqrt(2) * SCALE / math.log(2)
    expected = ndtr(torch.tensor((loc - 1) / scale)) + ndtr(torch.tensor((-1 - loc) / scale))
    assert found.log2_fold_change[0].item() == pytest.approx(loc, abs=5 * 1.25 * scale / 100)
    assert found.probability[0].item() == pytest.approx(expected.item(), abs=5 * 0.5 / 100)


def test_a_swap_of_the_groups_changes_the_sign(vae):
    pair = rows_at(3.0), rows_at(2.0)
    there, back = (
        differential_expression(vae, *groups, num_pairs=2_000) for groups in (pair, pair[::-1])
    )
    assert torch.allclose(there.log2_fold_change, -back.log2_fold_change, atol=0.1)
    assert torch.allclose(there.probability, back.probability, atol=0.1)


def test_a_pseudocount_shrinks_the_change(vae):
    changes = [
        differential_expression(vae, rows_at(3.0), rows_at(2.0), pseudocount=share).log2_fold_change
        for share in (0.0, 0.1, 1e6)
    ]
    assert changes[0][0] > changes[1][0] > 0.1 > changes[2][0].abs()


def test_the_expected_share_has_its_closed_form(vae):
    found = normalized_expression(vae, rows_at(2.0).expand(500, -1), num_samples=20)
    expected = math.exp(2 - 5 + SCALE**2 / 2)
    assert found[:, 0].mean().item() == pytest.approx(expected, rel=5 * SCALE / 100)
    assert torch.allclose(found.sum(1), torch.ones(500).double())


def test_rows_are_decoded_in_their_own_contexts_or_in_given_ones(batches):
    vae, data = batches
    shares = SHARES.double()
    assert torch.allclose(normalized_expression(vae, data), shares[data[1]])
    for contexts in (1, [1], torch.eye(2)[1]):
        assert torch.allclose(
            normalized_expression(vae, data, contexts=contexts), shares[1].expand(3, -1)
        )
    average = shares.mean(0).expand(3, -1)
    assert torch.allclose(normalized_expression(vae, data, contexts=[0, 1]), average)


def test_contexts_in_common_remove_a_difference_of_batches(batches):
    vae, (x, labels) = batches
    groups = (x[:1], labels[:1]), (x[1:], labels[1:])
    own = differential_expression(vae, *groups, num_pairs=50, pseudocount=0.0)
    assert torch.allclose(own.log2_fold_change, (SHARES[0] / SHARES[1]).log2().double())
    assert own.probability.tolist() == [1.0, 1.0, 1.0]
    common = differential_expression(vae, *groups, contexts=[0, 1], num_pairs=50)
    assert torch.allclose(common.log2_fold_change, torch.zeros(3).double(), atol=1e-12)
    assert common.probability.tolist() == [0.0, 0.0, 0.0]


def test_a_library_size_in_the_context_changes_no_share(batches):
    vae, (x, labels) = batches
    wide = torch.cat([torch.eye(2)[labels], torch.full((3, 1), 9.0)], dim=1)
    assert torch.allclose(
        normalized_expression(vae, (x, wide)), normalized_expression(vae, (x, labels))
    )


class TestCalls:
    found = DifferentialExpression(torch.zeros(2, 2), torch.tensor([[0.99, 0.2], [0.9, 0.97]]))

    @pytest.mark.parametrize(
        ("rate", "expected"),
        [
            (0.009, [[False, False], [False, False]]),
            (0.0101, [[True, False], [False, False]]),
            (0.0201, [[True, False], [False, True]]),
            (0.047, [[True, False], [True, True]]),
            (0.3, [[True, True], [True, True]]),
        ],
    )
    def test_they_are_the_most_whose_mean_of_one_minus_p_is_at_most_the_rate(self, rate, expected):
        is_called = self.found.called(rate)
        assert is_called.tolist() == expected
        expected_rate = self.found.expected_false_discovery_rate(is_called)
        missed = (1 - self.found.probability.double())[is_called]
        assert expected_rate == (missed.mean().item() if len(missed) else 0.0)
        assert expected_rate <= rate

    def test_a_rate_outside_of_0_and_1_is_refused(self):
        with pytest.raises(ValueError, match=r"'false_discovery_rate' must lie in \(0, 1\), got 5"):
            self.found.called(5)


def test_what_has_no_shares_is_refused(vae, batches):
    plain = pv.PoissonLikelihood(LogShares(), 2)
    other = pv.VAE(vae.prior, plain, vae.posterior)
    with pytest.raises(ValueError, match=r"'likelihood' must be a PoissonLikelihood with library_"):
        normalized_expression(other, rows_at(2.0))
    normal = pv.VAE(vae.prior, pv.NormalLikelihood(LogShares(), 2), vae.posterior)
    with pytest.raises(
        ValueError, match=r"'vae' must have a likelihood of counts with library_siz"
    ):
        differential_expression(normal, rows_at(2.0), rows_at(2.0))
    with pytest.raises(ValueError, match=r"'y' must have labels 0 ... 1"):
        normalized_expression(*batches, contexts=[2])
