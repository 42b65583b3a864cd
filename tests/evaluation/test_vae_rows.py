"""Rows of a VAE: checked, with their context, and in the order that they came in."""

import pytest
import torch
from torch import nn

from pyro_vae import (
    MLP,
    VAE,
    BernoulliLikelihood,
    DiagNormalPosterior,
    StandardNormalPrior,
)
from pyro_vae.data import Batch
from pyro_vae.evaluation import evaluate_rows
from pyro_vae.evaluation.vae_rows import BLOCK_ROWS, rows_for

NUM_ROWS = 2 * BLOCK_ROWS + 37


@pytest.fixture
def vae():
    network = MLP(16, [8], 4, context_dim=3)
    return VAE(
        StandardNormalPrior(2),
        BernoulliLikelihood(MLP(2, [8], 16), 16),
        DiagNormalPosterior(network, 16, 2),
    )


@pytest.fixture
def x():
    """Rows that all differ: the bits of odd multiples."""
    numbers = 40_503 * torch.arange(NUM_ROWS) % 2**16
    return (numbers.unsqueeze(1) >> torch.arange(16) & 1).float()


@pytest.fixture
def labels():
    return torch.arange(NUM_ROWS) % 3


def test_results_of_blocks_come_back_in_the_order_of_the_rows(vae, x, labels):
    rows = rows_for(vae, (x, labels))
    blocks = rows.by_block(0, lambda batch: batch)
    assert [batch.num_rows for batch in blocks] == [BLOCK_ROWS, BLOCK_ROWS, 37]
    assert not torch.equal(torch.cat([batch.x for batch in blocks]), x)
    assert torch.equal(rows.in_order([batch.x for batch in blocks]), x)
    y = rows.in_order([batch.y for batch in blocks])
    assert torch.equal(y, nn.functional.one_hot(labels).float())
    draws = [torch.stack([batch.x, 2 * batch.x]) for batch in blocks]
    assert torch.equal(rows.in_order(draws, dim=1), torch.stack([x, 2 * x]))


def test_rows_that_are_known_are_taken_as_they_are(vae, x, labels):
    rows = rows_for(vae, (x, labels))
    assert rows_for(vae, rows) is rows


@pytest.mark.parametrize("index", [slice(5, 9), torch.tensor([8, 3])])
def test_a_part_of_the_rows_keeps_its_context(vae, x, labels, index):
    rows = rows_for(vae, (x, labels))
    y = nn.functional.one_hot(labels).float()
    for batch in (rows.batch(index), rows.take(index).batch(slice(None))):
        assert torch.equal(batch.x, x[index])
        assert torch.equal(batch.y, y[index])


def test_a_batch_without_a_context_has_none(x):
    assert Batch(x).take(slice(2)).y is None


def test_a_batch_has_the_dtype_of_the_vae(vae, x, labels):
    batch = rows_for(vae.double(), (x, labels)).batch(slice(2))
    assert (batch.x.dtype, batch.y.dtype) == (torch.float64, torch.float64)


def test_the_measures_of_a_row_do_not_move_with_its_place(vae, x, labels):
    order = torch.randperm(NUM_ROWS)
    found = evaluate_rows(vae, (x, labels), num_importance_samples=5)
    moved = evaluate_rows(vae, (x[order], labels[order]), num_importance_samples=5)
    for values, others in zip(found, moved, strict=True):
        torch.testing.assert_close(values[order], others)
    y = nn.functional.one_hot(labels).float()
    with torch.no_grad():
        q_z = vae.encode(x, y)
        rate = torch.distributions.kl_divergence(q_z, vae.prior())
    torch.testing.assert_close(found.rate.float(), rate)


def test_rows_of_another_shape_or_without_a_context_are_refused(vae, x, labels):
    with pytest.raises(ValueError, match=r"'data' must have rows of the shape \(16,\), got \(8,\)"):
        rows_for(vae, (x[:, :8], labels))
    with pytest.raises(ValueError, match="'data' must have labels for a VAE with a context y of 3"):
        rows_for(vae, x)
