"""The preset for the user's own colour images: its folder must be given, and then it trains."""

import numpy as np
import pytest
import torch
from test_scripts import call

from pyro_vae.runs import build_vae, read_preset, settings_parser
from pyro_vae.runs.settings import instantiate

SOURCE = "data.source"


def settings_with(*arguments):
    parser = settings_parser(read_preset("rgb-32")[0])
    return instantiate(parser, parser.parse_args(list(arguments)))


def test_the_folder_must_be_given_before_anything_is_written(tmp_path):
    ended = call(tmp_path, "train", "rgb-32", "--run", "run")
    assert (ended.code, ended.err) == (2, "error: 'data.source.path' must be given, got none.\n")
    assert list(tmp_path.iterdir()) == []


def test_it_reads_images_of_any_size_and_scores_their_levels(tmp_path):
    image = pytest.importorskip("PIL.Image")
    generator = np.random.default_rng(0)
    for number in range(5):
        pixels = generator.integers(256, size=(40, 36 + number, 3), dtype=np.uint8)
        image.fromarray(pixels).save(tmp_path / f"{number}.png")
    settings = settings_with(f"--{SOURCE}.path", str(tmp_path))
    train, _, test = settings.data.load()
    assert (train.x_shape, len(test), train.levels.dtype) == ((3, 32, 32), 1, torch.uint8)
    vae = build_vae(settings.vae, train.x_shape)
    bits = -vae.elbo(train.batch(slice(None))) / (3 * 32 * 32 * np.log(2))
    assert ((bits > 4) & (bits < 40)).all()


def test_flips_and_shifts_are_settings():
    given = ["--data.transform", "Augmented", "--data.transform.transform", "Identity"]
    settings = settings_with(f"--{SOURCE}.path", "folder", *given, "--data.transform.shift", "4")
    expected = "Augmented(transform=Identity(), horizontal_flip=True, shift=4)"
    assert repr(settings.data.transform) == expected
