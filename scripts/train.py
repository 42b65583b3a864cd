"""Train a VAE: `train.py [PRESET or YAML file] [--any.setting value]`.

Presets: digits (the default), onehot, mnist-20d, mnist-2d, mnist-dynamic-2d, mnist-10d, mnist-interpolate, mnist-gated,
mnist-iwae, mnist-conv.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace

from pyro_vae import evaluate, fit
from pyro_vae.distributions import distribution_mean
from pyro_vae.figures import elbo_history, manifold, quantile_grid
from pyro_vae.runs import (
    RunFolder,
    Settings,
    Swap,
    check_settings,
    device,
    initialized,
    instantiate,
    read_preset,
    run,
    settings_parser,
)
from pyro_vae.training import Fit
from pyro_vae.vae import VAE

# What a run is: its data and its VAE, what is minimised, and the steps and the draws of its epochs. Moments are of one
# class of optimiser. How the run goes on from here may change: the rest of `training`, and the device.
FIXED = (
    "vae",
    "data",
    "training.objective",
    "training.batches",
    "training.seed",
    "training.optimizer.class_path",
)


def main() -> int:
    sys.path.append("")  # classes of the user's own, in modules of the current folder
    arguments = sys.argv[1:]
    preset = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "digits"
    settings, text, options = read_settings(preset, arguments)
    folder = RunFolder(options.run or f"runs/{Path(preset).stem}")
    if options.resume:
        stored = folder.settings(options.allow)
        settings, text, options = read_settings(preset, arguments, stored)
        check_resumable(
            *(yaml.safe_load(words) for words in (read_settings(preset, [], stored)[1], text))
        )
    else:
        folder.check_free(options.overwrite)
    return train(settings, text, folder, options.resume, options.swaps)


def read_settings(
    preset: str, arguments: list[str], stored: dict[str, Any] | None = None
) -> tuple[Settings, str, Namespace]:
    """The settings, the same as YAML, and this script's own options; a stored run's, if given, in place of a preset's.

    The options also have `swaps`: the classes that took the place of others.
    """
    allow = allowed(arguments)
    defaults, overlay = read_preset(preset, allow)
    parser = settings_parser(defaults if stored is None else stored, allow)
    parser.usage = (
        "train.py [PRESET or YAML file] [--any.setting value] [--run RUN] [--overwrite] [--resume]"
    )
    parser.description = __doc__
    parser.add_argument(
        "--run", type=str | None, default=None, help="the run folder; runs/PRESET when omitted"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a run that the folder holds"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run that the folder holds, but for new settings of training",
    )
    parser.add_argument(
        "--allow", nargs="*", default=[], help="packages of your own whose classes a run may name"
    )
    namespace = parser.parse_args([*(overlay if stored is None else []), *arguments])
    namespace.swaps = parser.swaps
    path = namespace.get("data.source.init_args.path")
    if path is not None:
        namespace["data.source.init_args.path"] = str(
            Path(path).absolute()
        )  # for whoever loads the run elsewhere
    tree = Namespace({name: namespace[name] for name in Settings.__dataclass_fields__})
    return instantiate(parser, namespace), settings_parser().dump(tree, skip_unset=False), namespace


def allowed(arguments: list[str]) -> list[str]:
    """The packages that a run may name, which must be known before its settings are read."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--allow", nargs="*", default=[])
    return parser.parse_known_args(arguments)[0].allow


def check_resumable(stored: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> None:
    """Refuse a change of what a run is; how it goes on may change."""
    for name in {**stored, **wanted}:
        before, after = stored.get(name), wanted.get(name)
        place = prefix + name
        if isinstance(before, dict) and isinstance(after, dict):
            check_resumable(before, after, f"{place}.")
        elif before != after and any(f"{place}.".startswith(f"{fixed}.") for fixed in FIXED):
            raise ValueError(
                f"'{place}' must be {before} as in the run that is resumed, got {after}: to change it, begin a new run."
            )


def train(
    settings: Settings, text: str, folder: RunFolder, resume: bool, swaps: Sequence[Swap] = ()
) -> int:
    """Train, save after every epoch, evaluate on the test rows, and draw the manifold where there is a plane to draw."""
    check_settings(settings)
    rows = settings.data.read()
    record = settings.data.record(*rows)
    if resume:
        folder.check_data(record)
    splits = settings.data.split(*rows)
    earlier = folder.fit() if resume else None
    begun = len(earlier.history) if earlier else 0
    vae = initialized(settings, splits).to(device(settings.device))

    def save(reached: Fit) -> None:
        if len(reached.history) == begun:
            begin(reached)
        folder.save(reached, vae.state_dict())

    def begin(reached: Fit) -> None:
        """Nothing is said or written before the settings and the data have been found to fit."""
        if resume:
            folder.save_settings(text, splits.train.x_shape, folder.info().data)
        else:
            folder.begin(text, splits.train.x_shape, record)
        changes = [change for change in reached.changes if change.epoch == begun + 1]
        for sentence in (*swaps, *changes):
            print(sentence, file=sys.stderr)

    result = fit(
        vae,
        splits.train,
        settings.training,
        validation=splits.validation,
        test=splits.test,
        resume=earlier,
        on_epoch=save,
        progress=True,
    )
    folder.save(result, vae.state_dict())
    print(
        f"{result.outcome.capitalize()} after {len(result.history)} epochs, run {result.how}; the run is in {folder.path}."
    )
    if result.outcome == "interrupted":
        return 130
    vae.load_state_dict(result.best_weights)
    evaluation = evaluate(vae, splits.test)
    print(evaluation.table())
    folder.save_metrics(evaluation)
    elbo_history(result.history, "−ELBO by epoch").savefig(folder.path / "history.png", dpi=120)
    draw(vae, folder)
    return 0


def draw(vae: VAE, folder: RunFolder) -> None:
    """The manifold of a two-dimensional latent, beside the run's other files; in a context there are as many as contexts."""
    if vae.latent_dim == 2 and len(vae.x_shape) == 3 and not vae.context_dim:
        grid = quantile_grid()
        with torch.no_grad():
            means = distribution_mean(vae.decode(grid.to(next(vae.parameters()))))
        manifold(means, grid).savefig(folder.path / "manifold.png", dpi=120)


if __name__ == "__main__":
    run(main)
