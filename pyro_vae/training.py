"""How to train, and where training has got to."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import torch
from pyro.infer import ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_vae.data import Batches, Shuffled
from pyro_vae.execution import Compile, Precision, check_execution
from pyro_vae.objectives import CapacityELBO, ConstantKL, KLSchedule

OptimizerFactory: TypeAlias = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory: TypeAlias = Callable[[Optimizer], LRScheduler]


@dataclass(frozen=True)
class Training:
    """How to train.

    Arguments:
        epochs: how many epochs in all.
        batches: how rows are dealt into batches.
        optimizer: makes a torch optimiser from parameters; the loss is the mean over the rows of a batch.
        scheduler: makes a learning-rate scheduler, stepped once an epoch; none by default.
        objective: the Pyro ELBO that is minimised.
        kl_schedule: the weight of the KL term as a function of time.
        clip_norm: the largest norm of all gradients together, in nats per row; none by default.
        patience: stop after this many epochs without a better validation ELBO; never by default.
        seed: names the random streams of batches, binarisation and draws of z; each epoch has one of its own.
        trace: record the step once and replay it, with the same results; False runs plain Pyro.
        compile: compile the trace, or do not; "auto" does in runs that are long enough for it to pay. Compiled, losses are
            the same up to rounding: a run that is resumed for more epochs may be compiled where it was not before.
        precision: of the matrix products in training; "bfloat16" rounds the factors of large ones. −ELBOs of validation
            and test rows are always in the precision of the parameters.
    """

    epochs: int = 10
    batches: Batches = field(default_factory=Shuffled)
    optimizer: OptimizerFactory = torch.optim.Adam
    scheduler: SchedulerFactory | None = None
    objective: ELBO = field(default_factory=lambda: TraceMeanField_ELBO(max_plate_nesting=1))
    kl_schedule: KLSchedule = field(default_factory=ConstantKL)
    clip_norm: float | None = None
    patience: int | None = None
    seed: int = 0
    trace: bool = True
    compile: Compile = "auto"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_execution(self.trace, self.compile, self.precision)
        for name, least in (("epochs", 1), ("patience", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"'{name}' must be {least} or more, got {value}.")
        if (self.kl_schedule.keyword == "kl_capacity") != isinstance(self.objective, CapacityELBO):
            raise ValueError(
                "'kl_schedule' must be a LinearCapacity where the objective is a CapacityELBO, and only there, got "
                f"{type(self.kl_schedule).__name__} and {type(self.objective).__name__}."
            )
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"'clip_norm' must be greater than 0, got {self.clip_norm}.")
        if not callable(self.optimizer) or isinstance(self.optimizer, Optimizer):
            raise ValueError("'optimizer' must be a function from parameters to a torch optimiser, got an optimiser.")


class Epoch(NamedTuple):
    """One row of the history; the losses are in nats per row, and None where nothing was there to measure them on.

    Arguments:
        epoch: its number, from 1.
        learning_rate: the optimiser's, during the epoch.
        kl_weight: what the KL schedule gave for the last batch: the weight of the KL term, or its capacity in nats.
        train_loss: the objective, averaged over the rows as they were trained on.
        validation_loss: −ELBO of the validation rows, after the epoch.
        test_loss: −ELBO of the test rows, after the epoch.
        seconds: the time it took, evaluation included.
    """

    epoch: int
    learning_rate: float
    kl_weight: float
    train_loss: float
    validation_loss: float | None
    test_loss: float | None
    seconds: float


class Change(NamedTuple):
    """A setting that a resumed run was asked to change.

    Arguments:
        epoch: the first epoch that it holds for.
        setting: its name; those of the optimiser begin with `optimizer.`.
        before: its value until then.
        after: its value from then on.
    """

    epoch: int
    setting: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"From epoch {self.epoch} on '{self.setting}' is {self.after}, was {self.before}."


class Fit(NamedTuple):
    """Where training has got to; handed to `on_epoch` after each epoch, returned at the end, and enough to resume from.

    Arguments:
        history: the epochs so far.
        weights: the VAE's state dict after the last whole epoch.
        best_weights: the state dict of the epoch with the best validation ELBO; that of `weights` without validation rows.
        optimizer: the optimiser's state dict.
        scheduler: the scheduler's state dict, or None.
        outcome: "finished", "stopped early" or "interrupted"; "running" between epochs.
        how: how the last step was run: "plain", "traced" or "compiled", with the reason where it is not as asked.
        asked: the settings that the run was asked for last, in plain numbers and names: an optimiser's before a scheduler
            changed them. None in a run that was saved before they were kept.
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
