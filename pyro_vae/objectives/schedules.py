"""Schedules: a number that an objective takes, as a function of the time in epochs."""

from abc import ABC, abstractmethod

from pyro.infer import ELBO

from pyro_vae.support.checks import positive, share


class Schedule(ABC):
    """A number as training goes on; the objective says which: `scheduled_by(objective)`.

    For most objectives it is the weight of KL(q(z | x) ‖ p(z)).
    A subclass defines `__call__`; and `unit`, where its number is no weight but in "nats".
    """

    unit = "weight"

    @abstractmethod
    def __call__(self, epoch: float) -> float:
        """The number at a time in epochs; 0.5 is half way through the first. A weight is greater
        than 0.
        """


KLSchedule = Schedule  # its name in 0.1


def scheduled_by(objective: ELBO) -> str:
    """Return the argument of the objective, model and guide that a schedule sets.

    It is the attribute `scheduled` of the objective, and "kl_weight" without one.
    """
    return getattr(objective, "scheduled", "kl_weight")


class ConstantKL(Schedule):
    """One weight throughout; 1 gives the ELBO, another β the objective of the β-VAE.

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

    def __call__(self, epoch: float) -> float:
        return self.weight


class LinearWarmup(Schedule):
    """A weight that rises in a straight line to 1, so that the latent is used before it is
    regularised.

    References:
        Ladder variational autoencoders, Sønderby et al., 2016.

    Arguments:
        epochs: the time of the rise.
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


class CyclicalKL(Schedule):
    """A weight that rises in a straight line to 1 again and again, so that codes which collapsed
    get another chance.

    References:
        Cyclical annealing schedule: a simple approach to mitigating KL vanishing, Fu et al., 2019.

    Arguments:
        epochs: the length of a cycle.
        rise: the share of it in which the weight rises; then it stays at 1.
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


class LinearCapacity(Schedule):
    """The KL that `CapacityELBO` aims at: it rises in a straight line from 0 to a last value.

    References:
        Understanding disentangling in β-VAE, Burgess et al., 2018.

    Arguments:
        last: the KL in the end, in nats per row.
        epochs: the time of the rise.

    Example:
        >>> LinearCapacity(last=20.0, epochs=10)(epoch=5)
        10.0
    """

    unit = "nats"

    def __init__(self, last: float, epochs: float) -> None:
        self.last = positive(last, "last", of=self)
        self.epochs = positive(epochs, "epochs", of=self)

    def __call__(self, epoch: float) -> float:
        return self.last * min(1.0, epoch / self.epochs)
