"""Errors of settings name the setting by its whole path, and a class that cannot be made."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from pyro_vae.runs import check_settings, instantiate, read_preset, settings_parser, whole_names

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
