"""Schedules for the weight of the KL term, as a function of the time in epochs."""

from abc import ABC, abstractmethod


class KLSchedule(ABC):
    """The weight of KL(q(z | x) ‖ p(z)) in the objective as training goes on.

    A subclass defines `__call__`.
    """

    @abstractmethod
    def __call__(self, epoch: float) -> float:
        """The weight, greater than 0, at a time in epochs; 0.5 is half way through the first."""


class ConstantKL(KLSchedule):
    """One weight throughout; 1 gives the ELBO, another β the objective of the β-VAE.

    References:
        β-VAE: learning basic visual concepts with a constrained variational framework, Higgins et al., 2017.

    Arguments:
        weight: the weight β, greater than 0.

    Example:
        >>> ConstantKL(4.0)(epoch=0.5)
        4.0
    """

    def __init__(self, weight: float = 1.0) -> None:
        if not weight > 0:
            raise ValueError(f"'weight' of ConstantKL must be greater than 0, got {weight}.")
        self.weight = weight

    def __call__(self, epoch: float) -> float:
        return self.weight


class LinearWarmup(KLSchedule):
    """A weight that rises in a straight line to 1, so that the latent is used before it is regularised.

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
        if not epochs > 0:
            raise ValueError(f"'epochs' of LinearWarmup must be greater than 0, got {epochs}.")
        if not 0 < start <= 1:
            raise ValueError(f"'start' of LinearWarmup must be greater than 0 and at most 1, got {start}.")
        self.epochs, self.start = epochs, start

    def __call__(self, epoch: float) -> float:
        return self.start + (1 - self.start) * min(1.0, epoch / self.epochs)
