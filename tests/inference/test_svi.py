import copy
import pickle
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from models import binary_vae
from pyro import poutine
from pyro.infer import (
    ELBO,
    JitTrace_ELBO,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
)
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoMultivariateNormal, AutoNormal
from sweeps import thinned
from torch import nn

from pyro_vae import (
    MLP,
    SVI,
    VAE,
    BernoulliLikelihood,
    DiagNormalPosterior,
    Execution,
    StandardNormalPrior,
)

OBJECTIVES = [Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO]


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.02)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_value_and_gradient_are_those_of_pyros_own_svi(objective):
    vae = binary_vae()
    x = vae.sample(6)
    svi = SVI(vae.model, vae.guide, torch.optim.SGD(vae.parameters(), lr=0.0), objective())
    torch.manual_seed(1)
    ours = svi.backward(x).item()
    gradients = [parameter.grad.clone() for parameter in vae.parameters()]
    vae.zero_grad()
    torch.manual_seed(1)
    stock = objective().loss_and_grads(vae.model, vae.guide, x)
    assert ours == pytest.approx(stock, rel=1e-6)
    torch.testing.assert_close(gradients, [parameter.grad for parameter in vae.parameters()])


def test_evaluate_loss_takes_no_step_and_agrees_with_step():
    vae = binary_vae()
    x = vae.sample(6)
    svi = SVI(vae.model, vae.guide, adam(vae.parameters()), Trace_ELBO())
    before = [parameter.clone() for parameter in vae.parameters()]
    torch.manual_seed(1)
    evaluated = svi.evaluate_loss(x)
    torch.testing.assert_close(list(vae.parameters()), before)
    torch.manual_seed(1)
    stepped = svi.step(x)
    assert not stepped.requires_grad
    torch.testing.assert_close(evaluated.item(), stepped.item())
    assert not any(torch.equal(*pair) for pair in zip(vae.parameters(), before, strict=True))


@pytest.mark.parametrize("stock", [True, False])
def test_two_vaes_train_alternately_in_one_process(stock):
    vaes = [binary_vae(), binary_vae()]
    data = [torch.zeros(20, 1, 4, 4), torch.ones(20, 1, 4, 4)]
    svis = [
        pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.1}), TraceMeanField_ELBO())
        if stock
        else SVI(
            vae.model, vae.guide, torch.optim.Adam(vae.parameters(), lr=0.1), TraceMeanField_ELBO()
        )
        for vae in vaes
    ]
    for _ in range(40):
        for svi, x in zip(svis, data, strict=True):
            svi.step(x)
    for vae, x in zip(vaes, data, strict=True):
        assert vae.elbo(x).mean() > -2  # it starts near -16 ln 2 = -11
        assert vae.elbo(1 - x).mean() < -20


def test_the_store_and_the_random_state_of_validation_are_left_as_found():
    vae = binary_vae()
    x = vae.sample(4)
    vae.guide(x)  # the user's own call shows parameters, and they stay
    before = set(pyro.get_param_store().keys())
    SVI(vae.model, vae.guide, adam(vae.parameters()), Trace_ELBO()).step(x)
    assert set(pyro.get_param_store().keys()) == before


def test_a_function_makes_the_optimiser_once_an_autoguide_has_made_its_parameters():
    data = torch.randn(100) + 1

    def model():
        loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", 100):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=data)

    with pyro.get_param_store().scope():
        guide = AutoNormal(model)
        svi = SVI(
            model, guide, lambda parameters: torch.optim.Adam(parameters, lr=0.05), Trace_ELBO()
        )
        with pytest.raises(ValueError, match="'optim' is a function"):
            _ = svi.optim
        for _ in range(150):
            svi.step()
        assert len(svi.optim.param_groups[0]["params"]) == 2
        assert guide.median()["loc"].item() == pytest.approx(data.mean().item(), abs=0.15)


def test_the_users_own_params_are_trained_and_stay_in_the_store():
    def model():
        pyro.sample(
            "x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), obs=torch.tensor(2.0)
        )

    with pyro.get_param_store().scope():
        svi = SVI(
            model,
            lambda: None,
            lambda parameters: torch.optim.Adam(parameters, lr=0.1),
            Trace_ELBO(),
        )
        for _ in range(200):
            svi.step()
        assert pyro.param("loc").item() == pytest.approx(2.0, abs=0.05)


def test_a_plain_module_that_pyro_was_never_shown_is_trained():
    layer = nn.Linear(1, 1)

    def model(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(layer(torch.ones(1)), 1.0), obs=x)

    svi = SVI(model, lambda x: None, torch.optim.SGD(layer.parameters(), lr=0.01), Trace_ELBO())
    before = layer.bias.clone()
    svi.step(torch.full((5,), 2.0))
    assert not torch.equal(layer.bias, before)


def test_only_what_the_optimiser_holds_is_moved_or_given_a_gradient():
    vae = binary_vae()
    x = vae.sample(4)
    before = [parameter.clone() for parameter in vae.posterior.parameters()]
    SVI(vae.model, vae.guide, adam(vae.likelihood.parameters()), Trace_ELBO()).step(x)
    torch.testing.assert_close(list(vae.posterior.parameters()), before)
    assert all(parameter.grad is None for parameter in vae.posterior.parameters())


def test_an_optimiser_of_pyro_is_refused_with_what_to_pass():
    vae = binary_vae()
    with pytest.raises(
        ValueError, match=r"torch.optim.Adam\(vae.parameters\(\)\).* got PyroOptim of pyro.optim"
    ):
        SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    with pytest.raises(ValueError, match=r"or a function from parameters to one, got 0.001"):
        SVI(vae.model, vae.guide, 1e-3, Trace_ELBO())
    with pytest.raises(ValueError, match="got JitTrace_ELBO: use it without Jit"):
        SVI(vae.model, vae.guide, adam(vae.parameters()), JitTrace_ELBO())
    with pytest.raises(ValueError, match="must take one gradient a step, got LBFGS"):
        SVI(vae.model, vae.guide, torch.optim.LBFGS(vae.parameters()), Trace_ELBO())
    with pytest.raises(ValueError, match=r"'loss' must be a pyro.infer.ELBO"):
        SVI(vae.model, vae.guide, adam(vae.parameters()), lambda: 0.0)


def test_an_optimiser_of_other_parameters_is_refused():
    vae = binary_vae()
    svi = SVI(vae.model, vae.guide, adam(binary_vae().parameters()), Trace_ELBO())
    with pytest.raises(ValueError, match="must hold trainable parameters that the loss depends on"):
        svi.step(vae.sample(3))


def test_an_objective_with_gradients_of_its_own_trains_too():
    vae = binary_vae()
    svi = SVI(vae.model, vae.guide, adam(vae.parameters()), RenyiELBO(alpha=0, num_particles=2))
    before = [parameter.clone() for parameter in vae.parameters()]
    svi.step(vae.sample(3))
    assert not any(torch.equal(*pair) for pair in zip(vae.parameters(), before, strict=True))


# Traced and compiled


def run(make_svi, calls, **execution):
    """The losses of some steps and the parameters after them, from one start, and the random number that follows."""
    torch.manual_seed(0)
    with pyro.get_param_store().scope():
        svi = make_svi(**execution)
        torch.manual_seed(1)
        losses = [svi.step(*args, **kwargs) for args, kwargs in calls]
        parameters = [
            p.detach().clone() for group in svi.optim.param_groups for p in group["params"]
        ]
    return (losses, parameters, torch.randn(())), svi.how


def vae_svi(objective):
    def make(**execution):
        vae = binary_vae()
        return SVI(
            vae.model,
            vae.guide,
            adam(vae.parameters()),
            objective(),
            execution=Execution(**execution),
        )

    return make


def vae_calls(num_rows=24):
    """Full batches, a shorter one if need be, and a KL weight that changes."""
    data = binary_vae().sample(num_rows)
    weights = torch.linspace(0.1, 1, 4)
    return [((batch,), {"kl_weight": weight}) for weight in weights for batch in data.split(10)]


NESTED = {"max_plate_nesting": 1, "num_particles": 3, "vectorize_particles": True}
TRACED_OBJECTIVES = {
    "Trace_ELBO": Trace_ELBO,
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
    "Trace_ELBO, particles in a loop": partial(Trace_ELBO, num_particles=3),
    "Trace_ELBO, vectorised particles": partial(Trace_ELBO, **NESTED),
    "TraceMeanField_ELBO, vectorised particles": partial(TraceMeanField_ELBO, **NESTED),
    "TraceTailAdaptive_ELBO": partial(TraceTailAdaptive_ELBO, **NESTED),
}


@pytest.mark.parametrize("name", thinned(TRACED_OBJECTIVES, 2))
def test_traced_it_is_plain_pyro_bit_for_bit_with_the_same_random_numbers(name):
    calls = vae_calls(num_rows=24 if name == "Trace_ELBO" else 20)
    make = vae_svi(TRACED_OBJECTIVES[name])
    (received, how), (expected, _) = run(make, calls), run(make, calls, trace=False)
    torch.testing.assert_close(received, expected, rtol=0, atol=0)
    assert how == "traced"


@pytest.mark.slow
def test_compiled_it_is_plain_pyro_up_to_rounding_with_the_same_random_numbers():
    make, calls = vae_svi(TraceMeanField_ELBO), vae_calls()[:8]
    (received, how), (expected, _) = run(make, calls, compile=True), run(make, calls, trace=False)
    torch.testing.assert_close(received, expected, rtol=1e-5, atol=1e-6)
    assert how == "compiled"


# Neither waits for a second call of a signature, and the program itself runs first.
AT_ONCE = [pytest.param({"compile": True}, marks=pytest.mark.slow), {"precision": "bfloat16"}]


@pytest.mark.parametrize("execution", AT_ONCE)
def test_what_pyro_draws_to_guess_the_plates_comes_first_however_the_step_is_run(execution):
    make, calls = (
        vae_svi(partial(Trace_ELBO, num_particles=3, vectorize_particles=True)),
        vae_calls()[:3],
    )
    received, expected = run(make, calls, **execution)[0], run(make, calls, trace=False)[0]
    torch.testing.assert_close(received, expected, rtol=1e-5, atol=1e-6)


def score_function_svi(**execution):
    """A guide without `rsample`, whose gradient is that of its log-density times the loss; parameters of pyro.param."""

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.3))
            k = pyro.sample("k", dist.Categorical(torch.ones(3)))
            pyro.sample("x", dist.Normal(z + k, 1.0), obs=x)

    def guide(x):
        logit = pyro.param("logit", torch.zeros(()))
        probs = pyro.param("probs", torch.ones(3) / 3, constraint=dist.constraints.simplex)
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=logit * x))
            pyro.sample("k", dist.Categorical(probs))

    return SVI(model, guide, adam, Trace_ELBO(), execution=Execution(**execution))


def regression_svi(guide_class):
    def make(**execution):
        def model(x):
            slope = pyro.sample("slope", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
            with pyro.plate("rows", 40, subsample_size=10) as rows:
                pyro.sample("x", dist.Normal(slope.sum(), scale), obs=x[rows])

        return SVI(model, guide_class(model), adam, Trace_ELBO(), execution=Execution(**execution))

    return make


OTHER_PROGRAMS = {
    "a score function and pyro.param": score_function_svi,
    "AutoNormal, with rows drawn by the plate": regression_svi(AutoNormal),
    "AutoMultivariateNormal": regression_svi(AutoMultivariateNormal),
    "AutoLowRankMultivariateNormal": regression_svi(AutoLowRankMultivariateNormal),
}


@pytest.mark.parametrize("name", OTHER_PROGRAMS)
def test_programs_without_a_vae_are_traced_too(name):
    calls = [((torch.randn(40),), {}) for _ in range(5)]
    (received, how), (expected, _) = (
        run(OTHER_PROGRAMS[name], calls),
        run(OTHER_PROGRAMS[name], calls, trace=False),
    )
    torch.testing.assert_close(received, expected, rtol=0, atol=0)
    assert how == "traced"


def test_a_program_whose_course_depends_on_data_falls_back_and_trains():
    def model(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(loc if x.mean() > 0 else -loc, 1.0), obs=x)

    with pyro.get_param_store().scope():
        svi = SVI(model, lambda x: None, partial(torch.optim.Adam, lr=0.1), Trace_ELBO())
        with pytest.warns(
            UserWarning, match=r"SVI runs as it is written, .* \(test_svi.py, line \d+\)"
        ) as caught:
            _ = [svi.step(torch.full((5,), (-1.0) ** step)) for step in range(100)]
        assert len(caught) == 1
        assert pyro.param("loc").item() == pytest.approx(1.0, abs=0.05)
    assert svi.how.startswith("plain, because its course depends on the value of a tensor")


@pytest.mark.parametrize("objective", [TraceGraph_ELBO, partial(RenyiELBO, num_particles=2)])
def test_what_is_never_traced_says_so_without_a_warning(objective):
    make = vae_svi(objective)
    _, how = run(make, vae_calls()[:4])
    assert how == f"plain, as {type(objective()).__name__} always is"


class Summed(ELBO):
    """An objective of the user's own."""

    def _get_trace(self, model, guide, args, kwargs):
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        return poutine.trace(poutine.replay(model, guide_trace)).get_trace(
            *args, **kwargs
        ), guide_trace

    def differentiable_loss(self, model, guide, *args, **kwargs):
        model_trace, guide_trace = self._get_trace(model, guide, args, kwargs)
        return guide_trace.log_prob_sum() - model_trace.log_prob_sum()


def test_an_objective_of_the_users_own_is_traced():
    make, calls = vae_svi(Summed), vae_calls()[:8]
    (received, how), (expected, _) = run(make, calls), run(make, calls, trace=False)
    torch.testing.assert_close(received, expected, rtol=0, atol=0)
    assert how == "traced"


def test_running_statistics_and_dropout_are_those_of_plain_pyro():
    def make(**execution):
        decoder = nn.Sequential(
            nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 16)
        )
        vae = VAE(
            StandardNormalPrior(2),
            BernoulliLikelihood(decoder, (1, 4, 4)),
            DiagNormalPosterior(MLP(16, [8], 4), (1, 4, 4), 2),
        )
        made.append(vae)
        return SVI(
            vae.model,
            vae.guide,
            adam(vae.parameters()),
            TraceMeanField_ELBO(),
            execution=Execution(**execution),
        )

    made, calls = [], vae_calls()
    received, expected = run(make, calls), run(make, calls, trace=False)
    torch.testing.assert_close(received[0], expected[0], rtol=0, atol=0)
    torch.testing.assert_close(made[0].state_dict(), made[1].state_dict(), rtol=0, atol=0)


def test_the_users_own_modules_need_not_be_named():
    """A model that is a plain function shows its modules when it first calls them."""
    layer = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5))

    def model(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(layer(torch.ones(1)), 1.0), obs=x)

    svi = SVI(model, lambda x: None, torch.optim.SGD(layer.parameters(), lr=0.0), Trace_ELBO())
    x = torch.full((5,), 2.0)
    training = {svi.step(x).item() for _ in range(20)}
    layer.eval()
    evaluating = {svi.step(x).item() for _ in range(20)}
    assert (len(training), len(evaluating)) == (2, 1)


@pytest.mark.parametrize("trace", [True, False])
def test_a_parameter_that_is_frozen_between_steps_stays_where_it_is(trace):
    vae = binary_vae()
    optimizer = torch.optim.SGD(vae.parameters(), lr=0.01)
    svi = SVI(vae.model, vae.guide, optimizer, Trace_ELBO(), execution=Execution(trace=trace))
    x = vae.sample(6)
    for _ in range(4):
        svi.step(x)
    bias = vae.likelihood.network.output_bias.requires_grad_(False)
    before = bias.clone()
    for _ in range(4):
        svi.step(x)
    assert torch.equal(bias, before)


def test_a_value_that_the_user_puts_into_the_store_is_read():
    def model():
        pyro.sample(
            "x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), obs=torch.tensor(2.0)
        )

    with pyro.get_param_store().scope():
        svi = SVI(model, lambda: None, partial(torch.optim.SGD, lr=0.0), Trace_ELBO())
        for _ in range(5):
            svi.step()
        pyro.get_param_store()["loc"] = torch.tensor(2.0)
        assert svi.evaluate_loss() < 1  # a draw at its mean
        assert svi.step() < 1


@pytest.mark.parametrize("execution", AT_ONCE)
def test_what_an_autoguide_draws_to_set_itself_up_comes_first_however_steps_are_run(execution):
    make, calls = regression_svi(AutoNormal), [((torch.randn(40),), {}) for _ in range(4)]
    (received, _), (expected, _) = run(make, calls, **execution), run(make, calls, trace=False)
    torch.testing.assert_close(received, expected, rtol=1e-5, atol=1e-6)


def test_gradients_that_share_memory_are_set_apart():
    """Clipping works in place: a gradient that two parameters share would be clipped twice."""
    first, second, third = (nn.Parameter(torch.zeros(())) for _ in range(3))
    wide = nn.Parameter(torch.zeros(3))

    def model(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(first + second + third + wide.sum(), 1.0), obs=x)

    for trace in (True, False):
        parameters = [first, second, third, wide]
        svi = SVI(
            model,
            lambda x: None,
            torch.optim.SGD(parameters, lr=0.0),
            Trace_ELBO(),
            execution=Execution(trace=trace),
        )
        for _ in range(4):
            svi.backward(torch.full((5,), 2.0))
        nn.utils.clip_grad_norm_(parameters, 1.0)
        norm = torch.stack([parameter.grad.square().sum() for parameter in parameters]).sum().sqrt()
        assert norm.item() == pytest.approx(1.0)


def test_a_step_without_gradients_says_so():
    vae = binary_vae()
    svi = SVI(vae.model, vae.guide, adam(vae.parameters()), Trace_ELBO())
    with torch.no_grad(), pytest.raises(ValueError, match="must be called with gradients enabled"):
        svi.step(torch.zeros(3, 1, 4, 4))


# Arguments


def scheduler(vae):
    return torch.optim.lr_scheduler.StepLR(adam(vae.parameters()), 1)


def frozen(vae):
    return adam(vae.requires_grad_(False).parameters())


OPTIMISERS = {
    "got 'Adam'": lambda vae: "Adam",
    "got None": lambda vae: None,
    "got {'lr': 0.1}": lambda vae: {"lr": 0.1},
    "got a generator": lambda vae: vae.parameters(),
    "got a StepLR": scheduler,
    "got the class StepLR": lambda vae: torch.optim.lr_scheduler.StepLR,
    "got the class ExponentialLR": lambda vae: partial(
        torch.optim.lr_scheduler.ExponentialLR, gamma=1
    ),
    "got a VAE": lambda vae: vae,
    "'optim' and 'loss' swapped?": lambda vae: Trace_ELBO(),
    "got Adam of pyro.optim": lambda vae: pyro.optim.Adam,
    "got ClippedAdam of pyro.optim": lambda vae: partial(pyro.optim.ClippedAdam, {"lr": 0.1}),
    "got SparseAdam: use Adam": lambda vae: partial(torch.optim.SparseAdam, lr=0.1),
    "fails: .* argument 'learning_rate'": lambda vae: partial(torch.optim.Adam, learning_rate=0.1),
    "fails: Invalid learning rate: -1": lambda vae: partial(torch.optim.Adam, lr=-1),
    "return a torch optimiser, got None": lambda vae: lambda parameters: None,
    "got none among the 8 that it holds": lambda vae: adam(binary_vae().parameters()),
    "got none: all parameters that it holds are frozen": frozen,
}


@pytest.mark.parametrize("got", OPTIMISERS)
def test_what_cannot_train_is_refused_in_one_sentence(got):
    vae = binary_vae()
    with pytest.raises(ValueError, match=f"^'optim' .*{got}") as caught:
        SVI(vae.model, vae.guide, OPTIMISERS[got](vae), Trace_ELBO()).step(torch.zeros(2, 1, 4, 4))
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_programs_without_parameters_have_nothing_to_train():
    vae = binary_vae().requires_grad_(False)
    with pytest.raises(ValueError, match="got none: model and guide have no trainable parameters"):
        SVI(vae.model, vae.guide, adam, Trace_ELBO()).step(vae.sample(2))


def test_parameters_made_in_inference_mode_are_refused():
    with torch.inference_mode():
        vae = binary_vae()
    with pytest.raises(ValueError, match="^'optim' must hold parameters that allow gradients"):
        SVI(vae.model, vae.guide, adam(vae.parameters()), Trace_ELBO())
    with pytest.raises(TypeError, match="^'model' and 'guide' must have parameters that allow"):
        SVI(vae.model, vae.guide, adam, Trace_ELBO()).step(torch.zeros(2, 1, 4, 4))


def test_sparse_gradients_are_refused():
    table = nn.Embedding(4, 1, sparse=True)

    def model(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(table(x)[:, 0], 1.0), obs=x.float())

    svi = SVI(model, lambda x: None, adam(table.parameters()), Trace_ELBO())
    with pytest.raises(ValueError, match="must have dense gradients, got sparse ones"):
        svi.step(torch.tensor([0, 1]))


LOSSES = {
    "'loss' must be .* got the class Trace_ELBO: pass Trace_ELBO": lambda: Trace_ELBO,
    "'loss' must be .* got None": lambda: None,
    "'loss' must be .* got MSELoss": nn.MSELoss,
    "'num_particles' must be a whole number of at least 1, got -1": lambda: Trace_ELBO(-1),
    "'num_particles' must be a whole number of at least 1, got True": lambda: Trace_ELBO(True),
    "'num_particles' must be a whole number of at least 1, got '2'": lambda: Trace_ELBO("2"),
    "'max_plate_nesting' must be a whole number of at least 0, got -1": lambda: Trace_ELBO(
        2, max_plate_nesting=-1, vectorize_particles=True
    ),
}


@pytest.mark.parametrize("message", LOSSES)
def test_what_is_no_loss_is_refused(message):
    vae = binary_vae()
    with pytest.raises(ValueError, match=f"^{message}"):
        SVI(vae.model, vae.guide, adam, LOSSES[message]())


@pytest.mark.parametrize("value", [-1, 2.5, "10", True])
def test_the_number_of_steps_is_checked(value):
    vae = binary_vae()
    with pytest.raises(ValueError, match="^'num_steps' must be a whole number of at least 0"):
        SVI(vae.model, vae.guide, adam, Trace_ELBO(), num_steps=value)


def test_the_execution_is_checked():
    vae = binary_vae()
    with pytest.raises(ValueError, match="^'execution' must be an Execution, .* got 'compiled'"):
        SVI(vae.model, vae.guide, adam, Trace_ELBO(), execution="compiled")


def test_a_wrong_argument_gives_no_warning_before_its_error():
    vae = binary_vae()
    svi = SVI(vae.model, vae.guide, adam(vae.parameters()), Trace_ELBO())
    # Warnings are errors in these tests.
    with pytest.raises(ValueError, match="^'x' must be an array"):
        svi.step({"x": vae.sample(2)})
    assert svi.step(vae.sample(2)).isfinite()


# Copies


@pytest.mark.parametrize(
    ("is_function", "copied"),
    [(True, copy.deepcopy), (False, lambda svi: pickle.loads(pickle.dumps(svi)))],
)
def test_a_copy_goes_on_as_the_original_does(is_function, copied):
    vae = binary_vae()
    x = vae.sample(6)
    optim = partial(torch.optim.Adam, lr=0.02)
    svi = SVI(vae.model, vae.guide, optim if is_function else optim(vae.parameters()), Trace_ELBO())
    svi.step(x)
    other = copied(svi)
    assert other.guide.__self__ is other.model.__self__ is not vae
    losses = []
    for each in (svi, other):
        torch.manual_seed(1)
        losses.append([each.step(x).item() for _ in range(2)])
    assert losses[0] == losses[1]
    assert other.how == "traced"


# Objectives with two losses, or none


def test_two_losses_are_two_numbers_as_in_pyro():
    vae = binary_vae()
    x = vae.sample(6)
    svi = SVI(vae.model, vae.guide, adam(vae.parameters()), ReweightedWakeSleep(num_particles=2))
    torch.manual_seed(1)
    expected = ReweightedWakeSleep(num_particles=2).loss(vae.model, vae.guide, x)
    torch.manual_seed(1)
    torch.testing.assert_close(svi.evaluate_loss(x), torch.stack(expected))
    assert svi.step(x).shape == (2,)


@pytest.mark.parametrize("trace", [True, False])
def test_an_objective_without_a_loss_trains_and_blames_nothing(trace):
    vae = binary_vae()
    before = [parameter.clone() for parameter in vae.parameters()]
    objective = TraceTailAdaptive_ELBO(
        num_particles=2, vectorize_particles=True, max_plate_nesting=1
    )
    svi = SVI(
        vae.model,
        vae.guide,
        adam(vae.parameters()),
        objective,
        execution=Execution(trace=trace),
    )
    for _ in range(3):
        assert svi.step(vae.sample(6)).isinf()
    assert not any(torch.equal(*pair) for pair in zip(vae.parameters(), before, strict=True))
