"""Treatment of missing entries of x: none is missing, or those that are NaN."""

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
        """Return x as the posterior takes it, `(*, *x_shape)`."""

    @abstractmethod
    def observed(
        self,
        p_x: TorchDistribution,
        x: Tensor,
        likelihood: Likelihood,
    ) -> tuple[TorchDistribution, Tensor]:
        """Return p(x | z) of only the observed entries, and an x that it can score."""

    @abstractmethod
    def check(self, x: Tensor) -> None:
        """Refuse x with NaN, if NaN has no meaning.

        Raises:
            ValueError: if x has NaN and none may be missing.
        """

    @abstractmethod
    def complete(self, x: Tensor, likelihood: Likelihood) -> Tensor:
        """Return x with values inside the support in place of missing entries."""

    @abstractmethod
    def check_events(self, p_x: TorchDistribution, x: Tensor) -> None:
        """Refuse an x in which only a part of a joint event is missing.

        Raises:
            ValueError: if a joint event is partly missing.
        """


class Complete(Entries):
    """Treatment in which all entries are observed."""

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
            raise ValueError(
                "'x' must be finite, got NaN: "
                'only a VAE made with missing="nan" takes NaN, as missing.'
            )

    def complete(self, x: Tensor, likelihood: Likelihood) -> Tensor:
        return x

    def check_events(self, p_x: TorchDistribution, x: Tensor) -> None:
        """Accept every x, since nothing is missing."""


class NanIsMissing(Entries):
    """Treatment in which NaN is missing: the likelihood scores `filler` there, under a mask."""

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
    """Return the treatment of missing entries with this name.

    Raises:
        ValueError: if `missing` is neither None nor `"nan"`.
    """
    if missing not in (None, "nan"):
        raise ValueError(f"'missing' must be \"nan\" or None, got {missing!r}.")
    return Complete() if missing is None else NanIsMissing()
