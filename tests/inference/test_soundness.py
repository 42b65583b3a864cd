"""What SVI sees of a step once it replays it: the loss, the gradients, and the supports of what is scored."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from models import binary_vae
from pyro.infer import Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import nn

from pyro_vae import (
    MLP,
    SVI,
    VAE,
    BernoulliLikelihood,
    DiagNormalPosterior,
    Execution,
    NonFiniteLossError,
    Shuffled,
    StandardNormalPrior,
    Training,
    fit,
)

SGD = partial(torch.optim.SGD, lr=0.01)
HOW = {
    "plain": Execution(trace=False),
    "traced": Execution(compile=False),
    "compiled": Execution(compile=True),
}
# Pyro warns of NaN where it runs itself.
pytestmark = pytest.mark.filterwarnings("ignore:Encountered ")


def scored(make, observed, mask=None):
    """A model whose observations, with a mean of `loc`, are scored by a distribution made of it."""

    def model(x):
        loc = pyro.param("loc", torch.tensor(0.5))
        with pyro.plate("rows", len(x)), pyro.poutine.mask(mask=True if mask is None else mask(x)):
            pyro.sample("x", make(loc), obs=observed(x))

    return model


def same(x):
    return x


# The distribution, good data, and data outside of its support that it gives a log-density all the same.
OUTSIDE = {
    "a grey pixel": (lambda loc: dist.Bernoulli(logits=loc), [0.0, 1.0], [0.0, 0.4]),
    "a pixel of 255": (lambda loc: dist.Bernoulli(logits=loc), [0.0, 1.0], [0.0, 255.0]),
    "a negative time": (lambda loc: dist.Exponential(loc.exp()), [1.0, 2.0], [1.0, -2.0]),
    "half a count": (lambda loc: dist.Poisson(loc.exp()), [1.0, 2.0], [1.0, 2.5]),
    "a count above the number of trials": (
        lambda loc: dist.Binomial(3, logits=loc),
        [1.0, 2.0],
        [1.0, 7.0],
    ),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_value_outside_the_support_is_refused_in_each_later_step(name):
    make, good, bad = OUTSIDE[name]
    with pyro.get_param_store().scope():
        svi = SVI(scored(make, same), lambda x: None, SGD, Trace_ELBO())
        for _ in range(5):
            svi.step(torch.tensor(good))
        assert svi.how == "traced"
        before = svi.optim.param_groups[0]["params"][0].clone()
        with pytest.raises(
            ValueError,
            match=r"outside the support .* \(checked at 'x'\) in step 6, and the gradients",
        ):
            svi.step(torch.tensor(bad))
        assert torch.equal(svi.optim.param_groups[0]["params"][0], before)
        svi.step(torch.tensor(good))


@pytest.mark.parametrize(
    ("how", "objective"),
    [
        *((how, each) for how in ("plain", "traced") for each in (Trace_ELBO, TraceMeanField_ELBO)),
        ("plain", TraceGraph_ELBO),
        pytest.param("compiled", TraceMeanField_ELBO, marks=pytest.mark.slow),
    ],
)
def test_however_steps_are_run_a_bad_one_changes_no_weight(how, objective):
    vae = binary_vae()
    svi = SVI(vae.model, vae.guide, SGD(vae.parameters()), objective(), execution=HOW[how])
    x = vae.sample(6)
    with pyro.validation_enabled(False):
        for _ in range(4):
            svi.step(x)
        before = [parameter.clone() for parameter in vae.parameters()]
        with pytest.raises(
            ValueError, match="The loss became NaN or infinite in step 5, and the gradients"
        ):
            svi.step(x.clone().fill_(math.nan))
    torch.testing.assert_close(list(vae.parameters()), before, rtol=0, atol=0)


def infinite_gradient(x):
    """At x = 0 the loss is 0, and its gradient infinite."""
    with pyro.plate("rows", len(x)):
        pyro.factor("x", -(x * pyro.param("loc", torch.ones(()))).abs().sqrt())


@pytest.mark.parametrize("trace", [True, False])
def test_a_gradient_that_is_not_finite_is_refused_though_the_loss_is(trace):
    with pyro.get_param_store().scope():
        svi = SVI(
            infinite_gradient, lambda x: None, SGD, Trace_ELBO(), execution=Execution(trace=trace)
        )
        for _ in range(4):
            svi.step(torch.ones(2))
        with pytest.raises(ValueError, match="A gradient became NaN or infinite in step 5"):
            svi.backward(torch.zeros(2))
        assert pyro.param("loc").isfinite()


def test_an_infinite_loss_is_refused():
    with pyro.get_param_store().scope():
        svi = SVI(
            scored(lambda loc: dist.Normal(loc, 1.0), same), lambda x: None, SGD, Trace_ELBO()
        )
        for _ in range(4):
            svi.step(torch.ones(2))
        with pytest.raises(ValueError, match="The loss became NaN or infinite in step 5"):
            svi.step(torch.tensor([1.0, math.inf]))


def test_missing_entries_are_not_outside_of_any_support():
    likelihood = BernoulliLikelihood(MLP(2, [8], 16), 16)
    vae = VAE(
        StandardNormalPrior(2),
        likelihood,
        DiagNormalPosterior(MLP(16, [8], 4), 16, 2),
        missing="nan",
    )
    svi = SVI(vae.model, vae.guide, SGD(vae.parameters()), Trace_ELBO())
    x = torch.bernoulli(torch.full((6, 16), 0.5))
    for _ in range(4):
        x = torch.where(
            torch.rand(x.shape) < 0.3, torch.nan, torch.bernoulli(torch.full((6, 16), 0.5))
        )
        svi.step(x)
    assert svi.how == "traced"
    with pytest.raises(ValueError, match="outside the support"):
        svi.step(torch.where(x.isnan(), torch.nan, 0.5))
    svi.step(torch.full_like(x, torch.nan))


def test_what_a_mask_leaves_out_may_be_anything_that_has_a_log_density():
    observed = torch.tensor([True, False])
    make = OUTSIDE["a negative time"][0]
    with pyro.get_param_store().scope(), pyro.validation_enabled(False):
        svi = SVI(scored(make, same, mask=lambda x: observed), lambda x: None, SGD, Trace_ELBO())
        with pyro.validation_enabled(True):
            svi.step(torch.tensor([1.0, 2.0]))
        for _ in range(4):
            svi.step(torch.tensor([1.0, -2.0]))
        with pytest.raises(ValueError, match="outside the support"):
            svi.step(torch.tensor([-1.0, 2.0]))


def test_where_validation_is_off_by_choice_nothing_is_outside():
    grey = torch.tensor([0.2, 0.7])
    for make, is_validated in (
        (partial(_relaxed), True),
        (lambda loc: dist.Bernoulli(logits=loc), False),
    ):
        with pyro.get_param_store().scope(), pyro.validation_enabled(is_validated):
            svi = SVI(scored(make, same), lambda x: None, SGD, Trace_ELBO())
            for _ in range(5):
                svi.step(grey)


def _relaxed(loc):
    return dist.Bernoulli(logits=loc, validate_args=False)


def test_a_draw_outside_the_support_of_the_model_is_found_where_the_density_goes_on():
    """Exponential(1) has a log-density, of −z, for negative z too."""

    def model():
        pyro.sample("z", dist.Exponential(1.0))

    def guide():
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(30.0)), 1.0))

    with pyro.get_param_store().scope():
        svi = SVI(model, guide, SGD, Trace_ELBO())
        for _ in range(5):
            svi.step()
        with torch.no_grad():
            pyro.param("loc").unconstrained().fill_(-30.0)
        with pytest.raises(
            ValueError, match=r"outside the support .* \(checked at 'z'\) in step 6"
        ):
            svi.step()


def test_signs_on_an_accelerator_are_read_now_and_then_and_name_the_first_bad_step():
    from pyro_vae.inference import UnsoundStepError
    from pyro_vae.inference.soundness import Supports, Watch, harmless, signs_of

    class Elsewhere(torch.Tensor):
        device = torch.device("cuda")

    def signs(loss):
        return signs_of(torch.tensor(loss), [torch.ones(2), None], torch.tensor(0.0)).as_subclass(
            Elsewhere
        )

    watch = Watch(Supports())
    for loss in [1.0] * 10 + [math.nan] * 38:
        watch.note(signs(loss))
    watch.note(signs(1.0))
    with pytest.raises(UnsoundStepError, match="step 11") as caught:
        watch.note(signs(1.0))
    assert caught.value.step == 11
    watch.read()  # it has been said
    gradients = harmless(
        [torch.full((2,), math.nan), None], signs(math.nan).as_subclass(torch.Tensor)
    )
    torch.testing.assert_close(gradients[0], torch.zeros(2))
    kept = harmless([torch.ones(2)], signs(1.0).as_subclass(torch.Tensor))
    torch.testing.assert_close(kept[0], torch.ones(2))


def test_running_on_after_a_bad_step_is_as_if_it_had_not_been():
    results = []
    for batches in ([1.0, math.nan, 2.0], [1.0, 2.0]):
        with pyro.get_param_store().scope():
            svi = SVI(
                scored(lambda loc: dist.Normal(loc, 1.0), same), lambda x: None, SGD, Trace_ELBO()
            )
            for value in [1.0] * 4 + batches:
                try:
                    svi.step(torch.full((2,), value))
                except ValueError:
                    assert math.isnan(value)
            results.append(pyro.param("loc").item())
    assert results[0] == results[1]


def test_gradients_of_modules_that_were_never_shown_to_pyro_are_watched_too():
    layer = nn.Linear(1, 1)

    def model(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(layer(torch.ones(1)), 1.0), obs=x)

    svi = SVI(model, lambda x: None, SGD(layer.parameters()), Trace_ELBO())
    for _ in range(4):
        svi.step(torch.ones(2))
    with pytest.raises(ValueError, match="in step 5"):
        svi.step(torch.tensor([math.nan, 1.0]))
    assert layer.bias.isfinite()


@pytest.mark.parametrize("resumes", [False, True])
def test_fit_says_so_in_terms_of_epochs_and_gives_the_weights_back(resumes):
    vae, x = binary_vae(), torch.bernoulli(torch.full((30, 1, 4, 4), 0.5))
    settings = partial(Training, batches=Shuffled(10))
    start = fit(vae, x, settings(epochs=1)) if resumes else None

    def blur(step):
        if step == 7:
            x.fill_(0.5)  # after the rows have been checked

    weights = [{name: value.clone() for name, value in vae.state_dict().items()}]
    with pytest.raises(
        NonFiniteLossError,
        match=r"outside the support .* in epoch 3 at step 2, .* 'data' hold there",
    ):
        fit(
            vae,
            x,
            settings(epochs=4),
            resume=start,
            on_step=blur,
            on_epoch=lambda reached: weights.append(reached.weights),
        )
    torch.testing.assert_close(dict(vae.state_dict()), dict(weights[-1]), rtol=0, atol=0)
