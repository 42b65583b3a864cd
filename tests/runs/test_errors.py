"""Errors of settings name the setting by its whole path, and a class that cannot be made."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from pyro.infer import Trace_ELBO, TraceTailAdaptive_ELBO

from pyro_vae.runs import (
    build_vae,
    check_settings,
    instantiate,
    read_preset,
    settings_parser,
    used_from,
    whole_names,
)

TREE = {
    "data": {"seed": 3, "source": {"class_path": "A", "init_args": {"path": "x.npy"}}},
    "training": {"seed": -1, "epochs": 10, "kl_schedule": {"init_args": {"epochs": -3.0}}},
    "vae": {"decoder": {"hidden": [8]}, "encoder": {"hidden": [8]}, "latent_dim": 2},
}


@pytest.mark.parametrize(
    ("message", "whole"),
    [
        ("'seed' must be 0 or more, got -1.", "'training.seed' must be 0 or more, got -1."),
        (
            "'epochs' of A must be above 0, got -3.0.",
            "'training.kl_schedule.epochs' of A must be above 0, got -3.0.",
        ),
        ("'path' must be a file.", "'data.source.path' must be a file."),
        ("'latent_dim' is wrong.", "'vae.latent_dim' is wrong."),
        (
            "'hidden' is wrong, got [8].",
            "'hidden' is wrong, got [8].",
        ),  # two of them have the value
        ("'data' must be finite.", "'data' must be finite."),
        ("'x' must be 0 or 1.", "'x' must be 0 or 1."),
        ("No name here.", "No name here."),
    ],
)
def test_a_setting_is_named_by_its_whole_path_if_only_one_can_be_meant(message, whole):
    with pytest.raises(ValueError, match=".") as caught, whole_names(TREE):
        raise ValueError(message)
    assert str(caught.value) == whole


@pytest.fixture(scope="module")
def settings():
    defaults, _ = read_preset("digits")
    parser = settings_parser(defaults)
    return instantiate(parser, parser.parse_args([]))


def test_a_class_of_a_library_that_cannot_be_made_is_named_by_its_setting(settings):
    wrong = partial(torch.optim.Adam, betas=(2.0, 3.0))
    wrong = replace(settings, training=replace(settings.training, optimizer=wrong))
    with pytest.raises(ValueError, match="^'training.optimizer' cannot be made: Invalid beta"):
        check_settings(wrong)


def test_a_fault_in_the_users_own_class_stays_as_it_is(settings):
    def prior(latent_dim):
        raise TypeError("bug")

    wrong = replace(settings, vae=replace(settings.vae, prior=prior))
    with pytest.raises(TypeError, match="^bug$"):
        check_settings(wrong)


def test_a_sentence_of_the_package_stays(settings):
    wrong = replace(settings, vae=replace(settings.vae, latent_dim=0))
    with pytest.raises(ValueError, match="^'latent_dim' must be a whole number"):
        check_settings(wrong)


def settings_from(*arguments):
    defaults, _ = read_preset("digits")
    parser = settings_parser(defaults)
    return instantiate(parser, parser.parse_args(list(arguments)))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--vae.encoder=ConvEncoder"], r"'vae.encoder' cannot be ConvEncoder: its in_shape must"),
        (["--vae.encoder=ConvDecoder"], r"'vae.encoder' cannot be ConvDecoder: its out_shape must"),
        (["--vae.decoder=ConvDecoder"], r"'vae.decoder' cannot be ConvDecoder: its out_shape must"),
        (
            ["--vae.decoder.activation=torch.nn.GLU"],
            "'vae.decoder' makes a network that fails: its ",
        ),
        (["--vae.encoder=torch.nn.Identity"], "'vae.encoder' must give 4 numbers for each row"),
        (
            ["--vae.encoder.activation=torch.nn.GLU"],
            "'vae.encoder' makes a network that fails: its ",
        ),
    ],
)
def test_the_setting_of_a_network_is_named_if_the_other_parts_do_not_suit_it(arguments, sentence):
    settings = settings_from(*arguments)
    with pytest.raises(ValueError, match=f"^{sentence}"):
        build_vae(settings.vae, (6,))


def test_an_object_of_a_library_that_cannot_be_made_is_named_by_its_setting():
    arguments = ("--training.objective=RenyiELBO", "--training.objective.alpha=1")
    with pytest.raises(ValueError, match="^'training.objective' cannot be made: The order alpha"):
        settings_from(*arguments)


def test_the_setting_of_an_object_that_a_library_cannot_use_is_named():
    trace = Trace_ELBO(num_particles=2)
    with (
        pytest.raises(ValueError, match=r"^'training.objective' cannot be used: \w"),
        used_from("training.objective", "pyro.infer"),
    ):
        TraceTailAdaptive_ELBO().loss(None, None)
    with pytest.raises(TypeError), used_from("training.objective", "pyro.infer"):
        trace.loss(1)
    with pytest.raises(ValueError, match="^mine$"), used_from("training.objective", "pyro.infer"):
        raise ValueError("mine")
