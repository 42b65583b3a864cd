"""Settings of training, and a change of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import torch
from pyro.infer import ELBO, TraceMeanField_ELBO
from pyro.optim import PyroOptim
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_vae.data.batches import Batches, Shuffled
from pyro_vae.engine.execution import Execution
from pyro_vae.objectives import ConstantKL, Schedule, scheduled_by
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import described, positive, whole, with_article
from pyro_vae.support.methods_of_users import check_initialized

OptimizerFactory: TypeAlias = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory: TypeAlias = Callable[[Optimizer], LRScheduler]


@arguments_checked
@dataclass(frozen=True)
class Training:
    """Settings of training.

    Arguments:
        epochs: the number of epochs in all.
        batches: how the rows are divided into batches.
        optimizer: makes a torch optimiser from parameters; the loss is the mean over the rows of a
            batch.
        scheduler: makes a learning-rate scheduler, stepped once an epoch, so its steps are
            epochs; none by default.
        objective: the Pyro ELBO, whose loss is minimised.
        kl_schedule: the weight of the KL term as a function of time, or what the objective takes in
            its place, such as the capacity of `CapacityELBO`.
        clip_norm: the largest norm of all gradients together, in nats per row; none by default.
        patience: stop after this many epochs without a better validation ELBO; never by default.
        seed: the seed of batches, binarisation and draws of z; each epoch has its own random
            stream.
        execution: plain, traced or compiled, and the precision of the matrix products in training.
            −ELBOs of validation and test rows are always in the precision of the parameters.
    """

    epochs: int = 10
    batches: Batches = field(default_factory=Shuffled)
    optimizer: OptimizerFactory = torch.optim.Adam
    scheduler: SchedulerFactory | None = None
    objective: ELBO = field(default_factory=lambda: TraceMeanField_ELBO(max_plate_nesting=1))
    kl_schedule: Schedule = field(default_factory=ConstantKL)
    clip_norm: float | None = None
    patience: int | None = None
    seed: int = 0
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        whole(self.epochs, "epochs")
        whole(self.seed, "seed", least=0)
        if self.patience is not None:
            whole(self.patience, "patience")
        check_initialized(self.batches, "size")
        check_initialized(self.objective, "num_particles")
        if self.kl_schedule.unit not in ("weight", "nats"):
            raise ValueError(
                f"'unit' of {type(self.kl_schedule).__name__} must be 'weight' or 'nats', got "
                f"{described(self.kl_schedule.unit)}."
            )
        takes_nats = scheduled_by(self.objective) == "kl_capacity"
        if takes_nats != (self.kl_schedule.unit == "nats"):
            raise ValueError(
                "'kl_schedule' must be a LinearCapacity where the objective is a CapacityELBO, "
                "and only there, got "
                f"{type(self.kl_schedule).__name__} and {type(self.objective).__name__}."
            )
        if self.clip_norm is not None:
            positive(self.clip_norm, "clip_norm")
        if isinstance(self.optimizer, PyroOptim):
            raise ValueError(
                "'optimizer' must make a torch optimiser, such as partial(torch.optim.Adam, "
                f"lr=1e-3), got {with_article(type(self.optimizer).__name__)} of pyro.optim."
            )
        whole(self.objective.num_particles, "num_particles")


class Change(NamedTuple):
    """A setting that a resumed run was asked to change.

    Arguments:
        epoch: the first epoch with the new value.
        setting: its name; settings of the optimiser begin with `optimizer.`.
        before: its value until then.
        after: its value from then on.
    """

    epoch: int
    setting: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"From epoch {self.epoch} on '{self.setting}' is {self.after}, was {self.before}."
