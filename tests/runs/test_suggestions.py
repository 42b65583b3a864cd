"""Suggestions for a name that is no setting: true ones, or none."""

import pytest

from pyro_vae.runs import read_preset, settings_parser

NEAR = {
    "--lr": "; the nearest is '--training.optimizer.lr'",
    "--training.lr": "; the nearest is '--training.optimizer.lr'",
    "--seed": "; the nearest is '--data.seed' or '--training.seed'",
    "--hidden": "; the nearest is '--vae.decoder.hidden' or '--vae.encoder.hidden'",
    "--batch_size": "; the nearest is '--training.batches.size'",
    "--batch-size": "; the nearest is '--training.batches.size'",
    "--epochs": "; the nearest is '--training.epochs'",
    "--Training.Epochs": "; the nearest is '--training.epochs'",
    "--optim": "; the nearest is '--training.optimizer'",
    "--vae.latent_dims": "; the nearest is '--vae.latent_dim'",
}
FAR = [
    "--learning_rate",
    "--out",
    "--zzz",
    "-v",
    "--",
    "--num_rows",
    "onehot",
    "--gpu",
    "--name",
    "-x",
]


@pytest.fixture(scope="module")
def parser():
    defaults, _ = read_preset("digits")
    return settings_parser(defaults)


@pytest.mark.parametrize("name", [*NEAR, *FAR])
def test_a_name_that_is_no_setting_is_told_the_nearest_or_none(parser, name):
    with pytest.raises(ValueError, match="is no setting") as caught:
        parser.parse_args([name, "1"])
    assert str(caught.value) == f"'{name}' is no setting{NEAR.get(name, '')}."
