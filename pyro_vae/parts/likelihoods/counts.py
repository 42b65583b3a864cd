"""Likelihoods of counts: whole numbers without an upper end."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.distributions.gamma_family import NegativeBinomial, Poisson
from pyro_vae.parts.contracts import EncoderInputFactory, Likelihood, Network
from pyro_vae.parts.encoder_inputs import Composed, Log1p, Standardized
from pyro_vae.parts.finite import HIGHEST_LOG_OF_DATA, held
from pyro_vae.parts.likelihoods.library import LogLibrary, dispersion_around_shares
from pyro_vae.parts.likelihoods.links import bounded_log, found
from pyro_vae.parts.likelihoods.scales import (
    MIN_SCALE,
    LearnedScale,
    Scale,
    as_scale,
    with_scale,
)
from pyro_vae.support.checks import Shape, as_shape, flag, positive
from pyro_vae.support.modules import tensor_like

# The logit of the share of extra zeros at the start of training, a share of 12 %.
_START_GATE_LOGIT = -2.0
# The least and the most dispersion at the start of training.
_START_DISPERSIONS = (0.01, 10.0)


class _CountLikelihood(Likelihood, ABC):
    """p(x | z) for counts x_i in 0, 1, 2, …: a subclass defines `forward` and `link`.

    With a library size, y has one more column than its networks take: the log of the library size.
    """

    def __init__(
        self,
        network: Network,
        x_shape: Shape,
        out_shape: Shape | None = None,
        library_size: bool = False,
    ) -> None:
        super().__init__(network, x_shape, out_shape)
        self.library = LogLibrary(len(self.x_shape)) if flag(library_size, "library_size") else None
        self.offset_dim = 0 if self.library is None else 1

    def offsets(self, x: Tensor | None = None) -> Tensor:
        """Return the log of the library size: of the sum of x, `(*, 1)`, or the median, `(1,)`."""
        library = self._with_library()
        return library.usual() if x is None else library.of(x)

    def check_offsets(self, offsets: Tensor) -> None:
        self._with_library().check(offsets)

    @torch.no_grad()
    def initialize_offsets(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set the median library size."""
        self._with_library().start(offsets for _, offsets in batches)

    def shares(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the share of each element in a row's counts, `(*, *x_shape)`.

        Arguments:
            z: latents, `(*, D)`.
            y: their context, `(*, Y)`; a library size in it has no effect.

        Raises:
            ValueError: if the likelihood has no library size.
        """
        library = self._with_library()
        seen = None if y is None or not self.context_dim else y[..., : self.context_dim]
        return library.log_shares(self._raw_log_mean(self.call_network(z, seen))).exp()

    @abstractmethod
    def _raw_log_mean(self, outputs: Tensor) -> Tensor:
        """Return the outputs of the network that stand for the means, `(*, *x_shape)`."""

    def _with_library(self) -> LogLibrary:
        if self.library is None:
            raise ValueError(
                f"'likelihood' must be a {type(self).__name__} with library_size=True, got one "
                "without."
            )
        return self.library

    def _split(self, y: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Return the columns of y that the network takes, and the log of the library size."""
        if self.library is None:
            return y, None
        size = 0 if y is None else y.shape[-1]
        if y is None or size == self.context_dim:
            return y, self.library.usual()
        if size != self.context_dim + 1:
            raise ValueError(
                f"'y' must have {self.context_dim} numbers a row for {type(self).__name__}, and "
                f"behind them the log of the library size, got {size}."
            )
        return y[..., : self.context_dim] if self.context_dim else None, y[..., -1:]

    def _log_mean(self, outputs: Tensor, log_library: Tensor | None) -> Tensor:
        """Return the log of the mean: the outputs themselves, or log(library size × share)."""
        if self.library is None or log_library is None:
            return outputs
        return self.library.log_mean(outputs, log_library)

    @property
    def encoder_input(self) -> EncoderInputFactory:
        """Input that gives log(1 + x), standardised by the training rows."""
        return partial(Composed, steps=[Log1p, Standardized])

    def check(self, x: Tensor) -> None:
        super().check(x)
        if not ((x >= 0) & (x == x.round())).all():
            raise ValueError(
                f"'x' must hold counts (0, 1, 2, …) for {type(self).__name__}, got {found(x, 0)}."
            )

    @property
    def mean_bounds(self) -> tuple[float, float]:
        return 0.0, torch.inf


class PoissonLikelihood(_CountLikelihood):
    """p(x | z) = Π Poisson(x_i; rate_i(z)) for counts, whose mean and variance are the rate.

    rate = min_rate + exp(log_rate), and log p = Σ x_i log rate_i − rate_i − log x_i!, in nats.
    With a library size l, exp(log_rate) is replaced by l × share, with share = softmax(log_rate).

    References:
        Inferring single-trial neural population dynamics using sequential auto-encoders,
            Pandarinath et al., 2018.

    Arguments:
        network: gives log_rate: `(N, D)` to `(N, *x_shape)`.
        x_shape: the shape of one row of data.
        min_rate: the floor of the rate, so that no count is impossible.
        library_size: true for means that are shares of the row's library size. The shares are a
            softmax over the row, and y has the log of the library size as its last number. Where y
            lacks it, it is that of the sum of x, or of the median training row if x is drawn.

    Example:
        >>> p_x = PoissonLikelihood(nn.Linear(2, 64), x_shape=64)(torch.zeros(5, 2))
        >>> p_x.log_prob(torch.ones(5, 64)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        network: Network,
        x_shape: Shape,
        min_rate: float = 1e-6,
        library_size: bool = False,
    ) -> None:
        super().__init__(network, x_shape, library_size=library_size)
        self.min_rate = positive(min_rate, "min_rate", of=self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        seen, log_library = self._split(y)
        outputs = self.call_network(z, seen)
        log_rate = held(self._log_mean(outputs, log_library), HIGHEST_LOG_OF_DATA)
        rate = self.min_rate + log_rate.exp()
        return Poisson(rate).to_event(len(self.x_shape))

    def link(self, mean: Tensor) -> Tensor:
        return bounded_log(mean - self.min_rate)

    def _raw_log_mean(self, outputs: Tensor) -> Tensor:
        return outputs


class _DispersedLikelihood(_CountLikelihood, ABC):
    """p(x | z) for counts with a dispersion, with its start from data.

    Arguments:
        num_outputs: the number of network outputs for each element, without those of the
            dispersion.
    """

    def __init__(
        self,
        network: Network,
        x_shape: Shape,
        num_outputs: int,
        dispersion: float | Scale | None,
        library_size: bool,
    ) -> None:
        shape = as_shape(x_shape, "x_shape")
        scale = LearnedScale(shape) if dispersion is None else as_scale(dispersion, "dispersion")
        out_shape = (num_outputs + scale.num_outputs, *shape)
        super().__init__(network, x_shape, out_shape, library_size)
        self.dispersion = scale
        self.context_dim = with_scale(self.context_dim, scale, "dispersion")

    def initialize(self, mean: Tensor, std: Tensor) -> None:
        self.dispersion.initialize(_dispersion_of_counts(mean, std), MIN_SCALE)

    @torch.no_grad()
    def initialize_offsets(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set the median library size, and start the dispersion at that around the shares."""
        super().initialize_offsets(batches)
        dispersion = dispersion_around_shares(batches).clamp(*_START_DISPERSIONS)
        start = dispersion.to(tensor_like(self))
        self.dispersion.initialize(start, MIN_SCALE)


class NegativeBinomialLikelihood(_DispersedLikelihood):
    """p(x | z) = Π NB(x_i; mean_i(z), dispersion_i) for counts that vary more than a Poisson's.

    It is a Poisson with a Gamma distributed rate: E[x_i | z] = mean = exp(log_mean), and
    Var = mean + dispersion mean². With n = 1 / dispersion and p = mean / (mean + n), in nats,
    log p = Σ log Γ(n + x_i) − log Γ(n) − log x_i! + n log(1 − p_i) + x_i log p_i.

    Value and gradient have single precision for a dispersion of 1e-6 and above. As the dispersion
    goes to 0 the distribution becomes a Poisson.

    References:
        Deep generative modeling for single-cell transcriptomics, Lopez et al., 2018.

    Arguments:
        network: gives log_mean, and also log_dispersion for a `NetworkScale`: `(N, D)` to
            `(N, 1 or 2, *x_shape)`.
        x_shape: the shape of one row of data.
        dispersion: a number (fixed), a `LearnedScale` (one for all, or one for each element) or a
            `NetworkScale` (a function of z), or a `ContextScale` (learned for each context). When
            omitted, one is learned for each element.
        library_size: true for means that are shares of the row's library size. The shares are a
            softmax over the row, and y has the log of the library size as its last number. Where y
            lacks it, it is that of the sum of x, or of the median training row if x is drawn.

    Example:
        >>> likelihood = NegativeBinomialLikelihood(nn.Linear(2, 64), x_shape=64, dispersion=0.5)
        >>> likelihood(torch.zeros(5, 2)).log_prob(torch.ones(5, 64)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        network: Network,
        x_shape: Shape,
        dispersion: float | Scale | None = None,
        library_size: bool = False,
    ) -> None:
        super().__init__(network, x_shape, 1, dispersion, library_size)

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        seen, log_library = self._split(y)
        outputs = self.call_network(z, seen)
        raw_log_mean, *raw_dispersion = outputs.unbind(-1 - len(self.x_shape))
        log_mean = self._log_mean(raw_log_mean, log_library)
        p_x = _negative_binomial(log_mean, self.dispersion.at(raw_dispersion, seen))
        return p_x.to_event(len(self.x_shape))

    def link(self, mean: Tensor) -> Tensor:
        return torch.cat([bounded_log(mean).unsqueeze(0), self.dispersion.start(mean)])

    def _raw_log_mean(self, outputs: Tensor) -> Tensor:
        return outputs.select(-1 - len(self.x_shape), 0)


class ZeroInflatedNegativeBinomialLikelihood(_DispersedLikelihood):
    """p(x | z) = Π gate_i(z) [x_i = 0] + (1 − gate_i(z)) NB(x_i; mean_i(z), dispersion_i).

    It suits counts with extra zeros. With gate = sigmoid(gate_logit), E[x_i | z] = (1 − gate) mean
    and Var = (1 − gate) (mean + (dispersion + gate) mean²). NB is that of
    `NegativeBinomialLikelihood`.

    References:
        Deep generative modeling for single-cell transcriptomics, Lopez et al., 2018.

    Arguments:
        network: gives log_mean, gate_logit, and also log_dispersion for a `NetworkScale`:
            `(N, D)` to `(N, 2 or 3, *x_shape)`.
        x_shape: the shape of one row of data.
        dispersion: a number (fixed), a `LearnedScale` (one for all, or one for each element) or a
            `NetworkScale` (a function of z), or a `ContextScale` (learned for each context). When
            omitted, one is learned for each element.
        library_size: true for means that are shares of the row's library size. The shares are a
            softmax over the row, and y has the log of the library size as its last number. Where y
            lacks it, it is that of the sum of x, or of the median training row if x is drawn.

    Example:
        >>> likelihood = ZeroInflatedNegativeBinomialLikelihood(nn.Linear(2, 2 * 64), x_shape=64)
        >>> likelihood(torch.zeros(5, 2)).log_prob(torch.zeros(5, 64)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        network: Network,
        x_shape: Shape,
        dispersion: float | Scale | None = None,
        library_size: bool = False,
    ) -> None:
        super().__init__(network, x_shape, 2, dispersion, library_size)

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        seen, log_library = self._split(y)
        outputs = self.call_network(z, seen)
        raw_log_mean, gate_logits, *raw_dispersion = outputs.unbind(-1 - len(self.x_shape))
        log_mean = self._log_mean(raw_log_mean, log_library)
        counts = _negative_binomial(log_mean, self.dispersion.at(raw_dispersion, seen))
        # Not Pyro's ZeroInflatedNegativeBinomial: it refuses a mean for which probs rounds to 1.
        p_x = dist.ZeroInflatedDistribution(counts, gate_logits=gate_logits)
        return p_x.to_event(len(self.x_shape))

    def link(self, mean: Tensor) -> Tensor:
        gate_logits = torch.full_like(mean, _START_GATE_LOGIT)
        log_mean = bounded_log(mean / torch.sigmoid(-gate_logits))
        return torch.cat([torch.stack([log_mean, gate_logits]), self.dispersion.start(mean)])

    def _raw_log_mean(self, outputs: Tensor) -> Tensor:
        return outputs.select(-1 - len(self.x_shape), 0)


def _dispersion_of_counts(mean: Tensor, std: Tensor) -> Tensor:
    """Return the dispersion by moments, Var = mean + dispersion mean², from which it can learn."""
    least, most = _START_DISPERSIONS
    dispersion = (std**2 - mean) / (mean**2).clamp(min=least)
    return dispersion.clamp(least, most)


def _negative_binomial(log_mean: Tensor, dispersion: Tensor | float) -> dist.TorchDistribution:
    """Return the distribution of counts, with a mean that stays finite."""
    return NegativeBinomial(held(log_mean, HIGHEST_LOG_OF_DATA), dispersion)
