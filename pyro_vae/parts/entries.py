"""Entries of x: all of them observed, or missing where they are NaN."""

from abc import ABC, abstractmethod

from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_vae.data.missing import Missing, filled
from pyro_vae.distributions.masks import check_whole, masked
from pyro_vae.parts.contracts import Likelihood, Posterior


class Entries(ABC):
    """Treatment of the entries of x in a model and its guide."""

    @abstractmethod
    def seen(self, x: Tensor, posterior: Posterior) -> Tensor:
        """Return x as the posterior takes it."""

    @abstractmethod
    def observed(
        self,
        p_x: TorchDistribution,
        x: Tensor,
        likelihood: Likelihood,
    ) -> tuple[TorchDistribution, Tensor]:
        """Return p(x | z) of the observed entries alone, and an x that it can score."""

    @abstractmethod
    def check(self, x: Tensor) -> None:
        """Refuse NaN that is not expected."""

    @abstractmethod
    def complete(self, x: Tensor, likelihood: Likelihood) -> Tensor:
        """Return x with values inside the support in place of missing entries."""

    @abstractmethod
    def check_events(self, p_x: TorchDistribution, x: Tensor) -> None:
        """Refuse an x of which a part of a joint event is missing, and a part is not."""


class Complete(Entries):
    """All entries are observed."""

    def seen(self, x: Tensor, posterior: Posterior) -> Tensor:
        return x

    def observed(
        self,
        p_x: TorchDistribution,
        x: Tensor,
        likelihood: Likelihood,
    ) -> tuple[TorchDistribution, Tensor]:
        return p_x, x

    def check(self, x: Tensor) -> None:
        if x.isnan().any():
            raise ValueError("'x' must be finite, got NaN: only a VAE made with missing=\"nan\" takes NaN, as missing.")

    def complete(self, x: Tensor, likelihood: Likelihood) -> Tensor:
        return x

    def check_events(self, p_x: TorchDistribution, x: Tensor) -> None:
        """Accept every x: nothing is missing."""


class NanIsMissing(Entries):
    """Entries that are NaN are missing; the likelihood's `filler` stands in their place, under a mask."""

    def seen(self, x: Tensor, posterior: Posterior) -> Tensor:
        return x if posterior.takes_nan else filled(x, 0.0)

    def observed(
        self,
        p_x: TorchDistribution,
        x: Tensor,
        likelihood: Likelihood,
    ) -> tuple[TorchDistribution, Tensor]:
        return masked(p_x, ~x.isnan()), filled(x, likelihood.filler)

    def check(self, x: Tensor) -> None:
        """Accept NaN."""

    def complete(self, x: Tensor, likelihood: Likelihood) -> Tensor:
        return filled(x, likelihood.filler)

    def check_events(self, p_x: TorchDistribution, x: Tensor) -> None:
        check_whole(p_x, ~x.isnan())


def entries_of(missing: Missing) -> Entries:
    """Return the treatment of entries that a VAE is made for.

    Raises:
        ValueError: if it is none of those that there are.
    """
    if missing not in (None, "nan"):
        raise ValueError(f"'missing' must be \"nan\" or None, got {missing!r}.")
    return Complete() if missing is None else NanIsMissing()
