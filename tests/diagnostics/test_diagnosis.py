"""The whole diagnosis: nothing to say against an exact posterior, and all that is to be said against a wrong one."""

import json
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from models import binary_vae, exact_diagonal_posterior, linear_gaussian_vae
from references import LinearGaussian

from pyro_vae import (
    MLP,
    VAE,
    BernoulliLikelihood,
    DiagNormalPosterior,
    MixtureNormalPrior,
    StandardNormalPrior,
    VampPrior,
)
from pyro_vae.diagnostics import diagnose, diagnosis, inference_gaps

SMALL = {"num_rows": 200, "num_samples": 200, "num_annealed": 30, "num_temperatures": 10}


def orthogonal_reference():
    weight = torch.linalg.qr(torch.randn(5, 2)).Q * torch.tensor([2.0, 1.0])
    return LinearGaussian(weight, torch.randn(5), 0.7)


@pytest.fixture(scope="module")
def exact():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    try:
        reference = orthogonal_reference()
        vae = linear_gaussian_vae(reference, exact_diagonal_posterior(reference))
        return reference, diagnose(vae, vae.sample(200), **SMALL)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.fixture
def few_steps(monkeypatch):
    """The gaps are there, but not optimised."""
    monkeypatch.setattr(diagnosis, "inference_gaps", partial(inference_gaps, num_steps=3))


@pytest.mark.usefixtures("float64")
def test_an_exact_posterior_has_nothing_against_it(exact):
    # Calibration rejects it at one seed in a hundred.
    reference, found = exact
    assert found.calibration.is_calibrated
    assert (found.weights.khat == 0).all()
    torch.testing.assert_close(found.weights.ess, torch.full((200,), 200.0), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        found.weights.log_marginal, reference.log_marginal(found.x), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(
        found.real.lower, reference.log_marginal(found.x[:30]), rtol=0, atol=1e-6
    )
    assert found.simulated.width.abs().max() < 1e-6
    assert found.gaps.approximation.mean().abs() < 0.02
    assert found.gaps.amortisation.mean().abs() < 0.02
    assert found.advice() == "Draws from q(z | x) can stand for the posterior as they are."


@pytest.mark.slow
def test_a_narrow_posterior_is_told_to_be_mended(float64):
    reference = orthogonal_reference()
    posterior = exact_diagonal_posterior(reference)
    with torch.no_grad():
        posterior.network.bias[2:] -= 1.0  # log_scale
    vae = linear_gaussian_vae(reference, posterior)
    found = diagnose(vae, vae.sample(200), **SMALL | {"num_temperatures": 60})
    assert not found.calibration.is_calibrated
    assert "too narrow" in found.verdict()[1]
    assert (found.weights.khat > 0.7).double().mean() > 0.3
    assert "hmc" in found.advice()
    # What is wrong is not the family: the row's own q mends it. ½ Σ (r² − 1 − log r²) with r the scale's ratio, per row.
    ratio = torch.tensor(-1.0).exp()
    lost = 2 * 0.5 * (ratio**2 - 1 - 2 * ratio.log())
    assert found.gaps.amortisation.mean().item() == pytest.approx(lost.item(), abs=0.05)
    # So few temperatures leave log p(x) some 0.05 nats too low, with a standard error of 0.035.
    assert found.gaps.approximation.mean().item() == pytest.approx(0, abs=0.15)


def test_the_report_is_json_with_every_number_by_name(exact):
    _, found = exact
    report = json.loads(found.to_json())
    assert report["verdict"][:-1] == found.verdict()
    assert report["calibration"]["p_values"].keys() == {"z_1", "z_2", "log p(x, z)"}
    assert report["khat"]["0.5"] == 0
    assert report["simulated"]["width"]["num_rows"] == 30
    assert report["gaps"]["amortisation"]["mean"] == pytest.approx(
        found.gaps.amortisation.mean().item()
    )
    assert set(found.seconds) == set(report["seconds"])


@pytest.mark.usefixtures("few_steps")
def test_the_same_seed_gives_the_same_diagnosis_and_leaves_the_random_state_alone():
    vae = binary_vae()
    x = vae.sample(200)
    state = torch.get_rng_state()
    small = SMALL | {"num_annealed": 3, "num_samples": 25, "num_temperatures": 3}
    first, second = (diagnose(vae, x, **small, seed=3) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert first.to_json().split('"seconds"')[0] == second.to_json().split('"seconds"')[0]
    assert vae.training


@pytest.mark.usefixtures("few_steps")
def test_a_conditional_vae_is_diagnosed_in_its_contexts():
    vae = VAE(
        StandardNormalPrior(2),
        BernoulliLikelihood(MLP(2, [8], 6, context_dim=3), 6),
        DiagNormalPosterior(MLP(6, [8], 4, context_dim=3), 6, 2),
    )
    y = torch.nn.functional.one_hot(torch.arange(60) % 3, 3).float()
    few = SMALL | {"num_annealed": 4, "num_samples": 25, "num_temperatures": 3}
    found = diagnose(vae, (vae.sample(60, y), y), **few)
    assert found.y is not None
    assert len(found.weights.khat) == 60
    assert repr(found).splitlines() == [*found.verdict(), found.advice()]
    assert len(found.calibration.ranks) == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_rows", 199), ("num_samples", 24), ("num_annealed", 0), ("num_temperatures", 0)],
)
def test_a_count_that_is_too_small_is_refused_before_any_work(name, value, monkeypatch):
    vae = binary_vae()
    monkeypatch.setattr(diagnosis, "evaluate", None)
    with pytest.raises(ValueError, match=rf"^'.*{name}.*' must .* got .*{value}"):
        diagnose(vae, vae.sample(20), **SMALL | {name: value})


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("prior", [lambda: MixtureNormalPrior(2, 3), lambda: VampPrior(2, 3)])
@pytest.mark.slow
def test_priors_that_are_mixtures_are_diagnosed_and_one_row_has_no_error(prior):
    vae = binary_vae()
    vae = VAE(prior(), vae.likelihood, vae.posterior)
    before = set(pyro.get_param_store().keys())
    few = SMALL | {"num_annealed": 1, "num_samples": 25, "num_temperatures": 3}
    found = diagnose(vae, vae.sample(50), **few)
    assert set(pyro.get_param_store().keys()) == before
    report = json.loads(found.to_json(), parse_constant=pytest.fail)
    assert report["simulated"]["width"]["row_error"] is None


def test_a_posterior_that_is_not_reparameterised_is_refused_before_any_work(monkeypatch):
    class Drawn(dist.Normal):
        has_rsample = False

    class DrawnPosterior(DiagNormalPosterior):
        def forward(self, x, y=None):
            normal = super().forward(x, y).base_dist
            return Drawn(normal.loc, normal.scale).to_event(1)

    vae = binary_vae(DrawnPosterior)
    monkeypatch.setattr(diagnosis, "evaluate", None)
    with pytest.raises(
        ValueError, match=r"^'vae' must have a posterior with rsample .*, got DrawnPosterior\.$"
    ):
        diagnose(vae, vae.sample(20), **SMALL)
