"""Classes of the user that return something wrong, each with its sentence."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_vae import (
    MLP,
    VAE,
    DiagNormalPosterior,
    FlowPrior,
    LearnedScale,
    NormalLikelihood,
    StandardNormalPrior,
)
from pyro_vae.parts import ConditionalNormalPrior, EncoderInput, Flow, Likelihood, Posterior, Prior
from pyro_vae.parts.likelihoods import Scale


def make_vae(prior=None, likelihood=None, posterior=None, **kwargs):
    return VAE(
        prior or StandardNormalPrior(2),
        likelihood or NormalLikelihood(nn.Linear(2, 5), 5),
        posterior or DiagNormalPosterior(nn.Linear(5, 4), 5, 2),
        **kwargs,
    )


def own(base, *args, **members):
    """Return an object of a subclass named Own, with these functions as methods."""
    return type("Own", (base,), members)(*args)


def with_network(function):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 4)

        def forward(self, x):
            return function(self.layer(x))

    return lambda: make_vae(posterior=DiagNormalPosterior(Own(), 5, 2))


def with_likelihood(function, **members):
    return lambda: make_vae(
        likelihood=own(Likelihood, nn.Linear(2, 5), 5, forward=function, **members)
    )


def with_posterior(function):
    return lambda: make_vae(posterior=own(Posterior, nn.Linear(5, 2), 5, 2, forward=function))


def with_prior(function, **members):
    return lambda: make_vae(prior=own(Prior, 2, forward=function, **members))


def with_scale(function, num_outputs=0):
    def make():
        network = nn.Linear(2, 5 * (1 + num_outputs))
        scale = own(Scale, num_outputs, forward=function)
        return make_vae(likelihood=NormalLikelihood(network, 5, scale=scale))

    return make


def with_input(function):
    def make():
        network = own(EncoderInput, nn.Linear(5, 4), 5, transform=function)
        return make_vae(posterior=DiagNormalPosterior(network, 5, 2))

    return make


def with_flow(function):
    return lambda: FlowPrior(2, own(Flow, transforms=function))


def normal(part, z, y=None):
    return dist.Normal(part.call_network(z, y), 1.0).to_event(1)


def two_normals(part, y=None):
    return dist.Normal(torch.zeros(2), 1.0)


class WithoutInit(Prior):
    def __init__(self):
        nn.Module.__init__(self)

    forward = two_normals


def test_parts_without_numbers_are_not_tried():
    with torch.device("meta"):
        vae = make_vae()
    vae.to_empty(device="cpu").load_state_dict(make_vae().state_dict())
    assert vae.sample(3).isfinite().all()


NETWORK = "^'network' of DiagNormalPosterior, an Own, must "
POSTERIOR = "^'posterior', a DiagNormalPosterior, must make a distribution from rows of the shape "
SCALE = "^'likelihood', a NormalLikelihood, must make .* but its 'scale', an Own, "
ABOVE_0 = r"must return numbers above 0 that broadcast to \(rows, 5\), got "
FLOW = "^'transforms' of Own must return a module that gives a transform of vectors of 2, .* got "

WRONG_PARTS = [
    (with_network(lambda out: (out, out)), NETWORK + "return one tensor of 4 .* got a tuple of 2"),
    (with_network(lambda out: {"loc": out}), NETWORK + "return .* got a dict of 1"),
    (with_network(lambda out: None), NETWORK + "return .* got None"),
    (with_network(lambda out: out.detach().numpy()), NETWORK + "return .* got an array of the"),
    (with_network(lambda out: dist.Normal(out, 1.0)), NETWORK + r"return .* got Normal\("),
    (with_network(lambda out: out.long()), NETWORK + "return .* got one of torch.int64"),
    (with_network(lambda out: out.mean(0)), NETWORK + r"give 4 .* got the shape \(4,\) for 2 rows"),
    (with_network(lambda out: out.T), NETWORK + r"give 4 numbers .* got the shape \(4, 2\)"),
    (with_network(lambda out: out.sum()), NETWORK + r"give 4 numbers .* got the shape \(\)"),
    (with_network(lambda out: out * torch.nan), POSTERIOR + ".* 'network', an Own, gives NaN"),
    (with_network(lambda out: out.foo), POSTERIOR + ".* an Own, fails for .* AttributeError: 'T"),
    (
        lambda: VAE(
            StandardNormalPrior(2),
            NormalLikelihood(nn.Linear(2, 64), (1, 8, 8)),
            DiagNormalPosterior(nn.Sequential(nn.Linear(64, 4)), (1, 8, 8), 2),
        ),
        POSTERIOR + r".*'network.0', a Linear, .* takes 64 numbers a row, so put nn.Flatten\(\)",
    ),
    (
        lambda: make_vae(posterior=DiagNormalPosterior(nn.Linear(5, 4).double(), 5, 2)),
        POSTERIOR + ".* of the dtype torch.float32 of the other parts, got weights of .*float64",
    ),
    (
        with_likelihood(lambda part, z, y=None: part.call_network(z, y)),
        "^'likelihood', an Own, must return a Pyro distribution, got a tensor of the shape",
    ),
    (
        with_likelihood(lambda part, z, y=None: dist.Normal(part.call_network(z, y), 1.0)),
        r"^'likelihood', an Own, must return .* the event shape \(5,\), got .*: add .to_event\(1\)",
    ),
    (
        with_likelihood(lambda part, z: normal(part, z)),
        r"^'likelihood', an Own, must define forward\(self, z, y=None\), got \(z\)",
    ),
    (
        with_likelihood(lambda part, z, y=None: normal(part, z.reshape(len(z), -1))),
        "^'likelihood', an Own, must make .* with 3 draws in front, .* 'network', a Linear, fails",
    ),
    (
        with_likelihood(lambda part, z, y=None: normal(part, {}["z"])),
        "^'likelihood', an Own, must make a distribution .* but fails: KeyError: 'z'",
    ),
    (
        with_posterior(lambda part, x, y=None: normal(part, x) and None),
        "^'posterior', an Own, must return a Pyro distribution, got None",
    ),
    (
        with_posterior(
            lambda part, x, y=None: dist.Normal(0.0, part.call_network(x) - 9).to_event(1)
        ),
        "^'posterior', an Own, makes no .*: 'scale' of its Normal must be above 0, got -[0-9.]*$",
    ),
    (with_prior(two_normals), r"^'prior', an Own, must return .*, got \(2,\) and \(\): add .to_ev"),
    (
        with_prior(
            lambda part, y=None: torch.distributions.MultivariateNormal(
                torch.zeros(2), torch.eye(2)
            )
        ),
        "^'prior', an Own, must return .* got a MultivariateNormal of torch: take that of pyro",
    ),
    (
        with_prior(lambda part, y=None: dist.Normal(torch.zeros(40, 2), 1.0).to_event(1)),
        r"^'prior', an Own, must return .* batch shape \(\) .* got \(40,\) and \(2,\)",
    ),
    (with_prior(two_normals, context_dim="3"), "^'prior', an Own, must have a whole number of"),
    (
        lambda: make_vae(prior=WithoutInit()),
        r"^'prior', a WithoutInit, must call super\(\).__init__\(\) of Prior .* sets latent_dim",
    ),
    (with_scale(lambda scale: -torch.ones(5)), SCALE + ABOVE_0 + "-1"),
    (with_scale(lambda scale: torch.ones(3)), SCALE + ABOVE_0 + r"the shape \(3,\)"),
    (with_scale(lambda scale: None), SCALE + ABOVE_0 + "None"),
    (with_scale(lambda scale: torch.ones(5), 1), SCALE + "fails for .* takes 1 positional argu"),
    (
        lambda: make_vae(likelihood=NormalLikelihood(nn.Linear(2, 5), 5, scale=LearnedScale(3))),
        r"^'likelihood', .* 'scale', a LearnedScale, .* got the shape \(3,\)",
    ),
    (
        with_input(lambda step, x: np.log1p(x.numpy())),
        "^'transform' of Own must return one tensor .* as x",
    ),
    (with_input(lambda step, x: None), "^'transform' of Own must return .* got None"),
    (with_input(lambda step, x: x.mean(0)), r"^'transform' of Own must return as many rows as .*"),
    (with_input(lambda step, x: x[:, :3]), POSTERIOR + ".*'network.network', a Linear behind an O"),
    (with_input(lambda step, x: x.log()), POSTERIOR + r".* 'network', an Own, gives infinity|NaN"),
    (with_flow(lambda flow, dim, context_dim=0: nn.Linear(2, 2)), FLOW + "a Linear, which fails"),
    (with_flow(lambda flow, dim, context_dim=0: None), FLOW + "None"),
    (with_flow(lambda flow, dim: None), r"^Own must define transforms\(self, dim, context_dim=0"),
    (
        lambda: NormalLikelihood(MLP, 5),
        "^'network' must be a torch module, .* got the class MLP, which fails",
    ),
    (
        lambda: ConditionalNormalPrior(2, 3, nn.LSTM(3, 4))(torch.eye(3)),
        "^'network' of ConditionalNormalPrior, an LSTM, must return .* got a tuple of 2",
    ),
    (
        lambda: with_likelihood(normal, check=lambda part, x: False)().elbo(torch.zeros(3, 5)),
        "^'check' of Own must return None, and raise a ValueError for rows that it refuses, got False",
    ),
    (
        lambda: make_vae(
            likelihood=own(Likelihood, nn.Linear(2, 5), 5, forward=normal, filler="zero"),
            missing="nan",
        ),
        r"^'filler' of Own must be a number, or a tensor that broadcasts to \(5,\), got 'zero'",
    ),
]


@pytest.mark.parametrize(("make", "sentence"), WRONG_PARTS)
def test_what_a_class_of_the_user_returns_is_checked_when_it_joins_a_vae(make, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 330


def test_a_link_of_another_shape_is_refused():
    part = own(Likelihood, nn.Linear(2, 5), 5, forward=normal, link=lambda part, x: x.new_ones(3))
    part.network.output_bias = part.network.bias
    with pytest.raises(
        ValueError, match=r"^'link' of Own must return a tensor of the shape \(5,\)"
    ):
        part.initialize_bias(torch.zeros(5))


def test_a_part_of_another_dtype_than_its_input_is_named():
    vae = make_vae()
    vae.posterior.double()
    sentence = "^'posterior', a DiagNormalPosterior, has weights of torch.float64, got x of torch.f"
    with pytest.raises(ValueError, match=sentence):
        vae.encode(torch.zeros(3, 5))


@pytest.mark.parametrize("value", [[0.0, 0.0], np.zeros((3, 2)), None])
def test_a_part_that_is_called_without_a_tensor_says_so(value):
    with pytest.raises(TypeError, match="^'z' must be a tensor for a NormalLikelihood, got "):
        NormalLikelihood(nn.Linear(2, 5), 5)(value)


def test_a_trial_leaves_no_hooks_behind():
    network = nn.Linear(3, 4)
    with pytest.raises(ValueError, match="takes 3 numbers a row"):
        make_vae(posterior=DiagNormalPosterior(network, 5, 2))
    assert not network._forward_hooks
    assert not network._forward_pre_hooks
