"""What the optimiser of SVI trains as parameters appear, thaw, are replaced or are cleared: what Pyro trains."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from models import binary_vae
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from torch import nn

from pyro_vae import SVI, Execution

ADAM = partial(torch.optim.Adam, lr=0.1)
X = torch.tensor([2.0, 4.0])


def model(x, slope=False):
    """A second parameter is there where it is asked for."""
    loc = pyro.param("a", torch.zeros(()))
    if slope:
        loc = loc + pyro.param("b", torch.zeros(()))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def guide(x, slope=False):
    pass


def put():
    pyro.get_param_store()["a"] = torch.tensor(-1.0)


def go_on(svi):
    """Steps with a second parameter from the sixth on, a value that is put into the store, and a store that is cleared."""
    for step in range(30):
        svi.step(X, slope=step >= 6)
        if step == 12:
            put()
        if step == 20:
            pyro.clear_param_store()
    return {name: value.item() for name, value in pyro.get_param_store().items()}


def svi(objective=Trace_ELBO, **execution):
    return SVI(model, guide, ADAM, objective(), execution=Execution(**execution))


@pytest.mark.parametrize("objective", [Trace_ELBO, TraceGraph_ELBO])
@pytest.mark.parametrize("trace", [True, False])
def test_parameters_that_come_late_are_replaced_or_cleared_are_trained_as_pyro_trains_them(
    objective, trace
):
    results = []
    for ours in (True, False):
        with pyro.get_param_store().scope():
            stock = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), objective())
            results.append(go_on(svi(objective, trace=trace) if ours else stock))
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    assert results[0].keys() == {"a", "b"}


def test_a_late_parameter_reaches_what_it_should():
    with pyro.get_param_store().scope():
        trained = svi()
        for step in range(200):
            trained.step(X, slope=step >= 3)
        assert (pyro.param("a") + pyro.param("b")).item() == pytest.approx(3.0, abs=0.01)
        assert pyro.param("b").item() > 1
        assert len(trained.optim.param_groups) == 1


def test_a_parameter_that_thaws_is_trained():
    vae = binary_vae()
    bias = vae.likelihood.network.output_bias.requires_grad_(False)
    trained, x = SVI(vae.model, vae.guide, ADAM, Trace_ELBO()), vae.sample(6)
    before = bias.clone()
    for _ in range(4):
        trained.step(x)
    assert torch.equal(bias, before)
    bias.requires_grad_(True)
    for _ in range(4):
        trained.step(x)
    assert not torch.equal(bias, before)


def test_a_parameter_of_a_module_that_is_replaced_is_trained_in_its_place():
    layer = nn.Linear(1, 1)

    def of_layer(x):
        pyro.module("layer", layer)
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(layer(torch.ones(1)), 1.0), obs=x)

    with pyro.get_param_store().scope() as scope:
        trained = SVI(of_layer, guide, ADAM, Trace_ELBO())
        for _ in range(4):
            trained.step(X)
        assert scope is not None
        layer.bias = nn.Parameter(torch.tensor([-5.0]))
        pyro.clear_param_store()
        for _ in range(4):
            trained.step(X)
        assert layer.bias.item() > -5
        assert len(trained.optim.param_groups[0]["params"]) == 2


def test_a_late_parameter_follows_the_schedule_of_its_group():
    with pyro.get_param_store().scope():
        trained = svi()
        trained.step(X)
        schedule = torch.optim.lr_scheduler.LambdaLR(trained.optim, lambda step: 0.5**step)
        trained.step(X)
        schedule.step()
        trained.step(X, slope=True)
        schedule.step()
        assert [(group["lr"], len(group["params"])) for group in trained.optim.param_groups] == [
            (0.025, 2)
        ]


def test_groups_are_those_that_the_function_makes():
    def make(parameters):
        parameters = list(parameters)
        scalars = [p for p in parameters if p.dim() == 0]
        vectors = [p for p in parameters if p.dim() > 0]
        return torch.optim.Adagrad(
            [{"params": scalars, "lr": 0.1}, {"params": vectors, "lr": 0.01}]
        )

    def of_vector(x, wide):
        loc = pyro.param("a", torch.zeros(()))
        if wide:
            loc = loc + pyro.param("w", torch.zeros(2)).sum() + pyro.param("c", torch.zeros(()))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    with pyro.get_param_store().scope():
        trained = SVI(of_vector, lambda x, wide: None, make, Trace_ELBO())
        for wide in (False, False, False, True, True, True, False, True):
            trained.step(X, wide)
        groups = trained.optim.param_groups
        assert [(group["lr"], [tuple(p.shape) for p in group["params"]]) for group in groups] == [
            (0.1, [(), ()]),
            (0.01, [(2,)]),
        ]
        assert pyro.param("w").abs().min() > 0


def test_what_the_function_leaves_out_stays_and_is_offered_once():
    offered = []

    def make(parameters):
        offered.append(len(list(parameters)))
        return ADAM([parameters[0]])

    with pyro.get_param_store().scope():
        trained = SVI(model, guide, make, Trace_ELBO(), execution=Execution(trace=False))
        for step in range(6):
            trained.step(X, slope=step >= 2)
        assert pyro.param("b").item() == 0
    assert offered == [1, 2]


def test_two_stores_in_turn_each_keep_their_own_state():
    def alternately(trained):
        scopes = [{"params": {}, "constraints": {}} for _ in range(2)]
        for step in range(12):
            with pyro.get_param_store().scope(scopes[step % 2]) as scope:
                trained.step(X + step % 2)
                scopes[step % 2] = scope
        return [scope["params"]["a"].item() for scope in scopes]

    stock = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    assert alternately(svi()) == pytest.approx(alternately(stock), rel=1e-5)


def test_values_that_are_put_into_the_store_again_and_again_do_not_pile_up():
    with pyro.get_param_store().scope():
        trained = svi(trace=False)
        for _ in range(50):
            trained.step(X)
            put()
        assert len(trained.optim.param_groups[0]["params"]) == len(trained.optim.state) == 1


def test_an_optimiser_that_is_given_trains_what_it_holds_and_nothing_else():
    with pyro.get_param_store().scope():
        model(X, slope=True)
        held, left = (pyro.param(name).unconstrained() for name in "ab")
        trained = SVI(model, guide, ADAM([held]), Trace_ELBO())
        for step in range(8):
            trained.step(X, slope=step >= 4)
        assert held.item() > 0
        assert left.item() == 0
        trained.optim.add_param_group({"params": [left]})
        trained.step(X, slope=True)
        assert left.item() > 0


@pytest.mark.parametrize("made", [None, {"lr": 0.1}, pyro.optim.Adam({"lr": 0.1})])
def test_a_function_that_makes_something_else_is_refused(made):
    with (
        pyro.get_param_store().scope(),
        pytest.raises(ValueError, match="'optim' must return a torch optimiser, got"),
    ):
        SVI(model, guide, lambda parameters: made, Trace_ELBO()).step(X)
    with (
        pyro.get_param_store().scope(),
        pytest.raises(ValueError, match="one gradient a step, got LBFGS"),
    ):
        SVI(model, guide, torch.optim.LBFGS, Trace_ELBO()).step(X)


# Gradients that add up


@pytest.mark.parametrize(
    ("objective", "execution"),
    [
        (Trace_ELBO, {"trace": False}),
        (Trace_ELBO, {"compile": False}),
        pytest.param(Trace_ELBO, {"compile": True}, marks=pytest.mark.slow),
        (TraceGraph_ELBO, {}),
    ],
)
def test_backward_adds_gradients_and_a_step_begins_anew(objective, execution):
    with pyro.get_param_store().scope():
        trained = svi(objective, **execution)
        for _ in range(5):
            trained.step(X)
        parameter = trained.optim.param_groups[0]["params"][0]
        trained.optim.zero_grad()
        trained.backward(X)
        once = parameter.grad.clone()
        trained.backward(X)
        trained.backward(X + 1)
        torch.testing.assert_close(
            parameter.grad, 3 * once - 2
        )  # d/da of the sum of (x − a)² / 2 over two rows
        trained.optim.param_groups[0]["lr"] = 0.0
        trained.step(X)
        torch.testing.assert_close(parameter.grad, once)
