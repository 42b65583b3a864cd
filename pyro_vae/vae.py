"""The VAE, which joins a prior, a likelihood and a posterior into a Pyro model and guide."""

from collections.abc import Sequence
from os import PathLike
from types import NoneType
from typing import Any, NoReturn

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.poutine.scale_messenger import ScaleMessenger
from torch import Tensor, nn

from pyro_vae.data.arrays import Array
from pyro_vae.data.contexts import as_y
from pyro_vae.data.missing import Missing
from pyro_vae.data.rows import Rows, as_x
from pyro_vae.distributions.means import distribution_mean
from pyro_vae.parts.checks import (
    check_context,
    check_filler,
    check_finite,
    check_fit,
    check_kinds,
    check_latent,
    check_latents_of_rows,
    check_no_infinity,
    check_outside_row_plate,
    check_shape,
    num_rows_of,
)
from pyro_vae.parts.contracts import Likelihood, Posterior, Prior
from pyro_vae.parts.missing_entries import entries_of
from pyro_vae.parts.offsets import joined, num_columns, split, taken_by
from pyro_vae.parts.trials import example
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import positive, whole
from pyro_vae.support.methods_of_users import returned
from pyro_vae.support.modules import evaluating, tensor_like
from pyro_vae.support.store import make_picklable, show, unique_name
from pyro_vae.support.weight_files import load_weights, save_weights


class VAE(nn.Module):
    """Variational autoencoder p(x, z) = p(z) p(x | z), with q(z | x) ≈ p(z | x).

    `model` and `guide` are ordinary Pyro programs. All parameters belong to the module.

    The methods take x, y and z as tensors, as arrays, or as anything that numpy turns into one, and
    x also as `Rows`. They convert them to the dtype of the parameters, on their device. A context y
    is a vector of real numbers for each row, or a label, a whole number from 0.

    With `missing="nan"` an entry of x that is NaN is missing, in each method that takes x. The
    model is then that of the observed entries, p(z) p(x_observed | z). The posterior sees 0 in
    place of missing entries, and also the mask if its network is a `WithMask`. This is right if
    the missing pattern depends on observed entries alone ("missing at random").

    References:
        Auto-encoding variational Bayes, Kingma and Welling, 2013.
        Stochastic backpropagation and approximate inference in deep generative models, Rezende et
            al., 2014.
        MIWAE: deep generative modelling and imputation of incomplete data sets, Mattei and
            Frellsen, 2019: with missing entries, `ImportanceWeightedELBO` is its bound.

    Arguments:
        prior: p(z).
        likelihood: p(x | z).
        posterior: q(z | x).
        missing: `"nan"` to take NaN as missing; None to refuse it.

    Raises:
        ValueError: if the parts do not fit together; if entries may be missing and the likelihood
            cannot score its own `filler`.

    Example:
        >>> vae = VAE(
        ...     prior=StandardNormalPrior(latent_dim=2),
        ...     likelihood=BernoulliLikelihood(MLP(2, [32], 64), x_shape=(1, 8, 8)),
        ...     posterior=DiagNormalPosterior(MLP(64, [32], 4), x_shape=(1, 8, 8), latent_dim=2),
        ... )
        >>> vae.elbo(vae.sample(5)).shape
        torch.Size([5])
    """

    def __init__(
        self, prior: Prior, likelihood: Likelihood, posterior: Posterior, missing: Missing = None
    ) -> None:
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

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse a call of the VAE itself, which could mean several of its methods."""
        raise TypeError(
            "A VAE is not called itself: call its encode(x), decode(z), reconstruct(x), elbo(x) or "
            "sample(num_rows)."
        )

    def model(
        self,
        x: Rows | Array | None = None,
        y: Array | None = None,
        *,
        num_rows: int | None = None,
        size: int | None = None,
        kl_weight: float | Tensor = 1.0,
    ) -> Tensor:
        """Run the Pyro program p(z) p(x | z), with sites `"z"` and `"x"` in a plate `"data"`.

        Arguments:
            x: observed rows, `(B, *x_shape)`; drawn when omitted.
            y: the context of each row, `(B, Y)`.
            num_rows: the number of rows to draw without x and y.
            size: the number of rows of the whole data set, if x is a minibatch of it.
            kl_weight: the weight of the KL term, greater than 0 (the β of a β-VAE); give model and
                guide the same weight.

        Returns:
            x, `(B, *x_shape)`, with the likelihood's `filler` for missing entries.

        Raises:
            ValueError: if x has another shape or lies outside the likelihood's support, or the call
                is inside a row plate.
        """
        rows: Tensor | None = None
        context = self.read_context(y)
        if x is not None:
            rows, context = self._read(x, y)
        plate = self._row_plate(rows, context, num_rows, size)
        weight = _weighted(kl_weight)
        self._register(self.prior, self.likelihood)
        with plate:
            with weight:
                z = pyro.sample("z", self._p_z(context))
            p_x, observed = self._of_observed(self._p_x(z, context), rows)
            return pyro.sample("x", p_x, obs=observed)

    def guide(
        self,
        x: Rows | Array,
        y: Array | None = None,
        *,
        num_rows: int | None = None,
        size: int | None = None,
        kl_weight: float | Tensor = 1.0,
    ) -> Tensor:
        """Run the Pyro program q(z | x), with site `"z"` in a plate `"data"`, and return z.

        Arguments and errors are those of `model`.
        """
        rows, context = self._read(x, y)
        plate = self._row_plate(rows, context, num_rows, size)
        weight = _weighted(kl_weight)
        self._register(self.posterior)
        with plate, weight:
            seen = self._entries.seen(rows, self.posterior)
            return pyro.sample("z", self._q_z(seen, context))

    @property
    def latent_dim(self) -> int:
        """Number D of latent dimensions."""
        return self.prior.latent_dim

    @property
    def context_dim(self) -> int:
        """Size Y of the context y that some of the parts take, for p(x | y); 0 for none."""
        return max(part.context_dim for part in (self.prior, self.likelihood, self.posterior))

    @property
    def x_shape(self) -> torch.Size:
        """Shape of one row of data."""
        return self.likelihood.x_shape

    def register(self) -> None:
        """Show the trainable parameters to Pyro, for a program that uses the parts directly.

        `model` and `guide` do this themselves. Pyro's SVI trains the parameters that it is shown.
        `pyro.module` does the same, but two VAEs in one process then need different names, and
        each frozen parameter gives a warning.
        """
        self._register(self.prior, self.likelihood, self.posterior)

    def encode(self, x: Rows | Array, y: Array | None = None) -> TorchDistribution:
        """Return q(z | x), with batch shape `(*)` for x of shape `(*, *x_shape)`.

        Raises:
            ValueError: if x or y has another shape, or x has NaN that is not expected.
        """
        rows, context = self._read_rows(x, y)
        if poutine.is_validation_enabled():
            self._entries.check(rows)
            check_no_infinity(rows)
        return self._q_z(self._entries.seen(rows, self.posterior), context)

    def decode(self, z: Array, y: Array | None = None) -> TorchDistribution:
        """Return p(x | z), with batch shape `(*)` for z of shape `(*, D)`.

        Raises:
            ValueError: if z or y has another shape.
        """
        latents = as_x(z, tensor_like(self), "z")
        context = self.read_context(y)
        if latents.shape[-1:] != (self.latent_dim,):
            raise ValueError(
                f"'z' must have the shape (*, {self.latent_dim}), got {tuple(latents.shape)}."
            )
        self.check_context(context, latents.shape[:-1])
        return self._p_x(latents, context)

    def p_z(self, y: Array | None = None) -> TorchDistribution:
        """Return p(z), or p(z | y) with batch shape `(*)` for y of shape `(*, Y)`.

        Raises:
            ValueError: if y has another shape.
        """
        context = self.read_context(y)
        self.check_context(context)
        return self._p_z(context)

    def read_context(self, y: Array | int | None) -> Tensor | None:
        """Return a context in the dtype of the parameters, on their device; None stays None.

        Arguments:
            y: vectors of rows, `(*, Y)`, with or without the likelihood's offsets; or labels.

        Raises:
            ValueError: if y holds other labels, or is not finite.
        """
        context = as_y(y, self.num_columns(y), tensor_like(self))
        if poutine.is_validation_enabled():
            check_finite(context)
            self._check_offsets(context)
        return context

    def check_context(self, y: Tensor | None, batch_shape: Sequence[int] | None = None) -> None:
        """Refuse a context y that does not fit the VAE or the rows.

        Arguments:
            y: the context, `(*, Y)`, with or without the likelihood's offsets.
            batch_shape: the batch shape of the rows of y, if it is known.

        Raises:
            ValueError: if y is missing, has another size, or does not expand to `batch_shape`.
        """
        check_context(y, self.num_columns(y), batch_shape)

    def with_offsets(self, x: Tensor | None, y: Tensor | None) -> Tensor | None:
        """Return a context y with the columns that only the likelihood takes.

        If y has them, or the likelihood takes none, y is returned as it is.

        Arguments:
            x: the rows, `(*, *x_shape)`; None for rows that are to be drawn.
            y: their context, `(*, Y)`.

        Raises:
            ValueError: if y lacks the columns and the VAE takes NaN, since they depend on all x.
        """
        likelihood = self.likelihood
        if not likelihood.offset_dim:
            return y
        seen, offsets = split(y, self.context_dim)
        if offsets is not None:
            return y
        if x is not None:
            self._check_complete()
            check_shape(x, self.x_shape, least_axes=0)
        return joined(seen, likelihood.offsets(x))

    def _check_offsets(self, y: Tensor | None) -> None:
        if self.likelihood.offset_dim:
            _, offsets = split(y, self.context_dim)
            if offsets is not None:
                self.likelihood.check_offsets(offsets)

    def _check_complete(self) -> None:
        """Refuse to find offsets of rows that may have missing entries."""
        if self.missing is not None:
            size = self.context_dim + self.likelihood.offset_dim
            raise ValueError(
                f"'y' must have {size} numbers a row, the offsets of the likelihood included, for "
                'a VAE with missing="nan", since a row with missing entries does not give them.'
            )

    def context_of(self, rows: Rows, name: str = "data") -> Tensor | None:
        """Return the context of rows, `(N, Y)`, with offsets if their labels have them.

        Raises:
            ValueError: if the labels are no context for this VAE.
        """
        return rows.context(self.num_columns(rows.labels), name)

    def num_columns(self, y: Array | int | None) -> int:
        """Return the number of columns that a context y should have, with offsets if it has them.

        Arguments:
            y: vectors or labels; None for none.
        """
        return num_columns(y, self.context_dim, self.likelihood.offset_dim)

    def log_likelihood(self, x: Rows | Array, z: Array, y: Array | None = None) -> Tensor:
        """Return log p(x | z) of the observed entries, in nats, `(*)`.

        Arguments:
            x: rows, `(*, *x_shape)`.
            z: latents, `(*, D)`.
            y: the context of each row, `(*, Y)`.
        """
        rows, context = self._read(x, y)
        check_shape(rows, self.x_shape, least_axes=0)
        decoded = self.decode(z, context)
        check_latents_of_rows(decoded.batch_shape, rows.shape[: rows.dim() - len(self.x_shape)])
        p_x, observed = self._of_observed(decoded, rows)
        return p_x.log_prob(observed)

    @torch.no_grad()
    def reconstruct(self, x: Rows | Array, y: Array | None = None) -> Tensor:
        """Return E[x′ | z] at z = E_q[z | x], with the shape of x."""
        rows, context = self._read_rows(x, y)
        z = distribution_mean(self.encode(rows, context))
        return distribution_mean(self.decode(z, context))

    @torch.no_grad()
    def sample(
        self,
        num_rows: int,
        y: Array | int | None = None,
        *,
        latent: TorchDistribution | None = None,
    ) -> Tensor:
        """Draw rows from p(z) p(x | z), `(num_rows, *x_shape)`.

        For their means, decode draws from the prior.

        Arguments:
            num_rows: the number of rows.
            y: the context of each row, `(num_rows, Y)`, or one for all, `(Y,)`; or their labels,
                `(num_rows,)`, or one for all.
            latent: the distribution of z in place of the prior, such as an `AggregatedPosterior`.
        """
        count = whole(num_rows, "num_rows")
        context = self.read_context(y)
        self.check_context(context, (count,))
        if latent is not None:
            check_latent(latent, self.latent_dim, count)
        p_z = self._p_z(context) if latent is None else latent
        z = p_z.expand(torch.Size([count])).sample()
        return self.decode(z, context).sample()

    def elbo(self, x: Rows | Array, y: Array | None = None, *, num_samples: int = 1) -> Tensor:
        """Estimate E_q[log p(x | z) + log p(z) − log q(z | x)] ≤ log p(x) of each row.

        Arguments:
            x: rows, `(B, *x_shape)`.
            y: the context of each row, `(B, Y)`.
            num_samples: the number S of draws of z that are averaged.

        Returns:
            The Monte Carlo estimate in nats, `(B,)`; differentiable if q(z | x) has `rsample`.

        Raises:
            ValueError: if the VAE cannot score the rows.
        """
        count = whole(num_samples, "num_samples")
        rows, context = self._read_rows(x, y)
        if len(rows) == 0:
            raise ValueError("'x' must have at least one row, got none.")
        if poutine.is_validation_enabled():
            self.check(rows)
        q_z = self.encode(rows, context)
        p_z = self._p_z(context)
        draw = q_z.rsample if q_z.has_rsample else q_z.sample
        z = draw(torch.Size([count]))
        log_likelihood = self.log_likelihood(rows, z, context)
        return (log_likelihood + p_z.log_prob(z) - q_z.log_prob(z)).mean(0)

    @torch.no_grad()
    def check(self, x: Rows | Array) -> None:
        """Refuse rows, `(*, *x_shape)`, that the VAE cannot score.

        Raises:
            ValueError: if values lie outside the likelihood's support, NaN is not expected, a joint
                event is partly missing, or the parameters are float16.
        """
        rows = as_x(x, tensor_like(self))
        if rows.dtype == torch.float16:
            raise ValueError(
                "'vae' must have parameters of float32, float64 or bfloat16 to score rows, got "
                "float16, in which log-densities overflow."
            )
        check_shape(rows, self.x_shape)
        self._entries.check(rows)
        if self.missing is not None:
            with evaluating(self):
                p_x = example(self.likelihood, torch.Size([self.latent_dim]), self.context_dim)
            self._entries.check_events(p_x, rows)
        check: Any = self.likelihood.check  # a user's own may return a value
        refused = check(self._entries.complete(rows, self.likelihood))
        accepted = "None, and raise a ValueError for rows that it refuses"
        returned(refused, NoneType, self.likelihood, "check", accepted)

    @arguments_checked
    def save(self, path: str | PathLike) -> None:
        """Write the weights to a file, with the repr and a hash of the architecture.

        `load_weights` of a VAE that is built in the same way reads it. An existing file is
        replaced only if it is of this kind. Folders on the way to it are made.

        Raises:
            ValueError: if weights are NaN or infinite, or the file cannot be written.
        """
        save_weights(self, path)

    @arguments_checked
    def load_weights(self, path: str | PathLike) -> None:
        """Replace the weights by those in a file of `save`. No code in the file is run.

        It warns if the VAE was built with other arguments that leave the architecture the same.

        Raises:
            ValueError: if the file is missing, damaged or of another kind; if the VAE that was
                saved has another architecture, by the names, shapes and classes of its parts; if
                weights are NaN or infinite. The VAE then stays as it was.
        """
        load_weights(self, path)

    def _read(self, x: Rows | Array, y: Array | None) -> tuple[Tensor, Tensor | None]:
        """Return x and y in the dtype of the parameters, on their device.

        `Rows` also give their context, if none is given.
        """
        if isinstance(x, Rows) and y is None:
            y = self.context_of(x, "x")
        rows = as_x(x, tensor_like(self))
        return rows, self.with_offsets(rows, self.read_context(y))

    def _p_z(self, y: Tensor | None) -> TorchDistribution:
        return self.prior(self._seen(y))

    def _p_x(self, z: Tensor, y: Tensor | None) -> TorchDistribution:
        return self.likelihood(z, taken_by(self.likelihood, y, self.context_dim))

    def _q_z(self, x: Tensor, y: Tensor | None) -> TorchDistribution:
        return self.posterior(x, self._seen(y))

    def _seen(self, y: Tensor | None) -> Tensor | None:
        """Return the columns of y that networks take."""
        return split(y, self.context_dim)[0] if self.likelihood.offset_dim else y

    def _read_rows(self, x: Rows | Array, y: Array | None) -> tuple[Tensor, Tensor | None]:
        """Return x and y as `_read` does, if they have the shapes that the VAE takes."""
        rows, context = self._read(x, y)
        check_shape(rows, self.x_shape)
        batch_shape = rows.shape[: len(rows.shape) - len(self.x_shape)]
        self.check_context(context, batch_shape)
        return rows, context

    def _of_observed(
        self, p_x: TorchDistribution, x: Tensor | None
    ) -> tuple[TorchDistribution, Any]:
        """Return p(x | z) of only the observed entries, and an x that it can score."""
        if x is None:
            return p_x, x
        return self._entries.observed(p_x, x, self.likelihood)

    def _row_plate(
        self, x: Tensor | None, y: Tensor | None, num_rows: int | None, size: int | None
    ) -> pyro.plate:
        check_outside_row_plate()
        self._check_given(x, y)
        rows = num_rows_of(self.x_shape, x, y, num_rows, size)
        if x is not None:
            self.check_context(y, x.shape[: -len(self.x_shape)])
        if size is None:
            return pyro.plate("data", rows, dim=-1)
        # Not subsample_size, which would draw a random permutation.
        return pyro.plate("data", size, subsample=torch.arange(rows), dim=-1)

    def _check_given(self, x: Tensor | None, y: Tensor | None) -> None:
        self.check_context(y)
        if y is not None and len(y.shape) < 2:
            raise ValueError(
                f"'y' must have the shape (rows, {self.context_dim}), got {tuple(y.shape)}."
            )
        if x is not None:
            check_shape(x, self.x_shape)
            if poutine.is_validation_enabled():
                self.check(x)

    def extra_repr(self) -> str:
        return "" if self.missing is None else f"missing={self.missing!r}"

    def _register(self, *parts: nn.Module) -> None:
        """Show the parameters of these parts to Pyro; a tensor of two parts has one name."""
        names = {parameter: name for name, parameter in self.named_parameters()}
        named_parameters = []
        for part in parts:
            for parameter in part.parameters():
                name = f"{self._store_name}.{names[parameter]}"
                named_parameters.append((name, parameter))
        show(named_parameters)

    def __getstate__(self) -> dict[str, Any]:
        make_picklable(self.parameters())
        return self.__dict__.copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A copied or unpickled VAE gets a new name: with the old one it would train the original.
        super().__setstate__(state)
        self._store_name = unique_name(self)


def _weighted(kl_weight: float | Tensor) -> ScaleMessenger:
    if not isinstance(kl_weight, Tensor):
        positive(kl_weight, "kl_weight")
    return ScaleMessenger(scale=kl_weight)
