"""Checks of the parts of a VAE, and of the rows that it is given."""

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor, nn

from pyro_vae.data.missing import filled
from pyro_vae.parts.contracts import Likelihood, Posterior, Prior
from pyro_vae.parts.trials import check_part, example
from pyro_vae.support.checks import as_int, as_real, described, one_line, whole, with_article
from pyro_vae.support.modules import tensor_like

# The sizes that the base class of each role sets.
_SIZES: dict[type, tuple[str, ...]] = {
    Prior: ("latent_dim",),
    Likelihood: ("x_shape",),
    Posterior: ("x_shape", "latent_dim"),
}


def check_kinds(prior: Prior, likelihood: Likelihood, posterior: Posterior) -> None:
    """Refuse parts that are no prior, likelihood or posterior.

    Raises:
        ValueError: if one is of another kind.
    """
    _check_kind("prior", prior, Prior)
    _check_kind("likelihood", likelihood, Likelihood)
    _check_kind("posterior", posterior, Posterior)


def _check_kind(name: str, part: Any, base: type) -> None:
    if not isinstance(part, base):
        raise ValueError(f"'{name}' must be a {base.__name__}, got {described(part)}.")
    title = f"'{name}', {with_article(type(part).__name__)},"
    needed = _SIZES[base]
    if not all(hasattr(part, size) for size in ("_modules", *needed)):
        raise ValueError(
            f"{title} must call super().__init__() of {base.__name__} in its own __init__, which "
            f"sets {' and '.join(needed)}."
        )
    for size, least in (("latent_dim", 1), ("context_dim", 0)):
        number = as_int(getattr(part, size, least))
        if number is None or number < least:
            raise ValueError(
                f"{title} must have a whole number of at least {least} as {size}, got "
                f"{described(getattr(part, size))}."
            )
    shape = getattr(part, "x_shape", ())
    if not isinstance(shape, tuple) or not all(map(as_int, shape)):
        raise ValueError(f"{title} must have a tuple of sizes as x_shape, got {described(shape)}.")


def check_fit(prior: Prior, likelihood: Likelihood, posterior: Posterior) -> None:
    """Refuse parts whose sizes do not fit together; attach the prior to the posterior.

    The check passes two rows of zeros through each part.

    Raises:
        ValueError: if a part takes or gives other sizes than its neighbours.
    """
    x_shape = likelihood.x_shape
    if posterior.x_shape != x_shape:
        raise ValueError(
            f"'posterior' must have the likelihood's x_shape {tuple(x_shape)}, got "
            f"{tuple(posterior.x_shape)}."
        )
    context_dim = _common_context(prior, likelihood, posterior)
    z_shape = torch.Size([prior.latent_dim])
    like = tensor_like(nn.ModuleList([prior, likelihood, posterior]))
    check_part("likelihood", likelihood, z_shape, x_shape, context_dim, like, takes_draws=True)
    check_part("posterior", posterior, x_shape, z_shape, context_dim, like)
    prior.attach(posterior)  # not before the others have been found to fit
    check_part("prior", prior, None, z_shape, context_dim, like)


def check_filler(likelihood: Likelihood, latent_dim: int, context_dim: int) -> None:
    """Refuse a likelihood that cannot score its own `filler`, the value of missing entries.

    Raises:
        ValueError: if its check refuses the filler, or log p(x | z) is not finite there.
    """
    reason = "its log-density there is not finite"
    filler = likelihood.filler
    if isinstance(filler, Tensor):
        fits = _expands(filler.shape, likelihood.x_shape)
    else:
        fits = as_real(filler) is not None
    if not fits:
        raise ValueError(
            f"'filler' of {type(likelihood).__name__} must be a number, or a tensor that "
            f"broadcasts to {tuple(likelihood.x_shape)}, got {described(filler)}."
        )
    try:
        all_missing = tensor_like(likelihood).new_full((2, *likelihood.x_shape), torch.nan)
        x = filled(all_missing, filler)
        likelihood.check(x)
        p_x = example(likelihood, torch.Size([latent_dim]), context_dim)
        if p_x.log_prob(x).isfinite().all():
            return
    except (RuntimeError, TypeError, ValueError) as error:
        reason = one_line(error)
    raise ValueError(
        f"'filler' of {type(likelihood).__name__} must be a value that it can score, for missing "
        f"entries of x, but it cannot: {reason}"
    )


def check_shape(x: Tensor, x_shape: torch.Size, least_axes: int = 1) -> None:
    """Refuse rows of another shape.

    Arguments:
        x: the rows.
        x_shape: the shape of one row.
        least_axes: the least number of axes in front of it; 0 takes one row without an axis.

    Raises:
        ValueError: if x does not have the shape `(*, *x_shape)` with so many axes.
    """
    num_axes = len(x.shape) - len(x_shape)
    if num_axes < least_axes or x.shape[num_axes:] != x_shape:
        raise ValueError(
            f"'x' must have the shape (rows, {', '.join(map(str, x_shape))}), got {tuple(x.shape)}."
        )


def check_no_infinity(x: Tensor) -> None:
    """Refuse x that is infinite.

    Raises:
        ValueError: if x has infinity.
    """
    if x.isinf().any():
        raise ValueError("'x' must be finite, got infinity.")


def check_context(
    y: Tensor | None,
    context_dim: int,
    batch_shape: Sequence[int] | None = None,
) -> None:
    """Refuse a context y that does not fit the VAE or the rows.

    Arguments:
        y: the context, `(*, Y)`.
        context_dim: the size Y that the VAE takes; 0 for none.
        batch_shape: the batch shape of the rows of y, if it is known.

    Raises:
        ValueError: if y is missing, has another size, or does not expand to `batch_shape`.
    """
    shape = (0,) if y is None else tuple(y.shape)
    if shape[-1:] != (context_dim,) or (y is not None and not y.is_floating_point()):
        received = "none" if y is None else f"{y.dtype} of the shape {shape}"
        if not context_dim:
            raise ValueError(f"'y' must be omitted for a VAE without a context, got {received}.")
        raise ValueError(
            f"'y' must have {context_dim} real numbers a row or be labels 0 ... {context_dim - 1} "
            f"for a VAE with a context of {context_dim}, got {received}."
        )
    if y is not None and batch_shape is not None and not _expands(shape[:-1], batch_shape):
        raise ValueError(
            f"'y' must have the batch shape {tuple(batch_shape)}, or one that expands to it, got "
            f"{shape[:-1]}."
        )


def check_latents_of_rows(latents: torch.Size, rows: torch.Size) -> None:
    """Refuse latents that are those of other rows.

    Arguments:
        latents: the batch shape of z.
        rows: the batch shape of x.

    Raises:
        ValueError: if the two do not broadcast.
    """
    try:
        torch.broadcast_shapes(latents, rows)
    except RuntimeError:
        raise ValueError(
            f"'z' must have the batch shape {tuple(rows)} of x, or draws in front of it, got "
            f"{tuple(latents)}."
        ) from None


def check_latent(latent: Any, latent_dim: int, num_rows: int) -> None:
    """Refuse what is no distribution of z, for each row or one for all.

    Arguments:
        latent: the distribution in place of the prior.
        latent_dim: the number D of latent dimensions.
        num_rows: the number of rows.

    Raises:
        ValueError: if it is none, or has another batch or event shape.
    """
    if not isinstance(latent, TorchDistributionMixin):
        raise ValueError(f"'latent' must be a Pyro distribution of z, got {described(latent)}.")
    batch_shape = tuple(latent.batch_shape)
    event_shape = tuple(latent.event_shape)
    if event_shape == (latent_dim,) and batch_shape in ((), (1,), (num_rows,)):
        return
    is_undeclared = not event_shape and batch_shape[-1:] == (latent_dim,)
    raise ValueError(
        f"'latent' must have the batch shape () or ({num_rows},) and the event shape "
        f"({latent_dim},), got {batch_shape} and {event_shape}"
        f"{': add .to_event(1)' if is_undeclared else ''}."
    )


def check_outside_row_plate() -> None:
    """Refuse a call inside a plate of the user at dim −1, the dim of the rows.

    Raises:
        ValueError: if there is such a plate.
    """
    for messenger in _PYRO_STACK:
        if isinstance(messenger, IndepMessenger) and messenger.dim == -1:
            raise ValueError(
                "vae.model and vae.guide bring their own row plate, so they cannot be called "
                "inside another plate at dim -1: use vae.prior(), vae.likelihood(z) and "
                "vae.posterior(x) there."
            )


def check_finite(y: Tensor | None) -> None:
    """Refuse a context y that is not finite.

    Raises:
        ValueError: if y has NaN or infinity.
    """
    if y is not None and not torch.isfinite(y).all():
        raise ValueError("'y' must be finite, got NaN or infinity.")


def num_rows_of(
    x_shape: torch.Size,
    x: Tensor | None,
    y: Tensor | None,
    num_rows: int | None,
    size: int | None,
) -> int:
    """Return the number of rows in a call of a model or guide.

    Arguments:
        x_shape: the shape of one row.
        x: the rows, whose shape is checked already.
        y: their context, whose size is checked already.
        num_rows: the number of rows that the caller gives.
        size: the number of rows of the whole data set.

    Raises:
        ValueError: if these contradict one another.
    """
    rows = _num_given(x_shape, x, y, num_rows)
    if rows == 0:
        raise ValueError("'x' must have at least one row, got none.")
    if y is not None and x is not None and y.shape[-2] != rows:
        raise ValueError(f"'y' must have as many rows as 'x', {rows}, got {y.shape[-2]}.")
    if num_rows is not None and whole(num_rows, "num_rows") != rows:
        raise ValueError(
            f"'num_rows' must be omitted or equal to the number of rows given, {rows}, got "
            f"{num_rows}."
        )
    if size is not None and whole(size, "size") < rows:
        raise ValueError(f"'size' must be at least the number of rows given, {rows}, got {size}.")
    return rows


def _num_given(
    x_shape: torch.Size,
    x: Tensor | None,
    y: Tensor | None,
    num_rows: int | None,
) -> int:
    if x is not None:
        return x.shape[-1 - len(x_shape)]
    if y is not None:
        return y.shape[-2]
    return 1 if num_rows is None else whole(num_rows, "num_rows")


def _common_context(prior: Prior, likelihood: Likelihood, posterior: Posterior) -> int:
    sizes = {part.context_dim for part in (prior, likelihood, posterior)} - {0}
    if len(sizes) > 1:
        raise ValueError(
            f"'prior', 'likelihood' and 'posterior' must take a context y of one size, got {sizes}."
        )
    return max(sizes, default=0)


def _expands(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    pairs = zip(reversed(shape), reversed(wanted), strict=False)
    return len(shape) <= len(wanted) and all(size in (1, full) for size, full in pairs)
