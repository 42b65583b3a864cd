"""The VAE: the sentence that joins a prior, a likelihood and a posterior into a Pyro model and guide."""

from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.scale_messenger import ScaleMessenger
from torch import Tensor, nn

from pyro_vae.data.missing import Missing
from pyro_vae.distributions.means import distribution_mean
from pyro_vae.parts.checks import (
    check_context,
    check_filler,
    check_fit,
    check_kinds,
    check_shape,
    example,
    num_rows_of,
)
from pyro_vae.parts.contracts import Likelihood, Posterior, Prior
from pyro_vae.parts.entries import entries_of
from pyro_vae.support.checks import positive
from pyro_vae.support.modules import evaluating
from pyro_vae.support.store import make_picklable, show, unique_name


class VAE(nn.Module):
    """A variational autoencoder: p(x, z) = p(z) p(x | z), with q(z | x) in place of the posterior p(z | x).

    `model` and `guide` are ordinary Pyro programs, and all parameters are the module's own.

    With `missing="nan"` an entry of x that is NaN is missing, wherever x is given: the model is that of the observed
    entries, p(z) p(x_observed | z), and the posterior sees 0 in place of the others, or the mask too where its network is a
    `WithMask`. That is right where what is missing depends on observed entries alone ("missing at random").

    References:
        Auto-encoding variational Bayes, Kingma and Welling, 2013.
        Stochastic backpropagation and approximate inference in deep generative models, Rezende et al., 2014.
        MIWAE: deep generative modelling and imputation of incomplete data sets, Mattei and Frellsen, 2019: with missing
        entries, `ImportanceWeightedELBO` is its bound.

    Arguments:
        prior: p(z).
        likelihood: p(x | z).
        posterior: q(z | x).
        missing: `"nan"` to take NaN as missing; None to refuse it.

    Raises:
        ValueError: the parts do not fit together; a likelihood that cannot score its own `filler`, where that is needed.

    Example:
        >>> vae = VAE(
        ...     prior=StandardNormalPrior(latent_dim=2),
        ...     likelihood=BernoulliLikelihood(MLP(2, [32], 64), x_shape=(1, 8, 8)),
        ...     posterior=DiagNormalPosterior(MLP(64, [32], 4), x_shape=(1, 8, 8), latent_dim=2),
        ... )
        >>> vae.elbo(vae.sample(5)).shape
        torch.Size([5])
    """

    def __init__(self, prior: Prior, likelihood: Likelihood, posterior: Posterior, missing: Missing = None) -> None:
        super().__init__()
        self._entries = entries_of(missing)
        check_kinds(prior, likelihood, posterior)
        self.prior = prior
        self.likelihood = likelihood
        self.posterior = posterior
        self.missing: Missing = missing
        with evaluating(self):
            check_fit(prior, likelihood, posterior)
            if missing is not None:
                check_filler(likelihood, self.latent_dim, self.context_dim)
        self._store_name = unique_name(self)

    def model(
        self,
        x: Tensor | None = None,
        y: Tensor | None = None,
        *,
        num_rows: int | None = None,
        size: int | None = None,
        kl_weight: float | Tensor = 1.0,
    ) -> Tensor:
        """The Pyro program p(z) p(x | z), with sites `"z"` and `"x"` in a plate `"data"`; returns x.

        Arguments:
            x: observed rows, `(B, *x_shape)`; drawn when omitted. Missing entries come back as the likelihood's `filler`.
            y: the context of each row, `(B, Y)`.
            num_rows: how many rows to draw when neither x nor y tells.
            size: the rows of the whole data set, when x is a minibatch that stands for it.
            kl_weight: the weight of the KL term, greater than 0 (the β of a β-VAE), in model and guide alike.

        Raises:
            ValueError: x of another shape, or outside the likelihood's support; a call inside a row plate.
        """
        self._register(self.prior, self.likelihood)
        with self._row_plate(x, y, num_rows, size):
            with _weighted(kl_weight):
                z = pyro.sample("z", self.prior(y))
            p_x, x = self._of_observed(self.likelihood(z, y), x)
            return pyro.sample("x", p_x, obs=x)

    def guide(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        num_rows: int | None = None,
        size: int | None = None,
        kl_weight: float | Tensor = 1.0,
    ) -> Tensor:
        """The Pyro program q(z | x), with site `"z"` in a plate `"data"`; returns z. Arguments as for `model`."""
        self._register(self.posterior)
        with self._row_plate(x, y, num_rows, size), _weighted(kl_weight):
            return pyro.sample("z", self.posterior(self._entries.seen(x, self.posterior), y))

    @property
    def latent_dim(self) -> int:
        """The number D of latent dimensions."""
        return self.prior.latent_dim

    @property
    def context_dim(self) -> int:
        """The size Y of the context y of a conditional VAE, p(x | y), which some of the parts take; 0 for none."""
        return max(part.context_dim for part in (self.prior, self.likelihood, self.posterior))

    @property
    def x_shape(self) -> torch.Size:
        """The shape of one row of data."""
        return self.likelihood.x_shape

    def register(self) -> None:
        """Show the trainable parameters to Pyro, for a program of yours that uses the parts by themselves.

        `model` and `guide` do so on their own. Pyro's SVI trains what it is shown. `pyro.module` would do the same, but with
        names that two VAEs in one process must not share, and with a warning for each frozen parameter.
        """
        self._register(self.prior, self.likelihood, self.posterior)

    def encode(self, x: Tensor, y: Tensor | None = None) -> TorchDistribution:
        """q(z | x), with batch shape `(*)` for x of shape `(*, *x_shape)`."""
        check_shape(x, self.x_shape)
        check_context(y, self.context_dim, x.shape[: len(x.shape) - len(self.x_shape)])
        if poutine.is_validation_enabled():
            self._entries.check(x)
        return self.posterior(self._entries.seen(x, self.posterior), y)

    def decode(self, z: Tensor, y: Tensor | None = None) -> TorchDistribution:
        """p(x | z), with batch shape `(*)` for z of shape `(*, D)`."""
        check_context(y, self.context_dim, z.shape[:-1])
        return self.likelihood(z, y)

    def log_likelihood(self, x: Tensor, z: Tensor, y: Tensor | None = None) -> Tensor:
        """log p(x | z) of the observed entries, in nats, `(*)`, for x of shape `(*, *x_shape)` and z of shape `(*, D)`."""
        p_x, x = self._of_observed(self.decode(z, y), x)
        return p_x.log_prob(x)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """E[x′ | z] at z = E_q[z | x], with the shape of x."""
        return distribution_mean(self.decode(distribution_mean(self.encode(x, y)), y))

    @torch.no_grad()
    def sample(self, num_rows: int, y: Tensor | None = None, *, latent: TorchDistribution | None = None) -> Tensor:
        """Rows drawn from p(z) p(x | z), `(num_rows, *x_shape)`; for their means, decode draws from the prior.

        Arguments:
            num_rows: how many.
            y: the context of each row, `(num_rows, Y)`, or one for all, `(Y,)`.
            latent: draws z in place of the prior, for instance an `AggregatedPosterior`.
        """
        check_context(y, self.context_dim, (num_rows,))
        p_z = self.prior(y) if latent is None else latent
        z = p_z.expand(torch.Size([num_rows])).sample()
        return self.decode(z, y).sample()

    def elbo(self, x: Tensor, y: Tensor | None = None, *, num_samples: int = 1) -> Tensor:
        """A lower bound on log p(x) for each row, E_q[log p(x | z) + log p(z) − log q(z | x)], by Monte Carlo.

        Arguments:
            x: rows, `(B, *x_shape)`.
            y: the context of each row, `(B, Y)`.
            num_samples: the number S of draws that are averaged.

        Returns:
            The estimate in nats, `(B,)`; differentiable where q(z | x) has `rsample`.
        """
        if poutine.is_validation_enabled():
            self.check(x)
        q_z, p_z = self.encode(x, y), self.prior(y)
        draw = q_z.rsample if q_z.has_rsample else q_z.sample
        z = draw(torch.Size([num_samples]))
        return (self.log_likelihood(x, z, y) + p_z.log_prob(z) - q_z.log_prob(z)).mean(0)

    @torch.no_grad()
    def check(self, x: Tensor) -> None:
        """Refuse rows, `(*, *x_shape)`, that the VAE cannot score.

        Raises:
            ValueError: if values are outside the likelihood's support, NaN is not expected, or a part is missing of what
                has a joint distribution.
        """
        self._entries.check(x)
        self.likelihood.check(self._entries.complete(x, self.likelihood))
        if self.missing is not None:
            with evaluating(self):
                p_x = example(self.likelihood, torch.Size([self.latent_dim]), self.context_dim)
            self._entries.check_events(p_x, x)

    def _of_observed(self, p_x: TorchDistribution, x: Tensor | None) -> tuple[TorchDistribution, Any]:
        """p(x | z) of the observed entries of x alone, and an x that it can score."""
        return (p_x, x) if x is None else self._entries.observed(p_x, x, self.likelihood)

    def _row_plate(self, x: Tensor | None, y: Tensor | None, num_rows: int | None, size: int | None) -> pyro.plate:
        _refuse_row_plate()
        self._check_given(x, y)
        rows = num_rows_of(self.x_shape, x, y, num_rows, size)
        if x is not None:
            check_context(y, self.context_dim, x.shape[: -len(self.x_shape)])
        if size is None:
            return pyro.plate("data", rows, dim=-1)
        # Not subsample_size: that would draw a random permutation.
        return pyro.plate("data", size, subsample=torch.arange(rows), dim=-1)

    def _check_given(self, x: Tensor | None, y: Tensor | None) -> None:
        check_context(y, self.context_dim)
        if y is not None and len(y.shape) < 2:
            raise ValueError(f"'y' must have the shape (rows, {self.context_dim}), got {tuple(y.shape)}.")
        if x is not None:
            check_shape(x, self.x_shape)
            if poutine.is_validation_enabled():
                self.check(x)

    def extra_repr(self) -> str:
        return "" if self.missing is None else f"missing={self.missing!r}"

    def _register(self, *parts: nn.Module) -> None:
        """Show the parameters of these parts to Pyro; a tensor that two parts share has one name."""
        names = {parameter: f"{self._store_name}.{name}" for name, parameter in self.named_parameters()}
        show((names[parameter], parameter) for part in parts for parameter in part.parameters())

    def __getstate__(self) -> dict[str, Any]:
        make_picklable(self.parameters())
        return self.__dict__.copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A deep copy and an unpickled VAE pass here: with the old name they would train the original.
        super().__setstate__(state)
        self._store_name = unique_name(self)


def _refuse_row_plate() -> None:
    """Refuse a call inside a plate of the user's that lies where the rows do."""
    if any(isinstance(messenger, IndepMessenger) and messenger.dim == -1 for messenger in _PYRO_STACK):
        raise ValueError(
            "vae.model and vae.guide bring their own row plate, so they cannot be called inside another plate at "
            "dim -1: use vae.prior(), vae.likelihood(z) and vae.posterior(x) there."
        )


def _weighted(kl_weight: float | Tensor) -> ScaleMessenger:
    if not isinstance(kl_weight, Tensor):
        positive(kl_weight, "kl_weight")
    return ScaleMessenger(scale=kl_weight)
