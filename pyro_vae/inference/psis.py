"""Pareto-smoothed importance sampling: stabilised weights, and k̂ to judge them by."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.inference.arguments import check_tensor
from pyro_vae.support.chunks import chunk_size
from pyro_vae.support.tables import shown_in_short

# Up to the first, the weights have a finite variance in practice; above the second, their mean is
# unreliable.
GOOD_KHAT = 0.5
TRUSTED_KHAT = 0.7
# The fewest draws that have a tail to judge, and the fewest draws in a tail that show its shape.
LEAST_DRAWS = 25
_LEAST_TAIL = 5
# The prior on the tail's shape counts as this many draws with this shape.
_PRIOR_DRAWS = 10
_PRIOR_SHAPE = 0.5
# The grid of θ for the profile likelihood: its least size, and the multiple of the tail's lower
# quartile that sets its scale.
_LEAST_GRID = 30
_GRID_SCALE = 3.0
# Weights count as equal if their logarithms differ by at most this many units in the last place.
_ROUNDING = 16
# The log-weights of a row count as constant only if they differ by at most this many nats, however
# large they are.
_CONSTANT = 0.01
# Numbers that are in memory at once.
_CHUNK = 4_000_000


@shown_in_short
class SmoothedWeights(NamedTuple):
    """Log-weights as `pareto_smooth` returns them, with the shape of their tail.

    Arguments:
        log_weights: smoothed, and normalised over the draws of each row, `(S, B)`: log Σ_s exp = 0.
        khat: the shape k̂ of the tail of each row's weights, `(B,)`.
    """

    log_weights: Tensor
    khat: Tensor


def pareto_smooth(log_weights: Tensor) -> SmoothedWeights:
    """Replace the largest weights of each row by quantiles of a fitted generalised Pareto.

    The tail is the largest min(S / 5, 3 √S) of S draws, and k is its shape. Weights have a finite
    variance if k < ½. Up to about 0.7 an estimate is useful; above that it may be far off without
    any other sign.

    k̂ is 0 if all draws have the same weight up to rounding, or if the whole tail has the largest
    weight. It is infinite if the tail has fewer than 5 draws. Rows do not depend on each other.

    References:
        Pareto smoothed importance sampling, Vehtari, Simpson, Gelman, Yao and Gabry, 2024. A new
        and efficient estimation method for the generalized Pareto distribution, Zhang and Stephens,
        2009.

    Arguments:
        log_weights: log-weights in nats, up to a constant for each row, `(S, B)`.

    Raises:
        ValueError: if the shape is another one, if a log-weight is NaN or positive infinity, or if
            all weights of a row are zero.

    Example:
        >>> weights = pareto_smooth(torch.randn(1000, 3))
        >>> weights.log_weights.shape, (weights.khat < 0.5).all()
        (torch.Size([1000, 3]), tensor(True))
    """
    _check(log_weights)
    parts = [_smooth(part) for part in _some_rows(log_weights)]
    smoothed = torch.cat([part.log_weights for part in parts], dim=1)
    return SmoothedWeights(
        smoothed - smoothed.logsumexp(0), torch.cat([part.khat for part in parts])
    )


def pareto_khat(log_weights: Tensor) -> Tensor:
    """Return k̂ of each row, `(B,)`, as `pareto_smooth` does, at less cost.

    Arguments:
        log_weights: log-weights in nats, up to a constant for each row, `(S, B)`.

    Raises:
        ValueError: if the shape is another one, if a log-weight is NaN or positive infinity, or if
            all weights of a row are zero.

    Example:
        >>> from pyro_vae.inference import pareto_khat
        >>> pareto_khat(torch.randn(1000, 3)).shape
        torch.Size([3])
    """
    _check(log_weights)
    return torch.cat([_khat(part) for part in _some_rows(log_weights)])


def _some_rows(log_weights: Tensor) -> tuple[Tensor, ...]:
    """Split the rows into parts that bound the memory, each with all draws."""
    return log_weights.split(chunk_size(_CHUNK, len(log_weights)), dim=1)


def _check(log_weights: Tensor) -> None:
    check_tensor(log_weights, "log_weights")
    if log_weights.dim() != 2 or 0 in log_weights.shape or not log_weights.is_floating_point():
        raise ValueError(
            "'log_weights' must be real numbers of the shape (draws, rows), got "
            f"{log_weights.dtype} of the shape {tuple(log_weights.shape)}."
        )
    is_invalid = (log_weights.isnan() | (log_weights == math.inf)).any(0)
    are_all_zero = (log_weights == -math.inf).all(0)
    is_bad = is_invalid | are_all_zero
    if is_bad.any():
        raise ValueError(
            "'log_weights' must be less than infinity, and finite for at least one draw of each "
            f"row, got others in {int(is_bad.sum())} of {len(is_bad)} rows."
        )


class _Tail(NamedTuple):
    """Fitted tails of all rows with tails of one length.

    Arguments:
        rows: the numbers of these rows, `(R,)`.
        log_quantiles: the log-weights that replace the largest ones of these rows, ascending,
            `(length, R)`.
    """

    rows: Tensor
    log_quantiles: Tensor


def _smooth(log_weights: Tensor) -> SmoothedWeights:
    """Return k̂, and smoothed log-weights minus the largest of each row, not normalised."""
    shifted = log_weights.double() - log_weights.max(0).values.double()
    values, order = shifted.sort(0)
    khat, tails = _fit_tails(values[-_tail_size(len(values)) - 1 :], log_weights)
    smoothed = shifted.clone()
    for rows, log_quantiles in tails:
        smoothed[order[-len(log_quantiles) :, rows], rows] = log_quantiles
    return SmoothedWeights(torch.where(_is_constant(log_weights), shifted, smoothed), khat)


def _khat(log_weights: Tensor) -> Tensor:
    largest = log_weights.topk(_tail_size(len(log_weights)) + 1, dim=0).values.double()
    return _fit_tails((largest - largest[0]).flip(0), log_weights)[0]


def _tail_size(num_draws: int) -> int:
    return min(math.ceil(min(num_draws / 5, 3 * num_draws**0.5)), num_draws - 1)


def _is_constant(log_weights: Tensor) -> Tensor:
    """Return True for the rows with equal weights up to rounding, `(B,)`.

    A single draw does not count as constant.
    """
    width = log_weights.max(0).values - log_weights.min(0).values
    tolerance = torch.finfo(log_weights.dtype).eps ** 0.5 * _magnitude(log_weights)
    return (width <= tolerance.clamp(max=_CONSTANT)) & (len(log_weights) > 1)


def _magnitude(log_weights: Tensor) -> Tensor:
    """Return the size that the rounding of each row's log-weights is proportional to, `(B,)`."""
    return log_weights.max(0).values.abs().clamp(min=1).double()


def _fit_tails(largest: Tensor, log_weights: Tensor) -> tuple[Tensor, list[_Tail]]:
    """Return k̂ of each row, and the fitted tails.

    Arguments:
        largest: the largest log-weights of each row, ascending, with the maximum 0.
        log_weights: all log-weights, `(S, B)`.
    """
    khat = largest.new_full((largest.shape[1],), math.inf)
    tails = []
    if len(largest) > _LEAST_TAIL:
        least = math.log(torch.finfo(largest.dtype).tiny)
        rounding = _ROUNDING * torch.finfo(log_weights.dtype).eps * _magnitude(log_weights)
        # Equal weights at the cutoff shorten the tail of a row. Rows with tails of one length are
        # fitted together.
        lengths = (largest > largest[0].clamp(min=least) + rounding).sum(0)
        khat[lengths == 0] = 0.0
        for length in lengths[lengths >= _LEAST_TAIL].unique().tolist():
            rows = (lengths == length).nonzero().squeeze(1)
            tail = largest[-length:, rows]
            base = largest[-length - 1, rows].clamp(min=least).exp()
            shape, quantiles = _fit_pareto(tail.exp() - base)
            # No weight may exceed the largest one that was drawn.
            log_quantiles = (quantiles + base).log().clamp(max=0.0)
            tails.append(_Tail(rows, torch.where(shape.isfinite(), log_quantiles, tail)))
            khat[rows] = shape.nan_to_num(nan=math.inf, posinf=math.inf)
    return khat.masked_fill(_is_constant(log_weights), 0.0), tails


def _fit_pareto(tail: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a generalised Pareto distribution, and return its shape k and its n mid-quantiles.

    With θ = −k / σ, k = mean log(1 − θ x) maximises the likelihood at a given θ. The estimate of θ
    is its mean over a grid, weighted by the profile likelihood. The density is
    (1 + k x / σ)^(−1 / k − 1) / σ.

    Arguments:
        tail: the exceedances x, ascending, `(n, R)`.
    """
    count = len(tail)
    num_thetas = _LEAST_GRID + math.isqrt(count)
    grid = torch.arange(1, num_thetas + 1, dtype=tail.dtype, device=tail.device) - 0.5
    quartile = tail[int(count / 4 + 0.5) - 1]
    thetas = 1 / tail[-1] + (1 - (len(grid) / grid).sqrt()).unsqueeze(1) / (_GRID_SCALE * quartile)
    # At θ = 0, k / θ has a limit but no value.
    thetas = torch.where(thetas == 0, torch.finfo(tail.dtype).tiny, thetas)
    shapes = torch.stack([torch.log1p(-theta * tail).mean(0) for theta in thetas])
    log_profile = count * ((-thetas / shapes).log() - shapes - 1)
    theta = (log_profile.softmax(0) * thetas).sum(0)
    shape = torch.log1p(-theta * tail).mean(0)
    scale = -shape / theta
    shape = (count * shape + _PRIOR_DRAWS * _PRIOR_SHAPE) / (count + _PRIOR_DRAWS)
    levels = (torch.arange(count, dtype=tail.dtype, device=tail.device) + 0.5) / count
    log_survival = torch.log1p(-levels).unsqueeze(1)
    curved = torch.expm1(-shape * log_survival) / shape
    return shape, scale * torch.where(shape == 0, -log_survival, curved)
