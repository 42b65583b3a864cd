import csv
import re

import numpy as np
import pytest
import torch
from models import binary_vae, linear_gaussian_vae
from references import LinearGaussian
from test_scripts import SMALL, call

from pyro_vae import Execution, Shuffled, Training, evaluate, fit
from pyro_vae.evaluation import anomaly_scores, auroc, evaluate_rows, threshold
from pyro_vae.training import Snapshots


def test_scores_stand_in_the_order_of_the_rows_and_average_to_the_evaluation():
    vae = binary_vae()
    x = vae.sample(250)
    rows, whole = evaluate_rows(vae, x), evaluate(vae, x)
    assert rows.negative_elbo.mean().item() == pytest.approx(whole.negative_elbo.mean)
    assert rows.log_marginal.mean().item() == pytest.approx(whole.log_marginal.mean)
    torch.testing.assert_close(
        rows.rate.float(), torch.distributions.kl_divergence(vae.encode(x), vae.prior())
    )


def test_scores_of_an_exact_model_are_its_log_marginal_and_its_residual():
    torch.set_default_dtype(torch.float64)
    try:
        reference = LinearGaussian(torch.randn(5, 2), torch.randn(5), 0.5)
        x = torch.randn(300, 5)
        scores = anomaly_scores(linear_gaussian_vae(reference), x, num_samples=4000)
        expected = reference.posterior_loc(x) @ reference.weight.T + reference.bias
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(
        scores.negative_log_marginal, -reference.log_marginal(x), atol=1e-9, rtol=0
    )
    # Its KL is taken in closed form, the distortion is drawn: 300 standard errors of 0.03 or less, 6 of them allowed for.
    torch.testing.assert_close(scores.negative_elbo, -reference.log_marginal(x), atol=0.2, rtol=0)
    torch.testing.assert_close(scores.squared_error, ((x - expected) ** 2).sum(1))


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    normal, anomalous = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0])
    pairs = [(a > n).double() + 0.5 * (a == n).double() for a in anomalous for n in normal]
    assert auroc(normal, anomalous) == pytest.approx(sum(pairs).item() / 6)


def test_a_threshold_keeps_its_false_positive_rate():
    # The expected rate is at most 0.1 and at least 0.1 - 1/100; 4,000 repetitions, 4 standard errors at a fixed seed.
    scores = torch.randn(4000, 100)
    exceeded = [
        new > threshold(row[:99], 0.1) for row, new in zip(scores, scores[:, 99], strict=True)
    ]
    rate = sum(exceeded).item() / 4000
    assert 0.09 - 4 * 0.0047 < rate < 0.1 + 4 * 0.0047


@pytest.mark.parametrize("rate", [0.0, 1.0, 0.001])
def test_a_rate_that_cannot_be_calibrated_is_refused(rate):
    with pytest.raises(ValueError, match="99 rows can calibrate no less than 0.0100, got"):
        threshold(torch.randn(99), rate)


BAD_SCORES = [
    (
        lambda: auroc(torch.rand(3, 2), torch.rand(3)),
        "'normal' must have the shape (N,), got (3, 2).",
    ),
    (
        lambda: auroc(torch.rand(3), torch.rand(0)),
        "'anomalous' must have the shape (N,), got (0,).",
    ),
    (
        lambda: auroc(torch.tensor([torch.nan]), torch.rand(3)),
        "'normal' must hold numbers, got NaN",
    ),
    (lambda: auroc([1.0], [torch.inf]), "'anomalous' must be finite, got NaN or infinity."),
    (lambda: auroc([False, True], [0.1, 0.2]), "'normal' must hold scores, which are real numbers"),
    (lambda: auroc([0, 1], [0.1, 0.2]), "'normal' must hold the scores of normal rows, got labels"),
    (
        lambda: threshold([True], 0.1),
        "'normal' must hold scores, which are real numbers, got booleans.",
    ),
    (lambda: threshold(torch.rand(9, 2), 0.1), "'normal' must have the shape (N,), got (9, 2)."),
    (lambda: threshold(torch.full((9,), torch.nan), 0.1), "'normal' must hold numbers, got NaN."),
    (
        lambda: threshold(torch.rand(99), torch.nan),
        "'false_positive_rate' must be a finite number, got nan.",
    ),
    (lambda: threshold(torch.rand(99), "5%"), "'false_positive_rate' must be a number, got '5%'."),
    (
        lambda: Snapshots(binary_vae(), [0], lambda _: None),
        "'look' must return a tensor, got None.",
    ),
]


@pytest.mark.parametrize(("call", "sentence"), BAD_SCORES)
def test_unusable_scores_are_refused(call, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        call()


def test_an_infinite_score_is_above_every_threshold():
    scores = torch.cat([torch.rand(98), torch.tensor([torch.inf])])
    assert threshold(scores, 0.1) < 1


def test_snapshots_are_taken_at_their_steps_and_change_nothing():
    x = binary_vae().sample(50)
    weights, frames = [], []
    for looking in (False, True):
        torch.manual_seed(0)
        vae = binary_vae()
        snapshots = Snapshots(
            vae, {0, 3, 5, 12}, lambda vae: vae.likelihood.network.layers[-1].bias
        )
        plain = Execution(trace=False)  # so few steps are not worth a trace
        settings = Training(epochs=2, batches=Shuffled(10), execution=plain)
        fit(vae, x, settings, on_step=snapshots if looking else None)
        weights.append(list(vae.parameters()))
        frames.append(snapshots)
    assert frames[1].taken == [0, 3, 5]
    assert not torch.equal(frames[1].frames[0], frames[1].frames[1])
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


def test_the_script_scores_the_users_rows_to_csv(tmp_path):
    rows = np.random.default_rng(0).integers(0, 17, (20, 1, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "rows.npy", rows)
    small = ("--training.epochs", 1, *SMALL, "--run", "run")
    assert call(tmp_path, "train", *small).code == 0
    score = ("--score", "negative_log_marginal")
    ended = call(tmp_path, "detect", "run", "rows.npy", *score)
    assert ended.code == 0, ended.err
    with (tmp_path / "scores.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [int(row["row"]) for row in table] == list(range(20))
    assert all(row["is_anomalous"] == "True" for row in table)  # noise is nothing like a digit
    assert "20 of 20 rows" in ended.out
