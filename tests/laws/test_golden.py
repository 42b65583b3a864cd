"""Numbers that any right implementation gives, and the published results, on the real MNIST."""

import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

from pyro_vae import (
    MLP,
    MNIST,
    VAE,
    BernoulliLikelihood,
    DiagNormalPosterior,
    DynamicDraw,
    Shuffled,
    StandardNormalPrior,
    Threshold,
    Training,
    UnitInterval,
    evaluate,
    fit,
    load_splits,
)
from pyro_vae.support import stream


def mnist_vae(latent_dim, hidden, activation=nn.ReLU, relaxed=True):
    with stream(0, 0):
        return VAE(
            StandardNormalPrior(latent_dim),
            BernoulliLikelihood(
                MLP(latent_dim, hidden[::-1], 784, activation), (1, 28, 28), relaxed=relaxed
            ),
            DiagNormalPosterior(
                MLP(784, hidden, 2 * latent_dim, activation), (1, 28, 28), latent_dim
            ),
        )


@pytest.mark.parametrize("size", [784, 64])
def test_logits_of_zero_cost_one_bit_a_pixel(size):
    vae = VAE(
        StandardNormalPrior(2),
        BernoulliLikelihood(MLP(2, [], size), size),
        DiagNormalPosterior(MLP(size, [], 4), size, 2),
    )
    for parameter in vae.parameters():
        nn.init.zeros_(parameter)
    x = torch.randint(2, (300, size)).float()
    result = evaluate(vae, x, num_importance_samples=10)
    assert result.distortion.mean == pytest.approx(size * math.log(2), abs=1e-3)
    assert result.bits_per_dim.mean == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("transform", [UnitInterval(), DynamicDraw()])
def test_base_rates_cost_what_they_cost(transform):
    # A dynamic draw adds noise of about 0.4 / sqrt(rows) nats; grey levels add none.
    splits = load_splits(MNIST(), transform)
    vae = mnist_vae(2, [16])
    for parameter in vae.parameters():
        nn.init.zeros_(parameter)
    vae.likelihood.initialize_bias(splits.train.mean())
    tolerance = 1.0 if isinstance(transform, DynamicDraw) else 2e-3
    for rows, expected in ((splits.train, 206.189), (splits.test, 205.967)):
        result = evaluate(vae, rows, num_samples=1, num_importance_samples=0)
        assert result.distortion.mean == pytest.approx(expected, abs=tolerance)


@pytest.mark.slow
def test_no_grey_loss_is_below_the_entropy_of_the_pixels():
    splits = load_splits(MNIST(), UnitInterval())
    for rows, floor in ((splits.train, 45.757), (splits.test, 45.534)):
        entropy = sum(torch.special.entr(rows.batch(block)).sum().item() for block in rows.blocks())
        entropy += sum(
            torch.special.entr(1 - rows.batch(block)).sum().item() for block in rows.blocks()
        )
        assert entropy / len(rows) == pytest.approx(floor, abs=1e-3)


def train_preset(preset, folder):
    script = Path(__file__).parents[2] / "scripts" / "train.py"
    subprocess.run([sys.executable, script, preset, "--run", str(folder)], check=True)
    rows = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
    columns = {name: [row[number] for row in rows[1:]] for number, name in enumerate(rows[0])}
    train, test = (
        [float(value) for value in columns[name]] for name in ("train_loss", "test_loss")
    )
    print(f"{preset}: train {train[-1]:.3f}, test {test[-1]:.3f}")
    return train, test


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "epochs", "highest"), [("mnist-20d", 10, 88.4), ("mnist-2d", 10, 142.2)]
)
def test_threshold_presets_reach_the_published_test_loss(preset, epochs, highest, tmp_path):
    _, test = train_preset(preset, tmp_path / "run")
    assert len(test) == epochs
    assert 45 < test[-1] <= highest


@pytest.mark.slow
def test_dynamic_preset_reaches_the_published_losses(tmp_path):
    train, test = train_preset("mnist-dynamic-2d", tmp_path / "run")
    assert len(test) == 20
    assert train[-1] <= 153.5
    assert min(test[-5:]) <= 153.5


@pytest.mark.slow
def test_relaxed_preset_reaches_the_published_train_loss(tmp_path):
    train, _ = train_preset("mnist-10d", tmp_path / "run")
    assert len(train) == 5
    assert 45.757 < train[-1] <= 117.9


@pytest.mark.slow
def test_the_curve_of_pytorchs_basic_vae():
    splits = load_splits(MNIST(), UnitInterval())
    settings = Training(
        epochs=10, batches=Shuffled(128), optimizer=partial(torch.optim.Adam, lr=1e-3, fused=True)
    )
    test = [
        row.test_loss
        for row in fit(mnist_vae(20, [400]), splits.train, settings, test=splits.test).history
    ]
    print(f"epochs 4, 7, 10: {test[3]:.3f} {test[6]:.3f} {test[9]:.3f}")
    assert test[3] == pytest.approx(109.6, abs=0.8)
    assert test[6] == pytest.approx(106.7, abs=0.8)
    assert test[9] == pytest.approx(105.5, abs=0.8)


@pytest.mark.slow
def test_the_curve_of_pyros_tutorial():
    splits = load_splits(MNIST(), UnitInterval())
    settings = Training(
        epochs=21,
        batches=Shuffled(256),
        optimizer=partial(torch.optim.Adam, lr=1e-3, fused=True),
        objective=Trace_ELBO(),
    )
    vae = mnist_vae(50, [400], nn.Softplus)
    test = [row.test_loss for row in fit(vae, splits.train, settings, test=splits.test).history]
    print(f"epochs 5, 10, 20 counted from 0: {test[5]:.3f} {test[10]:.3f} {test[20]:.3f}")
    assert test[5] == pytest.approx(113.3, abs=1.0)
    assert test[10] == pytest.approx(107.8, abs=0.8)
    assert test[20] == pytest.approx(104.6, abs=0.7)


@pytest.mark.slow
def test_the_mnist_files_are_the_published_ones():
    splits = load_splits(MNIST(), Threshold())
    assert (len(splits.train), len(splits.test)) == (60_000, 10_000)
    assert splits.train.levels.dtype == torch.uint8
    assert splits.train.labels.bincount().tolist() == [
        5923,
        6742,
        5958,
        6131,
        5842,
        5421,
        5918,
        6265,
        5851,
        5949,
    ]
