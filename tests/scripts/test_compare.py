"""The scripts that compare parts, on data small enough for a test."""

import json
import sys
from pathlib import Path

import pytest
import torch
from test_scripts import call

SCRIPTS = str(Path(__file__).parents[2] / "scripts")
TINY = (
    "--num_rows",
    20,
    "--num_importance_samples",
    3,
    "--settings=--training.epochs 1 --data.source Digits --training.batches.size 500 "
    "--training.execution.trace false --training.execution.precision float32",
)


@pytest.fixture
def comparison(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import comparison.counts
    import comparison.rows

    return comparison


@pytest.mark.slow
def test_rows_are_measured_once_and_compared_row_by_row(tmp_path):
    ended = call(tmp_path, "compare", "iwae-5", "--out", "out", *TINY)
    assert ended.code == 0, ended.err
    measured = json.loads((tmp_path / "out" / "iwae-5" / "comparison.json").read_text())
    assert len(measured["nll"]) == 20
    # What is there is read and not measured again: the table follows the numbers in the files.
    without_offset = measured | {"nll": [value - 2.5 for value in measured["nll"]]}
    (tmp_path / "out" / "elbo").mkdir()
    (tmp_path / "out" / "elbo" / "comparison.json").write_text(json.dumps(without_offset))
    assert call(tmp_path, "compare", "elbo", "--out", "out", *TINY).code == 0
    table = (tmp_path / "out" / "results.md").read_text()
    assert "2.50 ± 0.00 to `elbo`" in table
    assert "`iwae-5`: `python scripts/train.py mnist-iwae --training.epochs 1 " in table
    other = call(tmp_path, "compare", "elbo", "--out", "out", *TINY[2:], "--num_rows", 10)
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "must be measured with num_rows" in other.err


def test_settings_that_train_py_refuses_are_refused_before_any_training(tmp_path):
    ended = call(tmp_path, "compare", "standard", "--out", "out", "--settings=--trainin.epochs 1")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "'--trainin.epochs' is no setting; the nearest is '--training.epochs'" in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_training_that_fails_ends_in_one_sentence(tmp_path, capfd):
    diverges = f"{TINY[-1]} --training.optimizer.lr 1e38"
    ended = call(tmp_path, "compare", "standard", "--out", "out", *TINY[:-1], diverges)
    # The sentence is that of train.py, a process of its own.
    error = capfd.readouterr().err
    assert (ended.code, ended.err, error.count("\n")) == (2, "", 1)
    assert "error: The loss became NaN or infinite in epoch 1" in error


def test_a_row_that_is_not_known_is_refused(tmp_path):
    ended = call(tmp_path, "compare", "vamps", "--out", "out")
    assert (ended.code, ended.err) == (2, ended.err)
    assert "'rows' must be of elbo, iwae-5" in ended.err


def test_every_row_is_measured_against_a_row_before_it(comparison):
    names = list(comparison.rows.ROWS)
    siblings = {name: row.sibling for name, row in comparison.rows.ROWS.items() if row.sibling}
    assert all(names.index(sibling) < names.index(name) for name, sibling in siblings.items())


def test_the_true_model_of_the_counts_integrates_to_one(comparison):
    model = comparison.counts.true_model(num_columns=1, dispersion=0.5)
    x = torch.arange(3000.0).unsqueeze(1)
    assert model.log_marginal(x).exp().sum().item() == pytest.approx(1, abs=2e-3)


@pytest.mark.slow
def test_the_right_likelihood_of_counts_comes_near_the_truth(comparison):
    scores = comparison.counts.compare_counts(num_rows=4_000, num_held_out=500, epochs=20)
    true = scores.true.mean
    assert scores.negative_binomial.mean == pytest.approx(true, rel=0.04)
    assert scores.poisson.mean < 1.2 * true
