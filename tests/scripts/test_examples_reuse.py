"""The examples that use a trained guide in other models: their estimates against plain ones, and what they print."""

import math
import re
import runpy
from pathlib import Path

import pytest
import torch
from models import binary_vae
from test_scripts import call
from torch import nn

from pyro_vae import VAE

EXAMPLES = Path(__file__).parents[2] / "scripts" / "examples"


def printed(folder, script, *arguments):
    """The table that an example prints: by the words of a row, its pairs of a mean and a standard error."""
    ended = call(folder, f"examples/{script}", *arguments, draws=True)
    assert (ended.code, ended.err) == (0, "")
    pairs = {
        line: re.findall(r"(-?\d+\.\d+) ± (\d+\.\d+)", line) for line in ended.out.splitlines()
    }
    return {
        " ".join(re.match(r"[a-zA-Z ]+", line)[0].removesuffix("log p").split()): [
            tuple(map(float, pair)) for pair in row
        ]
        for line, row in pairs.items()
        if row
    }


def nats(z, vae, x):
    """log p(x | z) of each pixel, in float64."""
    logits = vae.likelihood(z).base_dist.logits.double()
    return x * logits - nn.functional.softplus(logits)


def test_hidden_pixels_alone_are_scored(tmp_path):
    script = runpy.run_path(str(EXAMPLES / "inpaint.py"))
    vae = binary_vae()
    vae = VAE(vae.prior, vae.likelihood, vae.posterior, missing="nan")
    x, z = vae.sample(3), torch.randn(12, 3, 2)
    visible = script["upper_half"](x)
    assert visible[..., 2:, :].isnan().all()
    assert torch.equal(visible[..., :2, :], x[..., :2, :])
    few, many = script["score"](vae, torch.where(visible.isnan(), x, torch.nan), z)
    log_p = nats(z, vae, x)[..., 2:, :].sum((-3, -2, -1))
    torch.testing.assert_close(few.double(), log_p[:10].exp().mean(0).log(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(many.double(), log_p.exp().mean(0).log(), rtol=1e-5, atol=1e-5)


def test_a_regression_is_tested_over_draws_of_weights_and_latents():
    script = runpy.run_path(str(EXAMPLES / "regression.py"))
    weights = [
        (0.3, torch.tensor([1.0, -2.0, 0.5]), 0.4),
        (-0.1, torch.tensor([0.5, 0.0, 1.0]), 0.9),
    ]
    z, y = torch.randn(7, 5, 3), torch.randn(5)
    log_p, squares = script["tested"](weights, z, y)
    loc = torch.stack([intercept + z @ slope for intercept, slope, _ in weights])
    scale = torch.tensor([0.4, 0.9]).reshape(2, 1, 1)
    density = (-0.5 * ((y - loc) / scale) ** 2).exp() / (scale * math.sqrt(2 * math.pi))
    torch.testing.assert_close(log_p, density.mean((0, 1)).log())
    torch.testing.assert_close(squares, (y - loc.mean((0, 1))) ** 2)


@pytest.mark.slow
def test_weights_are_fitted_to_known_latents_afresh_each_time():
    fitted, model = (
        runpy.run_path(str(EXAMPLES / "regression.py"))[name]
        for name in ("fitted", "model_of_draws")
    )
    z = torch.randn(1, 300, 3)
    for slope in (torch.tensor([1.0, -0.5, 0.2]), torch.tensor([-0.3, 0.8, 0.0])):
        y = 0.4 + z[0] @ slope + 0.5 * torch.randn(300)
        draws = fitted(model, lambda z: None, z, y, 300)
        expected = torch.linalg.lstsq(torch.cat([torch.ones(300, 1), z[0]], 1), y).solution
        residual = y - expected[0] - z[0] @ expected[1:]
        intercept, slopes, scale = (
            torch.stack(values).detach() for values in zip(*draws, strict=True)
        )
        # Standard errors of the weights are 0.03, and the guide is within a third of that; 200 draws are averaged.
        torch.testing.assert_close(intercept.mean(), expected[0], atol=0.03, rtol=0)
        torch.testing.assert_close(slopes.mean(0), expected[1:], atol=0.03, rtol=0)
        assert scale.mean().item() == pytest.approx(residual.std().item(), abs=0.05)


@pytest.mark.slow
def test_inpainting_prints_scores_and_gains(tmp_path):
    table = printed(
        tmp_path,
        "inpaint",
        "--source",
        "Digits",
        "--epochs",
        "2",
        "--rows",
        "20",
        "--draws",
        "16",
        "--out",
        tmp_path,
    )
    assert list(table) == [
        f"{guide} {way}" for guide in ("whole", "halves") for way in ("guide", "importance", "HMC")
    ]
    for name, columns in table.items():
        guide = table[f"{name.split()[0]} guide"]
        for score, gain in ((0, 1), (2, 3)):
            assert -32 * math.log(2) < columns[score][0] < 0  # of 32 pixels, better than coins
            assert columns[gain][0] == pytest.approx(columns[score][0] - guide[score][0], abs=0.011)
            assert 0 < columns[score][1] < 2
    assert (tmp_path / "completions.png").stat().st_size > 1000


@pytest.mark.slow
def test_regression_prints_densities_and_errors(tmp_path):
    table = printed(
        tmp_path, "regression", "--folds", "2", "--epochs", "1", "--steps", "1", "--draws", "20"
    )
    assert list(table) == ["mean", "draws", "weighted", "guide"]
    for (log_p, _), (gain, _), (rmse, error) in table.values():
        assert gain == pytest.approx(log_p - table["mean"][0][0], abs=0.0011)
        assert 0.3 < rmse < 2  # y is standardised
        assert 0 < error < 0.1


@pytest.mark.slow
def test_hmc_completes_digits_better_than_weights_and_those_better_than_a_bad_guide(tmp_path):
    table = printed(tmp_path, "inpaint")
    for few_or_many, standard_errors in (
        (1, 4),
        (3, 2),
    ):  # seen: 14.7 ± 1.9 and 16.0 ± 1.3, 4.3 ± 1.0 and 5.6 ± 0.9
        gain, error = table["whole importance"][few_or_many]
        assert gain > standard_errors * error
        assert table["whole HMC"][few_or_many][0] > 50 + gain  # seen: 68.5 to 73 and 71 to 76
    gain, error = table["halves HMC"][3]
    assert gain > 3 * error
    # From either guide HMC comes to the same place; the standard error of such a difference is about 0.5.
    assert table["whole HMC"][2][0] == pytest.approx(table["halves HMC"][2][0], abs=2)


@pytest.mark.slow
def test_a_regression_gains_from_the_uncertainty_of_latents(tmp_path):
    table = printed(tmp_path, "regression")
    gain, error = table["draws"][1]
    assert gain > 3 * error
    assert table["weighted"][1][0] > gain + 3 * table["weighted"][1][1]
    assert table["draws"][2][0] == pytest.approx(
        table["mean"][2][0], abs=0.02
    )  # no better, but surer where it may be
    assert table["guide"][1][0] < gain - 3 * error
    assert table["guide"][2][0] > table["mean"][2][0]
