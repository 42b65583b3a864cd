"""Train a VAE: `train.py [PRESET or YAML file] [--any.setting value]`.

Presets: digits (the default), onehot, mnist-20d, mnist-2d, mnist-dynamic-2d, mnist-10d,
mnist-interpolate, mnist-gated, mnist-iwae, mnist-conv; and counts, for a table of your own.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import door
import torch
import yaml
from jsonargparse import Namespace

from pyro_vae import VAE, Fit, NonFiniteLossError, Rows, evaluate, fit
from pyro_vae.distributions import distribution_mean
from pyro_vae.figures import elbo_history, manifold, quantile_grid
from pyro_vae.runs import (
    INTERRUPTED,
    RunFolder,
    Settings,
    check_settings,
    device,
    initialized,
    instantiate,
    read_preset,
    settings_parser,
    used_from,
    whole_names,
)

# Settings that a resumed run must share with the stored one: its data, its VAE, its objective, and
# the batches and draws of its epochs. The class of the optimiser is among them, since another class
# cannot read its moments. The rest of `training` and the device may change.
FIXED = (
    "vae",
    "data",
    "training.objective",
    "training.batches",
    "training.seed",
    "training.optimizer.class_path",
)


class Request(NamedTuple):
    """Settings and options from the command line.

    Arguments:
        settings: the settings of the run.
        text: the settings as YAML.
        options: the options of this script, and `swaps`: the classes that replaced others.
    """

    settings: Settings
    text: str
    options: Namespace


def main() -> int:
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


def read_settings(
    preset: str,
    arguments: list[str],
    stored: dict[str, Any] | None = None,
) -> Request:
    """Read the command line after the preset.

    Arguments:
        preset: the name of a preset, or a YAML file.
        arguments: the rest of the command line.
        stored: the settings of a stored run, which replace those of the preset.
    """
    allow = early_options(arguments).allow
    defaults, overlay = read_preset(preset, allow)
    if stored is not None:
        defaults = stored
        overlay = []
    parser = settings_parser(defaults, allow)
    parser.usage = (
        "train.py [PRESET or YAML file] [--any.setting value] [--run RUN] [--overwrite] [--resume]"
    )
    parser.description = __doc__
    parser.add_argument(
        "--run", type=str | None, default=None, help="the run folder; runs/PRESET when omitted"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run in the folder")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in the folder; most settings of training may change",
    )
    parser.add_argument(
        "--allow",
        nargs="*",
        default=[],
        help="packages of your own whose classes a run may name",
    )
    options = parser.parse_args([*overlay, *arguments])
    options.swaps = parser.swaps
    path = options.get("data.source.init_args.path")
    if path is not None:
        # An absolute path is also right when the run is loaded from another folder.
        options["data.source.init_args.path"] = str(Path(path).absolute())
    settings = instantiate(parser, options)
    tree = Namespace({name: options[name] for name in Settings.__dataclass_fields__})
    text = settings_parser().dump(tree, skip_unset=False)
    return Request(settings, text, options)


def early_options(arguments: list[str]) -> argparse.Namespace:
    """Return the options that are needed before the settings of a run are read.

    The parser of the settings refuses what is wrong with them.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--allow", nargs="*", default=[])
    parser.add_argument("--run", nargs="?")
    for flag in ("--resume", "--overwrite"):
        parser.add_argument(flag, nargs="?", const=True, default=False)
    known, _ = parser.parse_known_args(arguments)
    return known


def check_resumable(stored: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> None:
    """Refuse a change of any setting in `FIXED`.

    Arguments:
        stored: the settings of the run.
        wanted: those asked for now.
        prefix: the place of both among all settings, with a dot at its end.

    Raises:
        ValueError: if such a setting differs.
    """
    for name in {**stored, **wanted}:
        before = stored.get(name)
        after = wanted.get(name)
        place = prefix + name
        if isinstance(before, dict) and isinstance(after, dict):
            check_resumable(before, after, f"{place}.")
        elif before != after and is_fixed(place):
            setting = place.replace(".init_args", "")
            raise ValueError(
                f"'{setting}' must be {before} as in the run that is resumed, "
                f"got {after}: to change it, begin a new run."
            )


def is_fixed(place: str) -> bool:
    """Return True for a setting in `FIXED`, and for a part of one."""
    return any(f"{place}.".startswith(f"{fixed}.") for fixed in FIXED)


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


if __name__ == "__main__":
    door.run(main)
