"""Densities that change with the mode or from call to call are refused by all that ask for them, and only by these."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_vae import (
    SVI,
    VAE,
    BernoulliLikelihood,
    DiagNormalPosterior,
    ImportanceWeightedELBO,
    StandardNormalPrior,
    hmc,
    importance_sample,
    impute,
    log_weights,
    nuts,
)
from pyro_vae.diagnostics import inference_gaps, sandwich
from pyro_vae.engine import Program
from pyro_vae.inference.determinism import check_deterministic
from pyro_vae.inference.programs import Programs


class OwnDropout(nn.Module):
    """Dropout that no list of classes knows."""

    def forward(self, x):
        return nn.functional.dropout(x, 0.5, self.training)


class Always(nn.Module):
    """Dropout that evaluation mode does not end."""

    def forward(self, x):
        return nn.functional.dropout(x, 0.5)


LAYERS = {
    "dropout": partial(nn.Dropout, 0.5),
    "batch normalisation": partial(nn.BatchNorm1d, 8),
    "random slopes": nn.RReLU,
    "a module of the user's": OwnDropout,
}
ASKING = {
    "importance_sample": lambda *program: importance_sample(*program, num_samples=30),
    "log_weights": lambda *program: log_weights(*program, num_samples=3),
    "hmc": lambda *program: hmc(*program, num_samples=1, num_warmup=1, num_chains=1, num_steps=1),
    "nuts": lambda *program: nuts(*program, num_samples=1, num_warmup=1, num_chains=1),
    "sandwich": lambda *program: sandwich(*program, num_temperatures=2, num_chains=1, num_steps=1),
}


def vae_with(layer, where):
    """A VAE with this layer in the decoder or the encoder."""
    decoder, encoder = (
        nn.Sequential(nn.Linear(size, 8), nn.Tanh(), nn.Linear(8, out))
        for size, out in ((2, 6), (6, 4))
    )
    (decoder if where == "model" else encoder).insert(2, layer)
    vae = VAE(
        StandardNormalPrior(2),
        BernoulliLikelihood(decoder, 6),
        DiagNormalPosterior(encoder, 6, 2),
        missing="nan",
    )
    return vae, (torch.rand(5, 6) < 0.5).float()


def by_closure(vae):
    """A model and a guide that are plain functions, which reach the networks by closure alone."""

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", vae.likelihood(z), obs=x)

    def guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", vae.posterior(x))

    return model, guide


@pytest.mark.parametrize("where", ["model", "guide"])
@pytest.mark.parametrize("layer", LAYERS)
def test_all_refuse_what_evaluation_mode_would_change(layer, where):
    vae, x = vae_with(LAYERS[layer](), where)
    state = {name: value.clone() for name, value in vae.state_dict().items()}
    for programs in ((vae.model, vae.guide), by_closure(vae)):
        for ask in ASKING.values():
            with pytest.raises(
                ValueError, match=f"^'{where}' must give the same density .*batch norm.* call .eval"
            ):
                ask(*programs, x)
    assert all(torch.equal(value, state[name]) for name, value in vae.state_dict().items())
    assert all(module.training for module in vae.modules())


@pytest.mark.parametrize("ask", ASKING)
def test_what_changes_from_call_to_call_is_refused_in_evaluation_mode_too(ask):
    vae, x = vae_with(Always(), "model")
    with pytest.raises(
        ValueError, match="^'model' must give the same density whenever it is asked"
    ):
        ASKING[ask](*by_closure(vae.eval()), x)


@pytest.mark.parametrize("ask", ["importance_sample", "hmc", "sandwich"])
def test_what_depends_on_other_draws_is_refused(ask):
    vae, x = vae_with(nn.BatchNorm1d(8, track_running_stats=False), "model")
    with pytest.raises(
        ValueError, match="^'model' must give a draw the same density beside any other draws"
    ):
        ASKING[ask](vae.eval().model, vae.guide, x)


@pytest.mark.parametrize("layer", [partial(nn.Dropout, 0.0), nn.Tanh, partial(nn.LayerNorm, 8)])
def test_a_training_mode_that_changes_nothing_is_taken(layer):
    vae, x = vae_with(layer(), "model")
    random = torch.get_rng_state()
    check_deterministic(Programs(vae.model, vae.guide, (x,), {}))
    assert torch.equal(torch.get_rng_state(), random)
    assert vae.training


def test_evaluation_mode_is_taken_and_gives_the_value_without_dropout():
    vae, x = vae_with(nn.Dropout(0.5), "model")
    plain = VAE(
        vae.prior,
        BernoulliLikelihood(
            nn.Sequential(*vae.likelihood.network[:2], vae.likelihood.network[3]), 6
        ),
        vae.posterior,
    )
    torch.manual_seed(1)
    found = importance_sample(vae.eval().model, vae.guide, x, num_samples=30)
    torch.manual_seed(1)
    torch.testing.assert_close(
        found.log_weights,
        importance_sample(plain.model, plain.guide, x, num_samples=30).log_weights,
    )


def test_what_takes_a_vae_evaluates_it_and_leaves_its_mode():
    vae, x = vae_with(nn.Dropout(0.5), "model")
    with_holes = x.clone()
    with_holes[0, 0] = torch.nan
    log_marginal = torch.zeros(5)
    for run in (
        lambda: impute(vae, with_holes, num_samples=30).mean,
        lambda: inference_gaps(vae, x, log_marginal=log_marginal, num_steps=1).elbo,
    ):
        vae.train()
        torch.manual_seed(2)
        found = run()
        assert vae.training
        vae.eval()
        torch.manual_seed(2)
        assert torch.equal(found, run())


def test_what_asks_for_weights_can_be_traced():
    vae, x = vae_with(nn.Tanh(), "model")
    program = Program(lambda x: (log_weights(vae.model, vae.guide, x, num_samples=3).detach(),))
    for seed in (1, 2, 3):
        torch.manual_seed(seed)
        (found,) = program(x)
        torch.manual_seed(seed)
        assert torch.equal(found, log_weights(vae.model, vae.guide, x, num_samples=3))
    assert program.how == "traced"


def test_objectives_train_under_dropout():
    vae, x = vae_with(nn.Dropout(0.5), "model")
    svi = SVI(
        vae.model,
        vae.guide,
        torch.optim.Adam(vae.parameters()),
        ImportanceWeightedELBO(num_particles=3),
    )
    assert all(svi.step(x).isfinite() for _ in range(3))
