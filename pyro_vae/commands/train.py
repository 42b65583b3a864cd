"""Train a VAE: `pyro-vae train [PRESET or YAML file] [--any.setting value]`."""

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch
from matplotlib.figure import Figure

from pyro_vae import VAE, Fit, NonFiniteLossError, Rows, Splits, evaluate, fit
from pyro_vae.commands.job import Job, read_job
from pyro_vae.commands.request import Request, early_options, preset_of
from pyro_vae.commands.seeds import read_seeds, summary
from pyro_vae.commands.training_parser import training_parser
from pyro_vae.distributions import distribution_mean
from pyro_vae.figures import elbo_history, image_grid, manifold, quantile_grid
from pyro_vae.runs import (
    INTERRUPTED,
    DataRecord,
    Origin,
    RunFolder,
    SentenceParser,
    check_settings,
    device,
    initialized,
    output_folder,
    read_preset,
    used_from,
    whole_names,
)

# Rows in the figures of loggers.
NUM_DRAWN = 8


def command_parser() -> SentenceParser:
    """Return the parser of the command line, with the default preset."""
    defaults, _ = read_preset("digits")
    return training_parser(defaults)


def main() -> int:
    """Train, or continue a run, and report on the test rows."""
    sys.path.append("")  # the settings may name classes in modules of the current folder
    preset, arguments = preset_of(sys.argv[1:])
    early = early_options(arguments)
    is_one = early.seeds is None or early.help is not None
    usual = f"runs/{Path(preset).stem}" + ("" if is_one else "-seeds")
    run = usual if early.run is None else early.run
    if is_one:
        return train(read_job(preset, arguments, run, early.resume))
    return train_seeds(preset, arguments, run)


def train_seeds(preset: str, arguments: list[str], run: str) -> int:
    """Train once for each seed, and report the spread. A finished run is not trained again.

    All runs are checked before the first one is trained.
    """
    early = early_options(arguments)
    seeds = read_seeds(early.seeds, arguments)
    place = output_folder(run, "run")
    jobs: list[Job] = []
    for seed in seeds:
        path = place / f"seed-{seed}"
        resume = early.resume and (path / "run.json").is_file()
        jobs.append(read_job(preset, [*arguments, f"--seed={seed}"], path, resume))
    for job in jobs:
        if job.is_done():
            print(f"The run in {job.folder.path} is finished.")
        elif code := train(job):
            return code
    print(summary([job.folder.path for job in jobs]))
    return 0


def train(job: Job) -> int:
    """Train, save after every epoch, and report on the test rows. Return the exit code."""
    with whole_names(job.request.options):
        return _train(job)


def _train(job: Job) -> int:
    settings = job.request.settings
    check_settings(settings)
    rows = settings.data.read()
    record = settings.data.record(*rows)
    if job.resume:
        job.folder.check_data(record)
    splits = settings.data.split(*rows)
    vae = starting_vae(job, splits)
    run = Writer(job.folder, lambda: begin(job, vae, record))
    result = fitted(job, vae, splits, run)
    if result.outcome == "interrupted" and not run.is_begun:
        epoch = len(result.history) + 1
        print(f"Interrupted in epoch {epoch}, before anything was written.")
        return INTERRUPTED
    run.save(result)
    epochs = "1 epoch" if len(result.history) == 1 else f"{len(result.history)} epochs"
    ended = f"{result.outcome.capitalize()} after {epochs}. The steps were {result.how}."
    print(f"{ended} The run is in {job.folder.path}.")
    if result.outcome == "interrupted":
        return INTERRUPTED
    report(vae, result, splits.test, job.folder)
    return 0


def starting_vae(job: Job, splits: Splits) -> VAE:
    """Return the VAE with its first weights: new ones, or those of another run."""
    settings = job.request.settings
    vae = initialized(settings, splits)
    if job.start is not None:
        job.start.give(vae)
    return vae.to(device(settings.device))


def begin(job: Job, vae: VAE, record: DataRecord) -> None:
    """Write what describes the run; a new one removes the files of a run that it replaces."""
    origin = Origin.of_process("pyro-vae train", device(job.request.settings.device))
    if not job.resume:
        job.folder.begin(job.request.text, tuple(vae.x_shape), record, origin)
        return
    stored = job.folder.info()
    origin = origin.after(stored.command)
    job.folder.save_settings(job.request.text, tuple(vae.x_shape), stored.data, origin)


def fitted(job: Job, vae: VAE, splits: Splits, run: "Writer") -> Fit:
    """Train, and write what every epoch has reached."""
    settings = job.request.settings
    earlier = job.folder.fit() if job.resume else None
    begun = len(earlier.history) if earlier else 0
    drawn = splits.test.take(slice(NUM_DRAWN))
    figures = drawings(vae, drawn) if settings.logging.loggers else {}
    logs = settings.logging.logged(job.folder.path, figures)

    def on_epoch(reached: Fit) -> None:
        if len(reached.history) == begun:
            announce(job.request, reached)
        else:
            run.save(reached)
        logs(reached)

    try:
        with closing(logs), used_from("training.objective", "pyro.infer"):
            return fit(
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

    def save(self, reached: Fit) -> None:
        """Write what training has reached."""
        if not self.is_begun:
            self.begin()
            self.is_begun = True
        self.folder.save(reached)

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
    evaluation = evaluate(vae, test)
    folder.save_metrics(evaluation)
    history = elbo_history(result.history, "−ELBO by epoch")
    history.savefig(folder.path / "history.png", dpi=120)
    # With a context there would be one manifold for each context.
    if vae.latent_dim == 2 and len(vae.x_shape) == 3 and not vae.context_dim:
        draw_manifold(vae, folder)
    print(evaluation.table())


def drawings(vae: VAE, rows: Rows) -> dict[str, Callable[[], Figure]]:
    """Return functions that draw reconstructions of rows, and samples in the contexts of rows."""
    x = rows.batch(slice(None))
    y = vae.context_of(rows)

    def reconstructions() -> Figure:
        return image_grid([x, vae.reconstruct(x, y)], "Test rows and their reconstructions")

    def samples() -> Figure:
        return image_grid([vae.sample(len(rows), y)], "Draws from p(x)")

    return {"reconstructions": reconstructions, "samples": samples}


def draw_manifold(vae: VAE, folder: RunFolder) -> None:
    """Draw the decoded means over the plane of a two-dimensional latent."""
    grid = quantile_grid()
    with torch.no_grad():
        means = distribution_mean(vae.decode(grid.to(next(vae.parameters()))))
    manifold(means, grid).savefig(folder.path / "manifold.png", dpi=120)
