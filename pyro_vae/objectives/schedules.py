"""Schedules: a number that an objective takes, as a function of the time in epochs."""

import math
from abc import ABC, abstractmethod
from numbers import Real

from pyro.infer import ELBO

from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import check_finite, described, positive, share
from pyro_vae.support.methods_of_users import called


class Schedule(ABC):
    """A number that changes during training, as an argument of the objective.

    `scheduled_by(objective)` names the argument. For most objectives it is the weight of
    KL(q(z | x) ‖ p(z)). A subclass defines `__call__`. It also defines `unit` as "nats" if its
    number is no weight.
    """

    unit = "weight"

    @abstractmethod
    def __call__(self, epoch: float) -> float:
        """Return the number at a time in epochs; 0.5 is half way through the first epoch.

        A weight is greater than 0.
        """


KLSchedule = Schedule  # its name in 0.1


def scheduled_by(objective: ELBO) -> str:
    """Return the argument of the objective, model and guide that a schedule sets.

    It is the attribute `scheduled` of the objective, or "kl_weight" without one.
    """
    return getattr(objective, "scheduled", "kl_weight")


def checked_number(schedule: Schedule, number: float) -> float:
    """Return the number of a schedule.

    Raises:
        ValueError: if it is no finite weight above 0, and no finite number of nats from 0 either.
    """
    is_number = isinstance(number, Real) and not isinstance(number, bool)
    least = "0 or more" if schedule.unit == "nats" else "greater than 0"
    if not is_number or not 0 <= number < math.inf or (number == 0 and least != "0 or more"):
        raise ValueError(
            f"'kl_schedule' must give finite numbers {least}, got {described(number)} from a "
            f"{type(schedule).__name__}."
        )
    return number


def first_number(schedule: Schedule) -> float:
    """Return the number of a schedule at the start of training.

    Raises:
        ValueError: if the schedule cannot be called with the time, or gives another number or none.
    """
    return checked_number(schedule, called(schedule, "__call__", 0.0))


@arguments_checked
class ConstantKL(Schedule):
    """Constant weight: 1 gives the ELBO, another β gives the objective of the β-VAE.

    References:
        β-VAE: learning basic visual concepts with a constrained variational framework, Higgins et
        al., 2017.

    Arguments:
        weight: the weight β, greater than 0.

    Example:
        >>> ConstantKL(4.0)(epoch=0.5)
        4.0
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = positive(weight, "weight", of=self)
        check_finite(weight, "weight")

    def __call__(self, epoch: float) -> float:
        return self.weight


@arguments_checked
class LinearWarmup(Schedule):
    """Weight that rises linearly to 1, so that the latent is used before it is regularised.

    References:
        Ladder variational autoencoders, Sønderby et al., 2016.

    Arguments:
        epochs: the time of the rise, in epochs.
        start: the weight at the beginning, greater than 0.

    Example:
        >>> LinearWarmup(epochs=10, start=0.1)(epoch=5)
        0.55
    """

    def __init__(self, epochs: float, start: float = 0.01) -> None:
        self.epochs = positive(epochs, "epochs", of=self)
        self.start = share(start, "start", of=self)

    def __call__(self, epoch: float) -> float:
        return self.start + (1 - self.start) * min(1.0, epoch / self.epochs)


@arguments_checked
class CyclicalKL(Schedule):
    """Weight that rises linearly to 1 in each cycle, so that collapsed codes can recover.

    References:
        Cyclical annealing schedule: a simple approach to mitigating KL vanishing, Fu et al., 2019.

    Arguments:
        epochs: the length of a cycle, in epochs.
        rise: the share of a cycle in which the weight rises; then it stays at 1.
        start: the weight at the beginning of each cycle, greater than 0.

    Example:
        >>> [CyclicalKL(epochs=10, start=0.1)(epoch) for epoch in (2.5, 5, 9, 10)]
        [0.55, 1.0, 1.0, 0.1]
    """

    def __init__(self, epochs: float, rise: float = 0.5, start: float = 0.01) -> None:
        self.epochs = positive(epochs, "epochs", of=self)
        share(rise, "rise", of=self)
        share(start, "start", of=self)
        self.warmup = LinearWarmup(epochs * rise, start)

    def __call__(self, epoch: float) -> float:
        return self.warmup(epoch % self.epochs)


@arguments_checked
class LinearCapacity(Schedule):
    """Target for the KL of `CapacityELBO`, which rises linearly from 0 to a last value.

    References:
        Understanding disentangling in β-VAE, Burgess et al., 2018.

    Arguments:
        last: the last value, in nats per row.
        epochs: the time of the rise, in epochs.

    Example:
        >>> LinearCapacity(last=20.0, epochs=10)(epoch=5)
        10.0
    """

    unit = "nats"

    def __init__(self, last: float, epochs: float) -> None:
        self.last = positive(last, "last", of=self)
        check_finite(last, "last")
        self.epochs = positive(epochs, "epochs", of=self)

    def __call__(self, epoch: float) -> float:
        return self.last * min(1.0, epoch / self.epochs)
