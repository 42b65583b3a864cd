"""The history of a training run, and what `fit` returns."""

import copy
from typing import Any, NamedTuple

from torch import Tensor

from pyro_vae.training.settings import Change


class Epoch(NamedTuple):
    """One row of the history; the losses are in nats per row, and None where nothing was there to
    measure them on.

    Arguments:
        epoch: its number, from 1.
        learning_rate: the optimiser's, during the epoch.
        scheduled: the number of the KL schedule for the last batch, which the objective takes by
            the name `scheduled_by(objective)`: the weight of the KL term, or its capacity in nats.
        train_loss: the objective, averaged over the rows as they were trained on.
        validation_loss: −ELBO of the validation rows, after the epoch.
        test_loss: −ELBO of the test rows, after the epoch.
        seconds: the time it took, evaluation included.
    """

    epoch: int
    learning_rate: float
    scheduled: float
    train_loss: float
    validation_loss: float | None
    test_loss: float | None
    seconds: float


class Fit(NamedTuple):
    """Where training has got to; handed to `on_epoch` after each epoch, returned at the end, and
    enough to resume from.

    Arguments:
        history: the epochs so far.
        weights: the VAE's state dict after the last whole epoch.
        best_weights: the state dict of the epoch with the best validation ELBO; that of `weights`
            without validation rows.
        optimizer: the optimiser's state dict.
        scheduler: the scheduler's state dict, or None.
        outcome: "finished", "stopped early" or "interrupted"; "running" between epochs.
        how: how the last step was run: "plain", "traced" or "compiled", with the reason where it is
            not as asked.
        asked: the settings that the run was asked for last, in plain numbers and names: an
            optimiser's before a scheduler changed them. None in a run that was saved before they
            were kept.
        changes: the settings that changed when the run was resumed.
    """

    history: list[Epoch]
    weights: dict[str, Tensor]
    best_weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any] | None
    outcome: str
    how: str = "plain"
    asked: dict[str, Any] | None = None
    changes: tuple[Change, ...] = ()

    def copy(self) -> "Fit":
        """The same in memory of its own."""
        return Fit(**{name: copy.deepcopy(value) for name, value in self._asdict().items()})
