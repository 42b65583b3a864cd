"""Train a preset and compare its losses with the published ones."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from page import Page

from pyro_vae import VAE, Evaluation, Fit, Splits, evaluate, fit
from pyro_vae.figures import elbo_history
from pyro_vae.runs import instantiate, prepare, read_preset, settings_parser
from pyro_vae.training import Snapshots


class Trained(NamedTuple):
    """A preset after its training."""

    vae: VAE
    splits: Splits
    fit: Fit
    snapshots: list[Snapshots]
    evaluation: Evaluation


def train(
    preset: str, *snapshots: Callable[[VAE, Splits], Snapshots], settings: tuple[str, ...] = ()
) -> Trained:
    """Train a preset with some settings changed, looking at the VAE as the snapshots say."""
    parser = settings_parser(read_preset(preset)[0])
    parsed = instantiate(parser, parser.parse_args(list(settings)))
    vae, splits = prepare(parsed)
    taken = [make(vae, splits) for make in snapshots]

    def look(step: int) -> None:
        for each in taken:
            each(step)

    print(f"Training {preset} {' '.join(settings)}")
    result = fit(
        vae,
        splits.train,
        parsed.training,
        test=splits.test,
        on_step=look if taken else None,
        progress=True,
    )
    return Trained(vae, splits, result, taken, evaluate(vae, splits.test))


def compare(
    page: Page, name: str, trained: Trained, train: Mapping[int, float], test: Mapping[int, float]
) -> None:
    """A table of −ELBO by epoch, published beside reached, and the figure of both; `train` and `test` are published."""
    page.text("−ELBO in nats per row; the training loss is the mean over an epoch's batches.")
    rows = [
        [
            row.epoch,
            train.get(row.epoch, ""),
            row.train_loss,
            test.get(row.epoch, ""),
            row.test_loss,
        ]
        for row in trained.fit.history
    ]
    page.table(
        ["epoch", "train, published", "train, reached", "test, published", "test, reached"], rows
    )
    page.figure(
        f"{name}_elbo",
        elbo_history(trained.fit.history, f"{name}: −ELBO by epoch", test or train),
        "ELBO history",
    )
    page.text(f"On the test rows at the end:\n\n```\n{trained.evaluation.table()}\n```")
