"""The VAE: the sentence that joins a prior, a likelihood and a posterior into a Pyro model and guide."""

from collections.abc import Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.scale_messenger import ScaleMessenger
from torch import Tensor, nn

from pyro_vae.data.missing import Missing, filled
from pyro_vae.distributions.masks import check_whole, masked
from pyro_vae.distributions.means import distribution_mean
from pyro_vae.parts.contracts import Likelihood, Posterior, Prior
from pyro_vae.support.checks import one_line, positive, whole
from pyro_vae.support.modules import evaluating, tensor_like
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
        if missing not in (None, "nan"):
            raise ValueError(f"'missing' must be \"nan\" or None, got {missing!r}.")
        for name, part, base in (
            ("prior", prior, Prior),
            ("likelihood", likelihood, Likelihood),
            ("posterior", posterior, Posterior),
        ):
            if not isinstance(part, base):
                raise ValueError(f"'{name}' must be a {base.__name__}, got {type(part).__name__}.")
        self.prior, self.likelihood, self.posterior = prior, likelihood, posterior
        self.missing: Missing = missing
        self._check_parts()
        self._store_name = unique_name(self)

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
            return pyro.sample("z", self.posterior(self._as_seen(x), y))

    def register(self) -> None:
        """Show the trainable parameters to Pyro, for a program of yours that uses the parts by themselves.

        `model` and `guide` do so on their own. Pyro's SVI trains what it is shown. `pyro.module` would do the same, but with
        names that two VAEs in one process must not share, and with a warning for each frozen parameter.
        """
        self._register(self.prior, self.likelihood, self.posterior)

    def encode(self, x: Tensor, y: Tensor | None = None) -> TorchDistribution:
        """q(z | x), with batch shape `(*)` for x of shape `(*, *x_shape)`."""
        self._check_shape(x)
        self._check_context(y, x.shape[: len(x.shape) - len(self.x_shape)])
        if poutine.is_validation_enabled():
            self._check_missing(x)
        return self.posterior(self._as_seen(x), y)

    def decode(self, z: Tensor, y: Tensor | None = None) -> TorchDistribution:
        """p(x | z), with batch shape `(*)` for z of shape `(*, D)`."""
        self._check_context(y, z.shape[:-1])
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
        self._check_context(y, (num_rows,))
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
            ValueError: values outside the likelihood's support; NaN, unless the VAE is made for missing entries, and a part
                missing of what has a joint distribution.
        """
        self._check_missing(x)
        self.likelihood.check(x if self.missing is None else filled(x, self.likelihood.filler))
        if self.missing is not None:
            check_whole(self._example("likelihood", torch.Size([self.latent_dim])), ~x.isnan())

    def _of_observed(self, p_x: TorchDistribution, x: Tensor | None) -> tuple[TorchDistribution, Any]:
        """p(x | z) of the observed entries of x alone, and x with a value inside the support in place of the others."""
        if self.missing is None or x is None:
            return p_x, x
        return masked(p_x, ~x.isnan()), filled(x, self.likelihood.filler)

    def _as_seen(self, x: Tensor) -> Tensor:
        """x as the posterior takes it."""
        return x if self.missing is None or self.posterior.takes_nan else filled(x, 0.0)

    def _row_plate(self, x: Tensor | None, y: Tensor | None, num_rows: int | None, size: int | None) -> pyro.plate:
        if any(isinstance(messenger, IndepMessenger) and messenger.dim == -1 for messenger in _PYRO_STACK):
            raise ValueError(
                "vae.model and vae.guide bring their own row plate, so they cannot be called inside another plate at "
                "dim -1: use vae.prior(), vae.likelihood(z) and vae.posterior(x) there."
            )
        self._check_context(y)
        if y is not None and len(y.shape) < 2:
            raise ValueError(f"'y' must have the shape (rows, {self.context_dim}), got {tuple(y.shape)}.")
        if x is not None:
            self._check_shape(x)
            if poutine.is_validation_enabled():
                self.check(x)
            rows = x.shape[-1 - len(self.x_shape)]
            if rows == 0:
                raise ValueError("'x' must have at least one row, got none.")
        elif y is not None:
            rows = y.shape[-2]
        else:
            rows = 1 if num_rows is None else whole(num_rows, "num_rows")
        if y is not None and x is not None and y.shape[-2] != rows:
            raise ValueError(f"'y' must have as many rows as 'x', {rows}, got {y.shape[-2]}.")
        if x is not None:
            self._check_context(y, x.shape[: -len(self.x_shape)])
        if num_rows not in (None, rows):
            raise ValueError(
                f"'num_rows' must be omitted or equal to the number of rows given, {rows}, got {num_rows}."
            )
        if size is not None and size < rows:
            raise ValueError(f"'size' must be at least the number of rows given, {rows}, got {size}.")
        if size is None:
            return pyro.plate("data", rows, dim=-1)
        # Not subsample_size: that would draw a random permutation.
        return pyro.plate("data", size, subsample=torch.arange(rows), dim=-1)

    def _check_shape(self, x: Tensor) -> None:
        if len(x.shape) <= len(self.x_shape) or x.shape[-len(self.x_shape) :] != self.x_shape:
            raise ValueError(
                f"'x' must have the shape (rows, {', '.join(map(str, self.x_shape))}), got {tuple(x.shape)}."
            )

    def _check_missing(self, x: Tensor) -> None:
        if self.missing is None and x.isnan().any():
            raise ValueError("'x' must be finite, got NaN: only a VAE made with missing=\"nan\" takes NaN, as missing.")

    def _check_context(self, y: Tensor | None, batch_shape: Sequence[int] | None = None) -> None:
        shape = (0,) if y is None else tuple(y.shape)
        if shape[-1:] != (self.context_dim,) or (y is not None and not y.is_floating_point()):
            accepted = f"have {self.context_dim} real numbers a row" if self.context_dim else "be omitted"
            received = "none" if y is None else f"{y.dtype} of the shape {shape}"
            raise ValueError(
                f"'y' must {accepted} for a VAE whose parts take a context of {self.context_dim}, got {received}."
            )
        if y is not None and batch_shape is not None and not _expands(shape[:-1], batch_shape):
            wanted = (*batch_shape, self.context_dim)
            raise ValueError(f"'y' must have the shape {wanted}, or one that expands to it, got {shape}.")

    def _check_parts(self) -> None:
        """Two rows of zeros through each part: the sizes fit, or one sentence says which does not."""
        if self.posterior.x_shape != self.likelihood.x_shape:
            expected, received = tuple(self.likelihood.x_shape), tuple(self.posterior.x_shape)
            raise ValueError(f"'posterior' must have the likelihood's x_shape {expected}, got {received}.")
        sizes = {part.context_dim for part in (self.prior, self.likelihood, self.posterior)} - {0}
        if len(sizes) > 1:
            raise ValueError(f"'prior', 'likelihood' and 'posterior' must take a context y of one size, got {sizes}.")
        z_shape = torch.Size([self.latent_dim])
        self._check_part("likelihood", z_shape, self.x_shape)
        self._check_part("posterior", self.x_shape, z_shape)
        self.prior.attach(self.posterior)  # not before the others have been found to fit
        self._check_part("prior", None, z_shape)
        if self.missing is not None:
            self._check_filler()

    def _check_filler(self) -> None:
        """What stands in place of missing entries can be scored."""
        reason = "its log-density there is not finite"
        try:
            x = filled(tensor_like(self).new_full((2, *self.x_shape), torch.nan), self.likelihood.filler)
            self.likelihood.check(x)
            if self._example("likelihood", torch.Size([self.latent_dim])).log_prob(x).isfinite().all():
                return
        except (RuntimeError, TypeError, ValueError) as error:
            reason = one_line(error)
        raise ValueError(
            f"'filler' of {type(self.likelihood).__name__} must be a value that it can score, to stand where x is missing, "
            f"but cannot be: {reason}"
        )

    def _check_part(self, name: str, in_shape: torch.Size | None, event_shape: torch.Size) -> None:
        try:
            distribution = self._example(name, in_shape)
        except (RuntimeError, TypeError, ValueError) as error:
            source = "" if in_shape is None else f" from rows of shape {tuple(in_shape)}"
            raise ValueError(f"'{name}' must make a distribution{source}, but fails: {error}") from error
        if not isinstance(distribution, TorchDistributionMixin):
            raise ValueError(f"'{name}' must return a Pyro distribution, got {type(distribution).__name__}.")
        expected = f"event shape {tuple(event_shape)}" + (
            "" if in_shape is None else " and one distribution for each row"
        )
        batch_shapes = ((), (2,)) if in_shape is None else ((2,),)
        if tuple(distribution.batch_shape) not in batch_shapes or distribution.event_shape != event_shape:
            raise ValueError(
                f"'{name}' must return a distribution with {expected}, got the batch shape "
                f"{tuple(distribution.batch_shape)} and the event shape {tuple(distribution.event_shape)} for two rows."
            )

    @torch.no_grad()
    def _example(self, name: str, in_shape: torch.Size | None) -> Any:
        """What a part makes of two rows of zeros."""
        part = getattr(self, name)
        like = tensor_like(part)
        rows = () if in_shape is None else (like.new_zeros(2, *in_shape),)
        y = like.new_zeros(2, self.context_dim) if self.context_dim else None
        with evaluating(self):
            return part(*rows, y)

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


def _expands(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    pairs = zip(reversed(shape), reversed(wanted), strict=False)
    return len(shape) <= len(wanted) and all(size in (1, full) for size, full in pairs)


def _weighted(kl_weight: float | Tensor) -> ScaleMessenger:
    if not isinstance(kl_weight, Tensor):
        positive(kl_weight, "kl_weight")
    return ScaleMessenger(scale=kl_weight)
