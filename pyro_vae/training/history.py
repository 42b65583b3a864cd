"""History of a training run, and the result of `fit`."""

import copy
from typing import Any, NamedTuple

from torch import Tensor

from pyro_vae.training.settings import Change


class Epoch(NamedTuple):
    """One row of the history, with losses in nats per row.

    A loss is None if there are no rows for it.

    Arguments:
        epoch: its number, from 1.
        learning_rate: the optimiser's, during the epoch.
        scheduled: the number of the KL schedule for the last batch, which the objective takes by
            the name `scheduled_by(objective)`: the weight of the KL term, or its capacity in nats.
        train_loss: the mean of the objective over the rows, measured during training.
        validation_loss: −ELBO of the validation rows, after the epoch.
        test_loss: −ELBO of the test rows, after the epoch.
        seconds: the duration of the epoch, evaluation included.
    """

    epoch: int
    learning_rate: float
    scheduled: float
    train_loss: float
    validation_loss: float | None
    test_loss: float | None
    seconds: float


class Fit(NamedTuple):
    """State of training, complete enough to resume from.

    `fit` passes it to `on_epoch` after each epoch, and returns it at the end.

    Arguments:
        history: the epochs so far.
        weights: the VAE's state dict after the last whole epoch.
        best_weights: the state dict of the epoch with the best validation ELBO; `weights` if there
            are no validation rows.
        optimizer: the optimiser's state dict.
        scheduler: the scheduler's state dict, or None.
        outcome: "finished", "stopped early" or "interrupted"; "running" between epochs.
        how: "plain", "traced" or "compiled", as the last step was run, with the reason if that is
            not as asked.
        asked: the latest settings of the run, in plain numbers and names; those of the optimiser
            before a scheduler changed them. None in a run of an older version.
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
        """Return a copy that shares no memory with this state."""
        return Fit(**{name: copy.deepcopy(value) for name, value in self._asdict().items()})
