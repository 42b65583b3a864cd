import pyro
import pyro.distributions as dist
import pytest
import torch
from models import binary_vae
from pyro import infer
from pyro.infer import Predictive, Trace_ELBO
from torch import nn

from pyro_vae import (
    SVI,
    VAE,
    DiagNormalPosterior,
    Execution,
    Likelihood,
    NonFiniteLossError,
    PoissonLikelihood,
    Shuffled,
    StandardNormalPrior,
    Training,
    evaluate,
    fit,
    importance_sample,
)
from pyro_vae.support.invalid_parameters import InvalidParameterError

OF_X = (
    r"^'posterior', a DiagNormalPosterior, makes no distribution of x from 0 to 1e\+30: 'loc' of "
    "its Normal must be finite, got NaN. Bring x to a scale near 1, by Standardized"
)
OF_Z = (
    "^'likelihood', a PoissonLikelihood, makes no distribution of z from .*: 'rate' of its "
    "Poisson must be 0 or more, got NaN. Look at the x that gave such a z"
)

PLAIN = Execution(trace=False)  # so few steps are not worth a trace


def overflowing(in_dim, out_dim):
    """A network whose outputs are NaN from inputs of about 1e15: infinity less infinity."""
    first = nn.Linear(in_dim, 2, bias=False)
    last = nn.Linear(2, out_dim, bias=False)
    with torch.no_grad():
        first.weight.fill_(1e25)
        last.weight.copy_(torch.tensor([[1.0, -1.0]]).expand(out_dim, 2))
    return nn.Sequential(first, last)


def make_vae(encoder=None, decoder=None):
    torch.manual_seed(0)
    likelihood = PoissonLikelihood(decoder or nn.Linear(2, 4), 4)
    return VAE(
        StandardNormalPrior(2), likelihood, DiagNormalPosterior(encoder or nn.Linear(4, 4), 4, 2)
    )


@pytest.fixture
def x():
    return torch.poisson(torch.full((20, 4), 3.0))


@pytest.fixture
def huge(x):
    x[7] = 1e30
    x[0, 0] = 0
    return x


def our_step(vae, x, execution=Execution()):
    optim = torch.optim.Adam(vae.parameters())
    return SVI(vae.model, vae.guide, optim, Trace_ELBO(), execution=execution).step(x)


def pyro_step(vae, x):
    with pyro.get_param_store().scope():
        return infer.SVI(vae.model, vae.guide, pyro.optim.Adam({}), Trace_ELBO()).step(x)


CALLS = {
    "encode": lambda vae, x: vae.encode(x),
    "reconstruct": lambda vae, x: vae.reconstruct(x),
    "elbo": lambda vae, x: vae.elbo(x),
    "evaluate": lambda vae, x: evaluate(vae, x, num_samples=1, num_importance_samples=0),
    "importance_sample": lambda vae, x: importance_sample(vae.model, vae.guide, x, num_samples=25),
    "SVI": our_step,
    "plain SVI": lambda vae, x: our_step(vae, x, Execution(trace=False)),
    "Pyro's SVI": pyro_step,
    "Predictive": lambda vae, x: Predictive(vae.guide, num_samples=2)(x),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_encoder_that_overflows_is_named_with_the_range_of_x(name, huge):
    vae = make_vae(encoder=overflowing(4, 4))
    with pytest.raises(InvalidParameterError, match=OF_X) as caught:
        CALLS[name](vae, huge)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 220


@pytest.mark.parametrize("name", ["reconstruct", "elbo", "SVI", "importance_sample"])
def test_a_decoder_that_overflows_is_named_with_the_range_of_z(name, huge):
    vae = make_vae(decoder=overflowing(2, 4))
    nn.init.constant_(vae.posterior.network.weight, 1.0)  # z of 1e6, the most that it gives
    vae.likelihood.network[0].weight.data.mul_(1e10)
    with pytest.raises(InvalidParameterError, match=OF_Z) as caught:
        CALLS[name](vae, huge)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["test", "validation"])
def test_rows_that_overflow_after_an_epoch_leave_the_weights_as_they_were(name, x):
    vae = make_vae()
    start = {key: value.clone() for key, value in vae.state_dict().items()}
    rows = x.clone()
    rows[7] = 1e30
    place = rf"in epoch 1 on the rows of '{name}', .* row 7 of '{name}', .* x reaches 1e\+30"
    with pytest.raises(NonFiniteLossError, match=place) as caught:
        fit(vae, x, Training(epochs=2, batches=Shuffled(10), execution=PLAIN), **{name: rows})
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, start[key]) for key, value in vae.state_dict().items())


@pytest.mark.filterwarnings("ignore:The encoder sees numbers up to")
def test_an_encoder_that_overflows_in_training_is_named_and_keeps_its_weights(x):
    vae = make_vae(encoder=overflowing(4, 4))
    vae.posterior.network[0].weight.data.mul_(1e-25)
    start = {key: value.clone() for key, value in vae.state_dict().items()}
    x[7] = 3e38
    with pytest.raises(NonFiniteLossError, match="epoch 1 at step 1, .* 'posterior', a Diag") as e:
        fit(vae, x, Training(epochs=1, batches=Shuffled(20), execution=PLAIN))
    assert "\n" not in str(e.value)
    assert all(torch.equal(value, start[key]) for key, value in vae.state_dict().items())


@pytest.mark.parametrize("name", ["likelihood", "posterior"])
def test_weights_that_are_not_finite_are_named_before_inputs(name, x):
    vae = make_vae()
    getattr(vae, name).network.bias.data.fill_(torch.nan)
    sentence = f"^'{name}', .* because its weights are NaN or infinite, first 'network.bias'"
    for call in (CALLS["elbo"], CALLS["SVI"], lambda vae, x: fit(vae, x, Training(epochs=1))):
        with pytest.raises(InvalidParameterError, match=sentence):
            call(vae, x.repeat(10, 1))


def test_latents_that_are_not_finite_are_named_before_outputs():
    with pytest.raises(
        InvalidParameterError, match="^'z' must be finite for 'likelihood', got NaN"
    ):
        make_vae().decode(torch.full((3, 2), torch.nan))


def test_parameters_that_a_network_may_not_give_are_named():
    class Unbounded(Likelihood):
        def forward(self, z, y=None):
            return dist.Normal(0.0, self.call_network(z, y)).to_event(1)

    part = Unbounded(nn.Linear(2, 4), 4)
    part.network.bias.data.fill_(-100.0)
    with pytest.raises(
        InvalidParameterError, match="'scale' of its Normal must be above 0, got -100.$"
    ):
        part(torch.zeros(3, 2))
    with pytest.raises(InvalidParameterError, match="of z from 0 to 0"):
        part(z=torch.zeros(3, 2))


def test_other_errors_pass_unchanged():
    vae = binary_vae()
    with pytest.raises(ValueError, match="'x' must have the shape") as caught:
        vae.encode(torch.zeros(3, 3))
    assert type(caught.value) is ValueError


def test_the_error_of_the_distribution_is_the_cause(huge):
    with pytest.raises(InvalidParameterError) as caught:
        make_vae(encoder=overflowing(4, 4)).encode(huge)
    assert "Expected parameter loc" in str(caught.value.__cause__)
