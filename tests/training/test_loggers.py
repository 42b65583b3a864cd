"""Loggers: what they get of each epoch, and that they are closed however training ends."""

import math
import sys
from functools import partial

import pytest
import torch
from models import binary_vae

from pyro_vae import (
    Execution,
    NonFiniteLossError,
    Shuffled,
    TensorBoard,
    Training,
    fit,
    logged,
)
from pyro_vae.figures import image_grid
from pyro_vae.training.loggers import Logger

plain = partial(Training, batches=Shuffled(25), execution=Execution(trace=False))


class Kept:
    """A logger that keeps what it gets."""

    def __init__(self):
        self.numbers, self.figures, self.closed = {}, {}, 0

    def scalars(self, values, step):
        assert step not in self.numbers
        self.numbers[step] = values

    def figure(self, name, figure, step):
        self.figures.setdefault(name, {})[step] = figure

    def close(self):
        self.closed += 1


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return binary_vae()


@pytest.fixture
def x(vae):
    return vae.sample(50)


def test_each_epoch_is_passed_on_once_with_all_that_is_known_of_it(vae, x):
    first, second = Kept(), Kept()
    result = fit(vae, x, plain(epochs=3), validation=x[:20], on_epoch=logged(first, second))
    assert first.numbers == second.numbers
    assert list(first.numbers) == [1, 2, 3]
    for row in result.history:
        values = first.numbers[row.epoch]
        assert values["train_loss"] == row.train_loss
        assert values["learning_rate"] == row.learning_rate
        total = values["validation_rate"] + values["validation_distortion"]
        assert total == pytest.approx(values["validation_loss"])
        assert not any("test" in name or name == "epoch" for name in values)
        assert all(math.isfinite(value) for value in values.values())


def test_figures_are_drawn_every_few_epochs_for_each_logger(vae, x):
    drawn = []
    figures = {"epochs": lambda: drawn.append(len(drawn)) or drawn[-1]}
    first, second = Kept(), Kept()
    fit(vae, x, plain(epochs=7), on_epoch=logged(first, second, figures=figures, every=3))
    assert first.figures == second.figures == {"epochs": {3: 0, 6: 1}}


def test_a_resumed_run_logs_only_its_new_epochs(vae, x):
    kept = Kept()
    report = logged(kept)
    part = fit(vae, x, plain(epochs=2), on_epoch=report)
    fit(vae, x, plain(epochs=4), on_epoch=report, resume=part)
    fit(vae, x, plain(epochs=4), on_epoch=logged(other := Kept()), resume=part)
    assert list(kept.numbers) == [1, 2, 3, 4]
    assert list(other.numbers) == [3, 4]
    assert (kept.closed, other.closed) == (2, 1)


def test_loggers_change_nothing_in_training(vae, x):
    def fitted(**options):
        torch.manual_seed(0)
        return fit(binary_vae(), x, plain(epochs=3), **options).history

    figures = {"samples": lambda: vae.sample(2)}
    logs = logged(Kept(), figures=figures, every=1)
    for with_logger, without in zip(fitted(on_epoch=logs), fitted(), strict=True):
        assert with_logger._replace(seconds=0) == without._replace(seconds=0)


@pytest.mark.parametrize("error", [RuntimeError, NonFiniteLossError, KeyboardInterrupt])
def test_loggers_are_closed_when_training_ends_by_an_error_or_ctrl_c(vae, x, error):
    def stop(step):
        raise error("stop")

    kept = Kept()
    if error is KeyboardInterrupt:
        assert fit(vae, x, plain(), on_epoch=logged(kept), on_step=stop).outcome == "interrupted"
    else:
        with pytest.raises(error, match="stop"):
            fit(vae, x, plain(), on_epoch=logged(kept), on_step=stop)
    assert kept.closed == 1


def test_one_logger_that_cannot_close_does_not_keep_the_others_open(vae, x):
    class Broken(Kept):
        def close(self):
            raise OSError("disk full")

    first, last = Kept(), Kept()
    with pytest.raises(OSError, match="disk full"):
        fit(vae, x, plain(epochs=1), on_epoch=logged(first, Broken(), last))
    assert first.closed == last.closed == 1


@pytest.mark.parametrize("logger", [3, Kept, print])
def test_what_is_no_logger_is_refused(logger):
    with pytest.raises(ValueError, match="'loggers' must have the methods scalars, figure and clo"):
        logged(Kept(), logger)
    with pytest.raises(ValueError, match="'every' must be a whole number of at least 1, got 0"):
        logged(Kept(), every=0)


def test_tensorboard_files_hold_the_numbers_and_pictures(vae, x, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    figures = {"reconstructions": lambda: image_grid([x[:3], vae.reconstruct(x[:3])], "x")}
    report = logged(TensorBoard(tmp_path / "log"), figures=figures, every=2)
    assert not (tmp_path / "log").exists()  # before the first epoch is done
    result = fit(vae, x, plain(epochs=4), test=x, on_epoch=report)
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    for name in ("train_loss", "test_rate", "learning_rate"):
        points = [(event.step, event.value) for event in events.Scalars(name)]
        rows = [(row.epoch, pytest.approx(getattr(row, name))) for row in result.history]
        assert points == rows
    assert [image.step for image in events.Images("reconstructions")] == [2, 4]


def test_tensorboard_that_is_not_installed_is_named_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(ValueError, match="needs the package tensorboard, .*pyro_vae.tensorboard"):
        TensorBoard(tmp_path)


def test_tensorboard_is_a_logger(tmp_path):
    assert isinstance(TensorBoard(tmp_path), Logger)
