"""The mean over rows of an objective: its value, its gradient, and x made as a part of the step."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from models import binary_vae
from pyro.infer import (
    JitTrace_ELBO,
    RenyiELBO,
    Trace_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
)
from sweeps import thinned

from pyro_vae import SVI, Execution, ImportanceWeightedELBO
from pyro_vae.training import PerRow

OBJECTIVES = [Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO]
GUESSED = {"num_particles": 3, "vectorize_particles": True}
TRACED = {
    "Trace_ELBO": Trace_ELBO,
    "Trace_ELBO, particles at once, plates guessed": partial(Trace_ELBO, **GUESSED),
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
    "TraceTailAdaptive_ELBO": partial(TraceTailAdaptive_ELBO, **GUESSED),
    "ImportanceWeightedELBO": partial(ImportanceWeightedELBO, 3),
}
UNTRACED = {
    "TraceGraph_ELBO": TraceGraph_ELBO,
    "RenyiELBO": partial(RenyiELBO, alpha=0.5, num_particles=2),
}


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.02)


def coin(x):
    """A model whose latent has no rsample: its loss and what is differentiated differ."""
    loc = pyro.param("loc", torch.tensor([0.5, 1.0]))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(loc[z.long()], 1.0), obs=x)


def coin_guide(x):
    logit = pyro.param("logit", torch.tensor(0.2))
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Bernoulli(logits=logit))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_gradient_is_that_of_the_mean_and_the_loss_still_the_sum(objective):
    vae = binary_vae()
    x = vae.sample(6)
    losses, gradients = [], []
    for loss in (objective(), PerRow(objective())):
        vae.zero_grad()
        torch.manual_seed(1)
        losses.append(SVI(vae.model, vae.guide, adam(vae.parameters()), loss).backward(x).item())
        gradients.append([parameter.grad.clone() for parameter in vae.parameters()])
    assert losses[0] == losses[1]
    torch.testing.assert_close([gradient / 6 for gradient in gradients[0]], gradients[1])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_in_pyros_own_svi_it_is_the_same(objective):
    losses, gradients = [], []
    for loss in (objective(), PerRow(objective(), torch.clone)):
        torch.manual_seed(0)
        vae = binary_vae()
        before = [parameter.detach().clone() for parameter in vae.parameters()]
        with pyro.get_param_store().scope():
            stock = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.SGD({"lr": 0.1}), loss)
            losses.append(stock.step(vae.sample(6)))
        after = [parameter.detach() for parameter in vae.parameters()]
        gradients.append([old - new for old, new in zip(before, after, strict=True)])
    assert losses[0] == losses[1]
    sixths = [gradient / 6 for gradient in gradients[0]]
    torch.testing.assert_close(sixths, gradients[1], rtol=1e-4, atol=1e-6)


def results(make_loss, execution, model=None, guide=None, adam=adam):
    """Losses and gradients of five steps, and how they were run."""
    torch.manual_seed(0)
    with pyro.get_param_store().scope():
        vae = binary_vae()
        optim = adam(vae.parameters()) if model is None else adam
        svi = SVI(model or vae.model, guide or vae.guide, optim, make_loss(), execution=execution)
        rows = torch.full((6, 1, 4, 4) if model is None else (6,), 0.5)
        torch.manual_seed(1)
        steps = []
        for _ in range(5):
            loss = svi.step(rows)
            parameters = [p for group in svi.optim.param_groups for p in group["params"]]
            steps.append([loss, *(parameter.grad.clone() for parameter in parameters)])
    return steps, svi.how


@pytest.mark.parametrize("name", thinned(TRACED, 2))
def test_traced_it_is_plain_bit_for_bit_with_x_drawn_as_a_part_of_the_step(name):
    def loss():
        return PerRow(TRACED[name](), torch.bernoulli)

    plain, _ = results(loss, Execution(trace=False))
    traced, how = results(loss, Execution(compile=False))
    assert how == "traced"
    torch.testing.assert_close(traced, plain, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("objective", "trace"), [(Trace_ELBO, True), (Trace_ELBO, False), (TraceGraph_ELBO, False)]
)
def test_what_is_differentiated_in_place_of_the_loss_is_divided_by_the_rows(objective, trace):
    still = partial(torch.optim.SGD, lr=0.0)
    inner, per_row = (
        results(make, Execution(trace=trace, compile=False), coin, coin_guide, still)[0]
        for make in (objective, lambda: PerRow(objective()))
    )
    for step, other in zip(inner, per_row, strict=True):
        assert step[0] == other[0]
        for whole, mean in zip(step[1:], other[1:], strict=True):
            assert whole.abs().sum() > 0
            torch.testing.assert_close(whole / 6, mean)


@pytest.mark.parametrize("name", UNTRACED)
def test_an_objective_that_differentiates_on_its_own_runs_as_plain_pyro(name):
    def loss():
        return PerRow(UNTRACED[name](), torch.bernoulli)

    steps, how = results(loss, Execution())
    assert how == f"plain, as {name} always is"
    assert all(torch.isfinite(value).all() for step in steps for value in step)


def test_x_is_made_anew_in_each_step():
    vae = binary_vae()
    seen = []

    def drawn(grey):
        seen.append(torch.bernoulli(grey))
        return seen[-1]

    loss = PerRow(Trace_ELBO(), drawn)
    svi = SVI(vae.model, vae.guide, adam(vae.parameters()), loss, execution=Execution(trace=False))
    for _ in range(2):
        svi.step(torch.full((5, 1, 4, 4), 0.5))
    assert not torch.equal(*seen)
    with pytest.raises(
        ValueError, match="'rows' must be the first argument of a step by position, got none"
    ):
        svi.step(x=torch.zeros(5, 1, 4, 4))


def test_a_setting_of_the_transform_that_changes_is_seen():
    vae = binary_vae()
    threshold = 0.4

    def at_threshold(grey):
        return (grey > threshold).float()

    optimizer = torch.optim.SGD(vae.parameters(), lr=0.0)
    svi = SVI(vae.model, vae.guide, optimizer, PerRow(TraceMeanField_ELBO(), at_threshold))
    grey = torch.full((5, 1, 4, 4), 0.5)
    for value in (0.4, 0.6, 0.4):
        threshold = value
        for _ in range(3):
            torch.manual_seed(1)
            loss = svi.step(grey)
        torch.manual_seed(1)
        x = at_threshold(grey)
        assert loss.item() == TraceMeanField_ELBO().loss(vae.model, vae.guide, x)
    assert svi.how == "traced"


def test_the_number_of_plates_is_guessed_by_the_objective_inside():
    vae = binary_vae()
    objective = Trace_ELBO(**GUESSED)
    SVI(vae.model, vae.guide, adam(vae.parameters()), PerRow(objective)).step(vae.sample(6))
    assert objective.max_plate_nesting == 2  # the rows, and the particles


def test_what_svi_refuses_it_refuses_inside():
    vae = binary_vae()
    with pytest.raises(ValueError, match="'loss' must run as plain Pyro, got JitTrace_ELBO"):
        SVI(vae.model, vae.guide, adam(vae.parameters()), PerRow(JitTrace_ELBO()))
    with pytest.raises(ValueError, match=r"'objective' of PerRow must be an ELBO, .*, got 3"):
        SVI(vae.model, vae.guide, adam(vae.parameters()), PerRow(3))
