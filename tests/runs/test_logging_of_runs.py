"""Loggers that settings name: they write to the run folder, and change nothing else in it."""

import pytest
from test_scripts import SMALL, assert_same_run, call

from pyro_vae import TensorBoard, load
from pyro_vae.runs import LoggingSettings, load_settings


def events(run):
    return [file.name for file in run.iterdir() if "tfevents" in file.name]


@pytest.mark.slow
def test_a_run_with_a_logger_is_the_run_without_it_and_has_a_log(tmp_path):
    train = ("train", *SMALL, "--training.epochs", 2, "--run")
    logging = ("--logging.loggers+=TensorBoard", "--logging.every", 1)
    assert call(tmp_path, *train, "plain").code == 0
    assert call(tmp_path, *train, "logged", *logging).code == 0
    assert_same_run(tmp_path / "plain", tmp_path / "logged")
    assert events(tmp_path / "plain") == []
    (first,) = events(tmp_path / "logged")
    assert len(load_settings(tmp_path / "logged").logging.loggers) == 1
    assert load(tmp_path / "logged").latent_dim == 2
    assert call(tmp_path, *train, "logged", *logging, "--overwrite").code == 0
    (second,) = events(tmp_path / "logged")  # a log of two runs would show both as one curve
    assert first != second


def test_loggers_of_settings_get_the_folder_of_the_run(tmp_path):
    report = LoggingSettings([TensorBoard], every=3).logged(tmp_path, {})
    assert [logger.folder for logger in report.loggers] == [str(tmp_path)]
    assert report.every == 3


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--logging.every=0", "'logging.every' must be a whole number of at least 1, got 0."),
        ("--logging.loggers=3", "'logging.loggers' accepts a list, got 3."),
        ("--logging.loggers+=TensorBord", "got TensorBord; the nearest is 'TensorBoard'."),
        ("--logging.loggers+=torch.nn.Linear", "accepts a subclass of Logger (TensorBoard, or"),
    ],
)
def test_a_wrong_setting_of_logging_is_refused_and_nothing_is_written(tmp_path, option, sentence):
    ended = call(tmp_path, "train", *SMALL, "--run", "run", option)
    assert ended.code == 2
    assert sentence in ended.err
    assert list(tmp_path.iterdir()) == []
