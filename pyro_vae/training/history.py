"""History of a training run, and the result of `fit`."""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from pyro_vae.support.tables import html_table
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
        validation_rate: KL(q(z | x) ‖ p(z)) of the validation rows, after the epoch. The rest of
            `validation_loss` is the distortion.
        test_rate: the same of the test rows.
    """

    epoch: int
    learning_rate: float
    scheduled: float
    train_loss: float
    validation_loss: float | None
    test_loss: float | None
    seconds: float
    validation_rate: float | None = None
    test_rate: float | None = None


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

    def __repr__(self) -> str:
        """Return a table of the first, the best and the last epoch, under the outcome."""
        table = [self._header(), *self._cells()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in table
        ]
        return "\n".join([self._title(), *lines])

    def _repr_html_(self) -> str:
        return html_table(self._title(), self._header(), self._cells())

    def _title(self) -> str:
        number = len(self.history)
        epochs = "1 epoch" if number == 1 else f"{number} epochs"
        seconds = sum(row.seconds for row in self.history)
        return f"{self.outcome.capitalize()} after {epochs} in {seconds:.1f} s, {self.how}."

    def _columns(self) -> list[str]:
        """Return the fields of an epoch that are known in any of the epochs."""
        return [
            name
            for name in Epoch._fields
            if any(getattr(row, name) is not None for row in self.history)
        ]

    def _header(self) -> list[str]:
        return ["", *(name.replace("_", " ") for name in self._columns())]

    def _cells(self) -> list[list[str]]:
        """Return the rows of the table: the first, the best and the last epoch."""
        rows = []
        names = self._names()
        for row in self.history:
            if row.epoch in names:
                values = [getattr(row, column) for column in self._columns()]
                rows.append([names[row.epoch], *map(_cell, values)])
        return rows

    def _names(self) -> dict[int, str]:
        """Return the names of the epochs that are shown."""
        names = {1: ["first"]}
        if any(row.validation_loss is not None for row in self.history):
            names.setdefault(best_epoch(self.history), []).append("best")
        names.setdefault(len(self.history), []).append("last")
        return {epoch: ", ".join(each) for epoch, each in names.items()}

    def copy(self) -> "Fit":
        """Return a copy that shares no memory with this state."""
        return Fit(**{name: copy.deepcopy(value) for name, value in self._asdict().items()})


def best_epoch(history: Sequence[Epoch]) -> int:
    """Return the number of the epoch with the lowest validation loss.

    It is the last epoch if there are no validation rows, and 0 before the first epoch.
    """
    validated = [
        (row.validation_loss, row.epoch) for row in history if row.validation_loss is not None
    ]
    return min(validated)[1] if validated else len(history)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.5g}"
