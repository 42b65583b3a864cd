"""Train a VAE: `pyro-vae train [PRESET or YAML file] [--any.setting value]`."""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

from pyro_vae import VAE, Fit, NonFiniteLossError, Rows, evaluate, fit
from pyro_vae.commands.request import Request, check_resumable, early_options, read_settings
from pyro_vae.commands.training_parser import training_parser
from pyro_vae.distributions import distribution_mean
from pyro_vae.figures import elbo_history, manifold, quantile_grid
from pyro_vae.runs import (
    INTERRUPTED,
    RunFolder,
    SentenceParser,
    check_settings,
    device,
    initialized,
    read_preset,
    used_from,
    whole_names,
)


def command_parser() -> SentenceParser:
    """Return the parser of the command line, with the default preset."""
    defaults, _ = read_preset("digits")
    return training_parser(defaults)


def main() -> int:
    """Train, or continue a run, and report on the test rows."""
    sys.path.append("")  # the settings may name classes in modules of the current folder
    arguments = sys.argv[1:]
    preset = "digits"
    if arguments and not arguments[0].startswith("-"):
        preset = arguments.pop(0)
    early = early_options(arguments)
    run = f"runs/{Path(preset).stem}" if early.run is None else early.run
    stored = None
    if early.resume:
        if early.overwrite:
            raise ValueError("'resume' continues a run and 'overwrite' replaces it: name one.")
        stored = RunFolder(run).settings(early.allow)
    request = read_settings(preset, arguments, stored)
    folder = RunFolder(run)
    folder.check_free(early.overwrite or early.resume)
    if stored is not None:
        before = read_settings(preset, [], stored)
        check_resumable(yaml.safe_load(before.text), yaml.safe_load(request.text))
    with whole_names(request.options):
        return train(request, folder)


def train(request: Request, folder: RunFolder) -> int:
    """Train, save after every epoch, and report on the test rows. Return the exit code."""
    settings = request.settings
    resume = request.options.resume
    check_settings(settings)
    rows = settings.data.read()
    record = settings.data.record(*rows)
    if resume:
        folder.check_data(record)
    splits = settings.data.split(*rows)
    earlier = folder.fit() if resume else None
    begun = len(earlier.history) if earlier else 0
    vae = initialized(settings, splits).to(device(settings.device))

    def begin() -> None:
        if resume:
            folder.save_settings(request.text, splits.train.x_shape, folder.info().data)
        else:
            folder.begin(request.text, splits.train.x_shape, record)

    run = Writer(folder, begin)

    def on_epoch(reached: Fit) -> None:
        if len(reached.history) == begun:
            announce(request, reached)
        else:
            run.save(reached, vae)

    try:
        with used_from("training.objective", "pyro.infer"):
            result = fit(
                vae,
                splits.train,
                settings.training,
                validation=splits.validation,
                test=splits.test,
                resume=earlier,
                on_epoch=on_epoch,
                progress=True,
            )
    except NonFiniteLossError as error:
        run.save_failure(error)
        raise
    if result.outcome == "interrupted" and not run.is_begun:
        print(f"Interrupted in epoch {begun + 1}, before anything was written.")
        return INTERRUPTED
    run.save(result, vae)
    epochs = "1 epoch" if len(result.history) == 1 else f"{len(result.history)} epochs"
    ended = f"{result.outcome.capitalize()} after {epochs}. The steps were {result.how}."
    print(f"{ended} The run is in {folder.path}.")
    if result.outcome == "interrupted":
        return INTERRUPTED
    report(vae, result, splits.test, folder)
    return 0


class Writer:
    """Writer of a run. The run comes into being when its first epoch is done, and not before.

    Arguments:
        folder: the run folder.
        begin: writes the settings, and removes the files of a run that is replaced.
    """

    def __init__(self, folder: RunFolder, begin: Callable[[], None]) -> None:
        self.folder = folder
        self.begin = begin
        self.is_begun = False

    def save(self, reached: Fit, vae: VAE) -> None:
        """Write what training has reached."""
        if not self.is_begun:
            self.begin()
            self.is_begun = True
        self.folder.save(reached, vae.state_dict())

    def save_failure(self, error: Exception) -> None:
        """Write the error that ended training, unless nothing is written."""
        if self.is_begun:
            self.folder.save_failure(str(error))


def announce(request: Request, reached: Fit) -> None:
    """Print the changes of the settings, once `fit` has accepted them."""
    epoch = len(reached.history) + 1
    changes = [change for change in reached.changes if change.epoch == epoch]
    for sentence in (*request.options.swaps, *changes):
        print(sentence, file=sys.stderr)


def report(vae: VAE, result: Fit, test: Rows, folder: RunFolder) -> None:
    """Evaluate the best weights on the test rows, and draw the history and the manifold."""
    vae.load_state_dict(result.best_weights)
    evaluation = evaluate(vae, test)
    folder.save_metrics(evaluation)
    history = elbo_history(result.history, "−ELBO by epoch")
    history.savefig(folder.path / "history.png", dpi=120)
    # With a context there would be one manifold for each context.
    if vae.latent_dim == 2 and len(vae.x_shape) == 3 and not vae.context_dim:
        draw_manifold(vae, folder)
    print(evaluation.table())


def draw_manifold(vae: VAE, folder: RunFolder) -> None:
    """Draw the decoded means over the plane of a two-dimensional latent."""
    grid = quantile_grid()
    with torch.no_grad():
        means = distribution_mean(vae.decode(grid.to(next(vae.parameters()))))
    manifold(means, grid).savefig(folder.path / "manifold.png", dpi=120)
