"""Train a preset and compare its losses with the published ones."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae import VAE, Evaluation, Fit, Rows, Snapshots, Splits, evaluate, fit
from pyro_vae.commands.page import Page
from pyro_vae.figures import elbo_history
from pyro_vae.runs import Settings, instantiate, prepare, read_preset, settings_parser


class Trained(NamedTuple):
    """A preset after its training."""

    vae: VAE
    splits: Splits
    fit: Fit
    snapshots: list[Snapshots]
    evaluation: Evaluation


def preset_settings(preset: str, *arguments: str) -> Settings:
    """Return the settings of a preset, with changes as `train.py` takes them."""
    defaults, _ = read_preset(preset)
    parser = settings_parser(defaults)
    return instantiate(parser, parser.parse_args(list(arguments)))


def labels_of(rows: Rows) -> Tensor:
    """Return the labels of rows, which colour figures; zeros for rows without labels."""
    return torch.zeros(len(rows)) if rows.labels is None else rows.labels


def train(
    preset: str,
    *snapshots: Callable[[VAE, Splits], Snapshots],
    changes: tuple[str, ...] = (),
) -> Trained:
    """Train a preset.

    Arguments:
        preset: its name.
        snapshots: functions that make snapshots, which are then taken during training.
        changes: changed settings, as `train.py` takes them.
    """
    settings = preset_settings(preset, *changes)
    vae, splits = prepare(settings)
    taken = [make(vae, splits) for make in snapshots]

    def look(step: int) -> None:
        for each in taken:
            each(step)

    print(f"Training {preset} {' '.join(changes)}")
    result = fit(
        vae,
        splits.train,
        settings.training,
        test=splits.test,
        on_step=look if taken else None,
        progress=True,
    )
    return Trained(vae, splits, result, taken, evaluate(vae, splits.test))


def compare(
    page: Page,
    name: str,
    trained: Trained,
    train: Mapping[int, float],
    test: Mapping[int, float],
) -> None:
    """Add a table and a figure of −ELBO by epoch, published and reached.

    Arguments:
        page: the page.
        name: the name of the preset.
        trained: the preset after its training.
        train: published losses of training rows, by epoch.
        test: published losses of test rows, by epoch.
    """
    page.text("−ELBO in nats per row; the training loss is the mean over an epoch's batches.")
    rows = []
    for row in trained.fit.history:
        published_train = train.get(row.epoch, "")
        published_test = test.get(row.epoch, "")
        rows.append([row.epoch, published_train, row.train_loss, published_test, row.test_loss])
    header = ["epoch", "train, published", "train, reached", "test, published", "test, reached"]
    page.table(header, rows)
    figure = elbo_history(trained.fit.history, f"{name}: −ELBO by epoch", test or train)
    page.figure(f"{name}_elbo", figure, "ELBO history")
    page.text(f"On the test rows at the end:\n\n```\n{trained.evaluation.table()}\n```")
