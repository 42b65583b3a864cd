"""What an encoder sees of x: the units, their constants from the training rows, and that x itself stays what is scored."""

import copy
from functools import cache, partial

import numpy as np
import pytest
import torch
import yaml
from test_combinations import LIKELIHOOD_ARGUMENTS
from test_missing import TABLE
from test_posteriors import POSTERIORS
from test_scripts import call
from torch import nn

import pyro_vae as pv
from pyro_vae import (
    MLP,
    VAE,
    AsIs,
    ByColumn,
    Composed,
    DiagNormalPosterior,
    Divided,
    EncoderInput,
    Log1p,
    NormalLikelihood,
    Rows,
    Standardized,
    StandardNormalPrior,
    VampPrior,
    WithMask,
    initialize,
)
from pyro_vae.data.moments import center_and_unit, moments
from pyro_vae.parts.contracts import as_given, as_seen, start_inputs
from pyro_vae.parts.finite import HIGHEST_LOG, held
from pyro_vae.runs import build_vae, instantiate, read_preset, settings_parser

NAN = torch.nan
ONE = nn.Identity()


class SquareRoot(EncoderInput):
    """One of a user's own."""

    def transform(self, x):
        return x.sqrt()


INPUTS = {
    "as is": lambda network, x_shape: AsIs(network, x_shape),
    "divided": lambda network, x_shape: Divided(network, x_shape),
    "divided by 255": lambda network, x_shape: Divided(network, x_shape, highest=255),
    "log1p": lambda network, x_shape: Log1p(network, x_shape),
    "standardized": lambda network, x_shape: Standardized(network, x_shape),
    "standardized logs": lambda network, x_shape: Log1p(
        lambda shape: Standardized(network, shape), x_shape
    ),
    "composed": partial(Composed, steps=[Divided, Log1p, Standardized]),
    "by column": partial(
        ByColumn, sizes=[1, 2], groups=[AsIs, partial(Composed, steps=[Log1p, Standardized])]
    ),
}


@pytest.fixture(params=INPUTS)
def make_input(request):
    return INPUTS[request.param]


def counts(num_rows=50):
    return torch.poisson(torch.tensor([1.0, 1e3, 2.4e6]).expand(num_rows, 3))


def started(make, x, network=ONE):
    module = make(network=network, x_shape=x.shape[1:])
    start_inputs(module, [x[:20], x[20:]])
    return module


# What is seen


def test_every_input_can_be_undone(make_input):
    x = counts()
    module = started(make_input, x)
    torch.testing.assert_close(as_given(module, as_seen(module, x)), x, rtol=1e-4, atol=1e-4)


def test_every_input_shows_zero_for_a_missing_entry_after_the_transform(make_input):
    x = counts()
    x[::3, 1] = NAN
    seen = started(make_input, x)(x)
    assert (seen[::3, 1] == 0).all()
    assert seen.isfinite().all()
    torch.testing.assert_close(
        seen[:, [0, 2]], started(make_input, x)(x.nan_to_num(7.0))[:, [0, 2]]
    )


def test_what_is_seen_with_the_mask_has_zero_at_the_mean_and_the_mask_beside(make_input):
    x = counts()
    x[::3, 1] = NAN
    module = started(make_input, x, network=WithMask(ONE))
    values, mask = module(x).split(3, dim=1)
    torch.testing.assert_close(values, started(make_input, x)(x))
    assert torch.equal(mask, (~x.isnan()).float())


def test_the_constants_are_those_of_the_training_rows_and_in_the_state_dict(make_input):
    x = counts()
    module, other = started(make_input, x), make_input(network=ONE, x_shape=(3,))
    other.load_state_dict(module.state_dict())
    assert torch.equal(module(x), other(x))
    assert not list(module.parameters())


def test_standardised_rows_have_mean_zero_and_standard_deviation_one():
    x = 1e5 * torch.randn(400, 3, dtype=torch.float64) * torch.tensor([1e-9, 1.0, 1e4]) + 1e5
    seen = started(Standardized, x.float().double(), network=nn.Identity().double())
    seen = seen.double()(x)
    torch.testing.assert_close(
        seen[:, 1:].mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(seen[:, 1:].std(0, correction=0), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("value", [0.0, 5e5, -3.0])
def test_a_constant_column_is_seen_as_zero(value):
    x = torch.randn(30, 2)
    x[:, 1] = value
    seen = started(Standardized, x)(x)
    assert (seen[:, 1] == 0).all()
    assert started(Standardized, x)(x + value)[:, 1].abs().max() <= 1


def test_the_pixels_of_a_channel_share_their_unit():
    x = torch.zeros(100, 2, 3, 3)
    x[0, 0, 0, 0] = 1.0  # rarely on
    x[:, 0, 1] = torch.rand(100, 3)
    x[:, 1] = 1e4 * torch.rand(100, 3, 3)
    seen = started(Standardized, x)(x)
    assert seen.abs().max() < 10
    torch.testing.assert_close(seen.std((0, 2, 3), correction=0), torch.ones(2))


def test_moments_are_those_of_all_observed_entries_whatever_the_blocks():
    x = torch.randn(90, 4, dtype=torch.float64) + 1e6
    x[torch.rand(90, 4) < 0.3] = NAN
    x[:, 3] = NAN
    x[0, 3] = 2.0
    x[:40, 2] = NAN
    expected = np.nanmean(x.numpy(), 0), np.nanstd(x.numpy(), 0)
    for sizes in (90, 7, 1):
        for received, wanted in zip(moments(list(x.split(sizes))), expected, strict=True):
            torch.testing.assert_close(received, torch.from_numpy(wanted), rtol=1e-9, atol=1e-9)


def test_what_never_is_observed_has_the_unit_one():
    center, unit = center_and_unit(*moments([torch.full((4, 2), NAN)]))
    assert (center.tolist(), unit.tolist()) == ([0, 0], [1, 1])


def test_negative_numbers_have_logs_too():
    x = torch.tensor([[-1e6, -0.5, 0.0, 0.5, NAN]])
    seen = Log1p(ONE).transform(x)
    assert torch.equal(seen[0, :4], -seen[0, [0, 1, 2, 3]].neg())
    assert (seen[0, 0] < -13, seen[0, 1].item()) == (True, pytest.approx(-0.405465))
    assert seen[0, 4].isnan()


def test_nothing_is_invented_where_a_transform_of_the_users_own_makes_nan():
    with pytest.raises(
        ValueError, match="'transform' of SquareRoot must make finite numbers of the training rows"
    ):
        start_inputs(SquareRoot(ONE), [torch.tensor([[1.0], [-1.0]])])
    start_inputs(SquareRoot(ONE), [torch.tensor([[1.0], [NAN]])])


@pytest.mark.parametrize("highest", [0, -1.0, NAN, float("inf")])
def test_a_divisor_must_be_positive(highest):
    with pytest.raises(
        ValueError, match="'highest' of Divided must be greater than 0, and finite, got"
    ):
        Divided(ONE, highest=highest)


def test_a_network_that_is_to_be_made_needs_the_shape():
    with pytest.raises(
        ValueError, match="'x_shape' of Log1p must be given where 'network' is a function"
    ):
        Log1p(lambda shape: ONE)


def test_groups_must_add_up():
    with pytest.raises(
        ValueError,
        match=r"'sizes' must have a number for each of 1 groups, which add up to x_shape = 3",
    ):
        ByColumn(ONE, 3, sizes=[2], groups=[AsIs])


# In a VAE


def normal_vae(x, encoder, prior=None, missing=None):
    decoder = NormalLikelihood(MLP(2, [4], 3), 3)
    return VAE(
        prior or StandardNormalPrior(2), decoder, DiagNormalPosterior(encoder, 3, 2), missing
    )


def test_the_units_of_x_change_nothing_of_what_a_standardised_encoder_gives():
    x, unit, shift = (
        torch.randn(60, 3),
        torch.tensor([1e-4, 1.0, 1e5]),
        torch.tensor([0.0, 100.0, -1e5]),
    )
    vae = normal_vae(x, Standardized(MLP(3, [4], 4), 3))
    other = copy.deepcopy(vae)
    initialize(vae, x)
    initialize(other, x * unit + shift)
    torch.testing.assert_close(
        other.encode(x * unit + shift).mean, vae.encode(x).mean, rtol=1e-3, atol=1e-3
    )


def test_x_itself_is_what_is_scored():
    x = torch.randn(5, 3)
    vae = normal_vae(x, Standardized(MLP(3, [4], 4), 3))
    z = torch.randn(5, 2)
    before = vae.log_likelihood(x, z)
    start_inputs(vae.posterior.network, [10 * x])
    assert torch.equal(vae.log_likelihood(x, z), before)


def test_starting_changes_no_random_state_and_repeats_its_draws():
    rows = Rows(torch.randint(256, (100, 3), dtype=torch.uint8), pv.DynamicDraw(), 255)
    vae = normal_vae(None, Standardized(MLP(3, [4], 4), 3))
    torch.manual_seed(5)
    initialize(vae, rows)
    first, drawn = vae.posterior.network.unit.clone(), torch.rand(())
    torch.manual_seed(5)
    assert torch.equal(torch.rand(()), drawn)
    initialize(vae, rows)
    assert torch.equal(vae.posterior.network.unit, first)


def test_rows_of_another_shape_are_refused_before_anything_starts():
    vae = normal_vae(None, Standardized(MLP(3, [4], 4), 3))
    with pytest.raises(ValueError, match=r"'data' must have rows of the shape \(3,\), got \(4,\)"):
        initialize(vae, torch.randn(9, 4))
    assert (vae.posterior.network.unit == 1).all()


def test_a_network_with_an_input_inside_another_is_refused():
    network = nn.Sequential(Standardized(nn.Linear(3, 4), 3), nn.Tanh(), nn.Linear(4, 4))
    with pytest.raises(
        ValueError, match="'network' must be an EncoderInput, such as WithMask, as a whole"
    ):
        DiagNormalPosterior(network, 3, 2)


def test_an_encoder_that_sees_large_numbers_is_told_of_before_training():
    x = torch.randn(40, 3) * torch.tensor([1.0, 1.0, 1e4])
    training = pv.Training(epochs=1, batches=pv.Shuffled(20))
    with pytest.warns(
        UserWarning,
        match="The encoder sees numbers up to [0-9.]+, .*: put Standardized, .* call initialize",
    ):
        pv.fit(normal_vae(x, MLP(3, [4], 4)), x, training)
    vae = normal_vae(x, Standardized(MLP(3, [4], 4), 3))
    initialize(vae, x)
    pv.fit(vae, x, training)


# VampPrior


@pytest.mark.parametrize("missing", [None, "nan"])
def test_the_pseudo_inputs_live_in_the_units_of_what_the_encoder_sees(make_input, missing):
    x = counts()
    if missing:
        x[::4, 1] = NAN
    network = WithMask(MLP(6, [4], 4)) if missing else MLP(3, [4], 4)
    prior = VampPrior(2, 8, noise=0.01)
    vae = normal_vae(x, make_input(network=network, x_shape=(3,)), prior, missing)
    initialize(vae, x)
    prior.initialize(x)
    noise = prior.pseudo_inputs - as_seen(vae.posterior.network, x[:8]).nan_to_num(0.0)
    assert 0.003 < noise.std() < 0.03
    torch.testing.assert_close(
        as_seen(vae.posterior.network, as_given(vae.posterior.network, prior.pseudo_inputs)),
        prior.pseudo_inputs,
        rtol=1e-3,
        atol=2e-3,
    )
    components = prior().component_distribution
    if not missing:
        torch.testing.assert_close(components.mean, vae.encode(x[:8]).mean, rtol=0.1, atol=0.05)


def test_a_vamp_prior_of_images_sees_grey_where_it_saw_black():
    x = torch.randint(256, (8, 1, 4, 4)).float()
    posterior = DiagNormalPosterior(Divided(MLP(16, [8], 4), highest=255), (1, 4, 4), 2)
    prior = VampPrior(2, 8)
    vae = VAE(prior, pv.BinomialLikelihood(MLP(2, [8], 16), (1, 4, 4), 255), posterior)
    vae.prior.initialize(x)
    torch.testing.assert_close(prior.pseudo_inputs.detach(), x / 255, atol=0.05, rtol=0)
    vae.elbo(x).sum().backward()
    assert prior.pseudo_inputs.grad.abs().sum() > 0


def test_a_vamp_prior_behind_an_input_without_inverse_is_refused():
    with pytest.raises(ValueError, match="SquareRoot defines no 'inverse' for a VampPrior"):
        normal_vae(None, SquareRoot(MLP(3, [4], 4)), VampPrior(2, 3))


# Finite parameters


@pytest.mark.parametrize("size", [1e2, 1e5, 1e20])
@pytest.mark.parametrize("name", POSTERIORS)
def test_no_finite_output_of_a_network_makes_a_posterior_infinite(name, size):
    posterior = POSTERIORS[name](nn.Identity(), 6, 3)
    network = nn.Linear(6, posterior.out_shape.numel())
    nn.init.normal_(network.weight)
    posterior.network = network
    q_z = posterior(size * torch.randn(200, 6))
    z = q_z.rsample()
    assert z.isfinite().all()
    if name != "affine flow":
        assert q_z.log_prob(z).isfinite().all()


def test_what_is_held_is_exact_in_its_range_and_has_a_gradient_everywhere():
    log = torch.tensor([-3.0, 0.0, HIGHEST_LOG, HIGHEST_LOG + 0.5, 1e30], requires_grad=True)
    received = held(log, HIGHEST_LOG)
    assert torch.equal(received, log.clamp(max=HIGHEST_LOG))
    (slope,) = torch.autograd.grad(received.exp().sum(), log, create_graph=True)
    assert torch.equal(slope, received.exp())
    each = torch.vmap(torch.func.grad(lambda x: held(x, HIGHEST_LOG).exp()))(log)
    assert torch.equal(each, slope)
    assert held(torch.tensor(torch.inf), HIGHEST_LOG) == HIGHEST_LOG
    assert held(torch.tensor(-torch.inf), 1.0, -2.0) == -2


# From the settings


SUITED = {
    "BernoulliLikelihood": [],
    "BetaLikelihood": [],
    "BinomialLikelihood": [Standardized],
    "ContinuousBernoulliLikelihood": [],
    "DiscretizedLogisticLikelihood": [Standardized],
    "DiscretizedLogisticMixtureLikelihood": [Standardized],
    "LaplaceLikelihood": [Standardized],
    "NegativeBinomialLikelihood": [Composed, Log1p, Standardized],
    "NormalLikelihood": [Standardized],
    "OneHotCategoricalLikelihood": [],
    "PoissonLikelihood": [Composed, Log1p, Standardized],
    "ProductLikelihood": [ByColumn],
    "StudentTLikelihood": [Standardized],
    "ZeroInflatedNegativeBinomialLikelihood": [Composed, Log1p, Standardized],
}


@cache
def parser(preset):
    return settings_parser(read_preset(preset)[0])


def built(*arguments, preset="digits", x_shape=(1, 4, 4)):
    settings = instantiate(parser(preset), parser(preset).parse_args(list(arguments)))
    return build_vae(settings.vae, x_shape)


MASK = ("--vae.missing", "nan", "--vae.encoder_sees_mask", "true")


def kinds(vae):
    found, network = [], vae.posterior.network
    while isinstance(network, EncoderInput):
        found.append(type(network))
        network = network.network
    return found


def test_no_likelihood_is_forgotten():
    assert set(SUITED) == set(LIKELIHOOD_ARGUMENTS)


@pytest.mark.parametrize("name", SUITED)
def test_what_the_encoder_sees_suits_the_likelihood(name):
    values = LIKELIHOOD_ARGUMENTS[name]
    options = [
        word
        for option, value in zip(values[::2], values[1::2], strict=True)
        for word in (f"--vae.likelihood.{option}", value)
    ]
    x_shape = (16,) if name == "ProductLikelihood" else (1, 4, 4)
    vae = built("--vae.likelihood", name, *options, *MASK, x_shape=x_shape)
    assert kinds(vae) == [*SUITED[name], WithMask]


@pytest.mark.parametrize(
    "preset", ["onehot", "mnist-20d", "mnist-2d", "mnist-dynamic-2d", "mnist-10d", "mnist-gated"]
)
def test_a_reference_system_sees_x_as_it_is(preset):
    vae = built(preset=preset, x_shape=(4,) if preset == "onehot" else (1, 28, 28))
    assert kinds(vae) == []
    assert not any("network.network" in name for name in vae.state_dict())


def test_the_input_is_chosen_by_class_on_the_command_line():
    assert kinds(built("--vae.encoder_sees", "AsIs")) == []
    assert (
        built(
            "--vae.encoder_sees", "Divided", "--vae.encoder_sees.highest", "4"
        ).posterior.network.highest
        == 4
    )
    composed = (
        "--vae.encoder_sees",
        "Composed",
        "--vae.encoder_sees.steps",
        "[Log1p, Standardized, WithMask]",
    )
    vae = built(*composed, "--vae.missing", "nan")
    assert kinds(vae) == [Composed, Log1p, Standardized, WithMask]
    with pytest.raises(
        ValueError,
        match="'vae.encoder_sees' accepts .*EncoderInput .*the nearest is 'Standardized'",
    ):
        built("--vae.encoder_sees", "Standardised")


@pytest.fixture
def wide_table(tmp_path):
    np.save(tmp_path / "table.npy", 1e5 * np.random.default_rng(0).normal(size=(200, 3)) + 1e5)
    return tmp_path


def test_the_constants_travel_with_the_run(wide_table):
    assert call(wide_table, "train", *TABLE).code == 0
    network = pv.load(wide_table / "run").posterior.network
    torch.testing.assert_close(network.unit, torch.full((3,), 1e5), rtol=0.2, atol=0)
    x = torch.from_numpy(np.load(wide_table / "table.npy")).float()
    assert network.seen(x).abs().max() < 6


@pytest.mark.slow
def test_a_run_of_format_1_sees_x_as_it_is_loaded_and_resumed(wide_table):
    np.save(wide_table / "table.npy", np.load(wide_table / "table.npy") / 1e5)
    assert call(wide_table, "train", *TABLE, "--vae.encoder_sees", "AsIs").code == 0
    file = wide_table / "run" / "settings.yaml"
    tree = yaml.safe_load(file.read_text())
    del tree["vae"]["encoder_sees"]
    file.write_text(yaml.safe_dump(tree))
    with pytest.raises(ValueError, match="must hold the weights of this VAE, but does not"):
        pv.load(wide_table / "run")  # of format 3, without a word on it
    info = wide_table / "run" / "run.json"
    info.write_text(info.read_text().replace('"format": 3', '"format": 1'))
    assert kinds(pv.load(wide_table / "run")) == []
    ended = call(wide_table, "train", *TABLE, "--resume", "--training.epochs", "2")
    assert ended.code == 0, ended.err
