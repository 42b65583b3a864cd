"""Failures of model and guide on their arguments, in one sentence; their own bugs stay as they are."""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from models import binary_vae
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn

from pyro_vae import SVI, Identity, Rows
from pyro_vae.inference import (
    hmc,
    importance_sample,
    log_mean_exp,
    log_mean_exp_variance,
    log_weights,
    monte_carlo_sites,
    nuts,
    pareto_khat,
    renamed,
    sandwich,
)


def svi_step(model, guide, *args, **kwargs):
    return SVI(model, guide, partial(torch.optim.Adam, lr=0.1), Trace_ELBO()).step(*args, **kwargs)


def svi_loss(model, guide, *args, **kwargs):
    svi = SVI(model, guide, partial(torch.optim.Adam, lr=0.1), Trace_ELBO())
    return svi.evaluate_loss(*args, **kwargs)


TAKE_PROGRAMS = {
    "importance_sample": partial(importance_sample, num_samples=2),
    "log_weights": partial(log_weights, num_samples=2),
    "hmc": hmc,
    "nuts": nuts,
    "sandwich": sandwich,
    "monte_carlo_sites": monte_carlo_sites,
    "SVI.step": svi_step,
    "SVI.evaluate_loss": svi_loss,
}
X = (torch.rand(3, 1, 4, 4) > 0.5).float()


class Networks(nn.Module):
    """A model and a guide that use x as it comes."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(16, 2)
        self.decoder = nn.Linear(2, 16)

    def model(self, x, y=None):
        pyro.module("networks", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            p_x = dist.Bernoulli(logits=self.decoder(z)).to_event(1)
            pyro.sample("x", p_x, obs=x.reshape(-1, 16))

    def guide(self, x, y=None):
        loc = self.encoder(x.reshape(-1, 16))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


with torch.inference_mode():
    INFERENCE = X.clone()
GOT = "'x' must be a value that model and guide can use, such as a tensor, got "
FLOAT32 = "'x' must have the dtype torch.float32 of the weights, got "
# The sentence, and the arguments after model and guide.
ARGUMENTS = {
    GOT + "an array of the shape": [X.numpy()],
    GOT + "a list of 3": [X.tolist()],
    GOT + "a dict of 1": [{"x": X}],
    GOT + "a Rows": [Rows(X, Identity())],
    GOT + "None": [None],
    GOT + "'digits'": ["digits"],
    GOT + "3.5": [3.5],
    FLOAT32 + "torch.float64": [X.double()],
    FLOAT32 + "torch.float16": [X.half()],
    FLOAT32 + "torch.int64": [X.long()],
    FLOAT32 + "torch.uint8": [X.byte()],
    FLOAT32 + "torch.bool": [X.bool()],
    FLOAT32 + "torch.complex64": [X + 0j],
    "'x' must be on the device cpu( of the weights)?, got meta": [X.to("meta")],
    "'x' must be a dense tensor, got torch.sparse_coo": [X.to_sparse()],
    "'guide' cannot take the arguments that it gets: missing a required argument: 'x'": [],
    "'guide' cannot take the arguments that it gets: too many positional": [X, None, X],
}


def assert_one_sentence(run, match, error=(TypeError, ValueError)):
    with pytest.raises(error, match=f"^{match}") as caught:
        run()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 350


@pytest.mark.parametrize("name", TAKE_PROGRAMS)
@pytest.mark.parametrize("match", ARGUMENTS)
def test_arguments_of_the_wrong_kind_are_named_in_one_sentence(match, name):
    networks = Networks()
    run = partial(TAKE_PROGRAMS[name], networks.model, networks.guide, *ARGUMENTS[match])
    with pyro.get_param_store().scope():
        assert_one_sentence(run, match)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["importance_sample", "SVI.step"])
def test_weights_of_another_dtype_are_named(name, dtype):
    networks = Networks().to(dtype)
    match = f"'x' must have the dtype {dtype} of the weights, got torch.float32"
    run = partial(TAKE_PROGRAMS[name], networks.model, networks.guide, X)
    with pyro.get_param_store().scope():
        assert_one_sentence(run, match)


def test_inference_tensors_are_refused_only_where_gradients_are_needed():
    networks = Networks()
    match = "'x' must allow gradients, got a tensor made under torch.inference_mode"
    with pyro.get_param_store().scope():
        run = partial(svi_step, networks.model, networks.guide, INFERENCE)
        assert_one_sentence(run, match)
        draws = importance_sample(networks.model, networks.guide, INFERENCE, num_samples=5)
    assert draws.log_weights.isfinite().all()


@pytest.mark.parametrize("name", TAKE_PROGRAMS)
def test_a_keyword_that_nobody_takes_is_named_with_the_nearest(name):
    vae = binary_vae()
    run = partial(TAKE_PROGRAMS[name], vae.model, vae.guide, X, sizes=3)
    assert_one_sentence(
        run, "'guide' cannot take .* keyword argument 'sizes'; the nearest is 'size'"
    )


def test_a_misspelt_keyword_of_the_function_itself_is_recognised():
    vae = binary_vae()
    run = partial(hmc, vae.model, vae.guide, X, num_sample=3)
    assert_one_sentence(run, "'guide' cannot take .* 'num_sample'; the nearest is 'num_samples'")


NO_PROGRAMS = {
    "got 3": lambda vae: 3,
    "got None": lambda vae: None,
    "got a tensor of the shape": lambda vae: vae.model(X),
    "got a VAE: pass its method": lambda vae: vae,
    "got the class AutoNormal: pass an object of it": lambda vae: AutoNormal,
}


@pytest.mark.parametrize("name", TAKE_PROGRAMS)
@pytest.mark.parametrize("got", NO_PROGRAMS)
def test_what_is_no_program_is_refused(got, name):
    vae = binary_vae()
    other = NO_PROGRAMS[got](vae)
    required = "must be a Pyro program, a function of the data"
    run = TAKE_PROGRAMS[name]
    assert_one_sentence(lambda: run(other, vae.guide, X), f"'model' {required}, {got}")
    assert_one_sentence(lambda: run(vae.model, other, X), f"'guide' {required}, {got}")


def program_of(body):
    """A model of rows whose latent z and data are used by `body`, and its guide."""

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(body(x, z), 1.0), obs=x)

    def guide(x):
        scale = pyro.param("scale", torch.ones(()))
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(0.0, scale))

    return model, guide


class RefusalError(Exception):
    pass


def refuse(x, z):
    raise RefusalError("my own")


OWN_BUGS = {
    "mine": (KeyError, lambda x, z: {}["mine"]),
    "'Tensor' object has no attribute 'sine'": (AttributeError, lambda x, z: z.sine()),
    "'Tensor' object has no attribute 'foo'": (AttributeError, lambda x, z: x.foo),
    "unsupported operand .* 'NoneType' and 'int'": (TypeError, lambda x, z: None + 1),
    "dtype": (RuntimeError, lambda x, z: torch.ones(2, 2).double() @ torch.ones(2, 2)),
    "my own": (RefusalError, refuse),
}


@pytest.mark.parametrize("name", ["importance_sample", "SVI.step"])
@pytest.mark.parametrize("bug", OWN_BUGS)
def test_a_bug_of_the_program_keeps_its_error_and_its_traceback(bug, name):
    kind, body = OWN_BUGS[bug]
    with pyro.get_param_store().scope(), pytest.raises(kind, match=bug) as caught:
        TAKE_PROGRAMS[name](*program_of(body), torch.zeros(3))
    assert caught.value.__cause__ is None
    assert "Trace Shapes" not in str(caught.value)
    assert "model" in [entry.frame.code.name for entry in caught.traceback]


def test_shapes_that_do_not_fit_are_listed():
    layer = nn.Linear(5, 3)
    with pyro.get_param_store().scope():
        run = partial(svi_step, *program_of(lambda x, z: layer(x)), torch.zeros(3))
        match = r"'model' and 'guide' must fit the shapes of their arguments, got x \(3,\): .*1x3"
        assert_one_sentence(run, match, ValueError)


def test_values_that_no_distribution_takes_are_not_listed():
    with pyro.get_param_store().scope():
        run = partial(svi_step, *program_of(lambda x, z: z * torch.nan), torch.zeros(100))
        assert_one_sentence(run, "Expected parameter loc .* found invalid values", ValueError)


def test_latents_that_are_missing_are_named_with_the_nearest():
    def guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("zz", dist.Normal(0.0, 1.0))

    model, _ = program_of(lambda x, z: z)
    for name in ("importance_sample", "hmc", "nuts", "sandwich", "log_weights"):
        run = partial(TAKE_PROGRAMS[name], model, guide, torch.zeros(3))
        assert_one_sentence(run, "'model' must have all .* no 'zz'; the nearest is 'z'", ValueError)


@pytest.mark.parametrize("name", ["importance_sample", "hmc", "nuts", "sandwich"])
def test_programs_without_latents_are_refused(name):
    def model(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    run = partial(TAKE_PROGRAMS[name], model, lambda x: None, torch.zeros(3))
    assert_one_sentence(run, "'model' and 'guide' must have latent sites, got none", ValueError)


@pytest.mark.parametrize("name", ["importance_sample", "hmc", "nuts", "sandwich", "SVI.step"])
@pytest.mark.filterwarnings("ignore:Found non-auxiliary")
def test_swapped_programs_are_recognised(name):
    vae = binary_vae()
    run = partial(TAKE_PROGRAMS[name], vae.guide, vae.model, X)
    assert_one_sentence(run, "'guide' must have no observed sites.* 'x': are model and guide swapp")


OTHER_FUNCTIONS = {
    "'log_values' must be a tensor, got .1.0.": lambda: log_mean_exp([1.0]),
    "'log_values' must have the shape .* got ()": lambda: log_mean_exp_variance(torch.zeros(())),
    "'log_weights' must be a tensor, got an array of the shape": lambda: pareto_khat(
        np.zeros((30, 2))
    ),
    "'names' must be a dict of new names by old ones.* got 'code'": lambda: renamed(print, "code"),
    "'names' must be a dict .* got {'z': 3}": lambda: renamed(print, {"z": 3}),
    "'program' must be a model or a guide, got 3": lambda: renamed(3, {"z": "code"}),
    "'num_samples' must be a whole number of at least 1, got '2'": lambda: log_weights(
        print, print, num_samples="2"
    ),
    r"'target_accept' must lie in \(0, 1\), got '0.8'": lambda: hmc(
        print, print, target_accept="0.8"
    ),
    "'exact' must be a dict with values, each a tensor or None, got tensor": lambda: sandwich(
        *program_of(lambda x, z: z), torch.zeros(3), exact=torch.zeros(3)
    ),
    "'exact' must be a dict with values, each a tensor or None, got {'z'": lambda: sandwich(
        *program_of(lambda x, z: z), torch.zeros(3), exact={"z": [0.0] * 3}
    ),
    "'exact' must have .* none of z; the nearest is 'Z'": lambda: sandwich(
        *program_of(lambda x, z: z), torch.zeros(3), exact={"Z": torch.zeros(3)}
    ),
}


@pytest.mark.parametrize("match", OTHER_FUNCTIONS)
def test_arguments_of_the_functions_themselves_are_refused(match):
    with pyro.get_param_store().scope():
        assert_one_sentence(OTHER_FUNCTIONS[match], match, ValueError)


def test_the_kind_of_a_default_is_no_wrong_argument():
    def model(x, y=None):
        return None + 1

    with pytest.raises(TypeError, match="^unsupported operand"):
        importance_sample(model, lambda x, y=None: None, torch.zeros(3), None, num_samples=2)


@pytest.mark.parametrize("function", [importance_sample, log_weights])
def test_a_number_of_draws_that_is_given_by_place_is_asked_for_by_name(function):
    name = function.__name__
    match = rf"'num_samples' must be given by its name, as in {name}\(model, guide, ..., num_samp"
    assert_one_sentence(lambda: function(print, print, torch.zeros(3), 100), match, TypeError)


def test_numbers_that_no_program_takes_are_asked_for_by_name():
    run = partial(hmc, *program_of(lambda x, z: z), torch.zeros(3), 100)
    assert_one_sentence(
        run, "'guide' cannot .* positional arguments: give num_samples or", TypeError
    )


def observed(distribution):
    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", distribution(z), obs=x)

    return model, program_of(lambda x, z: z)[1]


HEAD = "Error while computing log_prob at site 'x': its values must lie in the support "
NAN = torch.tensor([0.5, torch.nan, torch.nan])
# The sentence, the distribution of x given z, and x.
REFUSED = {
    "Real.. of Normal, got nan at index 1 of 'rows'": (lambda z: dist.Normal(z, 1.0), NAN),
    "Interval.* of Beta, got 1.5 at index 2": (
        lambda z: dist.Beta(z.exp(), 1.0),
        torch.tensor([0.5, 0.1, 1.5]),
    ),
    "Boolean.. of Bernoulli, got 0.5 at index 0": (lambda z: dist.Bernoulli(logits=z), NAN),
    "Simplex.. of Dirichlet, got a vector outside at index 0 of 'rows'": (
        lambda z: dist.Dirichlet(torch.ones(2)),
        torch.ones(3, 2),
    ),
}


@pytest.mark.parametrize("name", ["importance_sample", "hmc", "nuts", "sandwich", "SVI.step"])
@pytest.mark.parametrize("match", REFUSED)
def test_a_number_outside_its_support_is_named_with_site_and_row(match, name):
    distribution, x = REFUSED[match]
    with pyro.get_param_store().scope():
        run = partial(TAKE_PROGRAMS[name], *observed(distribution), x)
        assert_one_sentence(run, HEAD + match, ValueError)


def test_masked_numbers_and_supports_that_depend_on_latents_are_not_refused_by_chains():
    short = partial(hmc, num_samples=1, num_warmup=1, num_chains=1, num_steps=1)
    with pyro.get_param_store().scope():
        short(*observed(lambda z: dist.Normal(z, 1.0).mask(~NAN.isnan())), NAN)
        x = torch.tensor([0.1, 0.5, 3.0])
        short(*observed(lambda z: dist.Uniform(0.0, z.exp())), x)


def test_a_parameter_that_is_refused_is_shown_with_its_place():
    with pyro.get_param_store().scope():
        run = partial(svi_step, *observed(lambda z: dist.Normal(z, NAN)), torch.zeros(3))
        assert_one_sentence(
            run, "Expected parameter scale .* first nan at index 1 .*line", ValueError
        )


def test_a_shape_that_does_not_fit_is_named_with_its_site():
    _, guide = observed(lambda z: dist.Normal(z, 1.0))
    fixed = partial(poutine.condition, data={"x": torch.zeros(2)})
    match = "Error while computing log_prob at site 'x': Value is not broadcastable"
    with pyro.get_param_store().scope():
        run = partial(svi_step, fixed(program_without_data), guide, torch.zeros(3))
        assert_one_sentence(run, match, ValueError)


def program_without_data(x):
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0))


@pytest.mark.parametrize("name", ["importance_sample", "hmc", "SVI.step"])
def test_a_site_without_a_distribution_is_named(name):
    with pyro.get_param_store().scope():
        run = partial(TAKE_PROGRAMS[name], *observed(lambda z: z), torch.zeros(3))
        assert_one_sentence(run, "The site 'x' must have a distribution, got tensor", TypeError)


def test_rows_in_no_plate_are_said_to_need_one():
    def model(x):
        pyro.sample("x", dist.Normal(torch.zeros(3), pyro.param("scale", torch.ones(3))), obs=x)

    with pyro.get_param_store().scope():
        run = partial(svi_step, model, lambda x: None, torch.zeros(3))
        match = "at site .x., invalid log_prob shape .Expected .., actual .3..: put it into a plate"
        assert_one_sentence(run, match, ValueError)


@pytest.mark.parametrize("function", [hmc, nuts, sandwich])
def test_what_needs_gradients_says_so_in_inference_mode(function):
    vae = binary_vae().eval()
    with (
        torch.inference_mode(),
        pytest.raises(RuntimeError, match=r"^The densities must have gradients, which torch.infer"),
    ):
        function(vae.model, vae.guide, X)
