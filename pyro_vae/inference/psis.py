"""Pareto-smoothed importance sampling: weights without their luckiest draws, and whether they are
to be trusted.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.support.chunks import chunk_size

# Up to here the weights have a variance for all practical purposes; above the next, their mean is
# not to be trusted.
GOOD_KHAT = 0.5
TRUSTED_KHAT = 0.7
# Fewer draws than these have no tail to judge, and fewer than the next in the tail cannot tell its
# shape.
LEAST_DRAWS = 25
_LEAST_TAIL = 5
# The prior on the tail's shape: worth this many draws with this shape.
_PRIOR_DRAWS = 10
_PRIOR_SHAPE = 0.5
# The profile likelihood's grid: its least size, and the quantile of the tail that sets its scale.
_LEAST_GRID = 30
_GRID_SCALE = 3.0
# Weights whose logarithms differ by no more than this many units in the last place are taken for
# equal.
_ROUNDING = 16
# Nats by which all log-weights of a row may differ at most to be called constant, however large
# they are.
_CONSTANT = 0.01
# Numbers that are held in memory at once.
_CHUNK = 4_000_000


class SmoothedWeights(NamedTuple):
    """What `pareto_smooth` makes of log-weights.

    Arguments:
        log_weights: normalised over the draws of each row, `(S, B)`: log Σ_s exp = 0.
        khat: the shape k̂ of the tail of each row's weights, `(B,)`.
    """

    log_weights: Tensor
    khat: Tensor


def pareto_smooth(log_weights: Tensor) -> SmoothedWeights:
    """Fit a generalised Pareto distribution to the largest weights of each row, and put its
    quantiles in their place.

    The tail is the largest min(S / 5, 3 √S) of S draws. Weights have a finite variance where its
    shape k < ½; up to about 0.7 an estimate is of use, above that it may be far off with no other
    sign of it. k̂ is 0 where all draws have the same weight up to rounding, or the largest weight
    so often that the tail is nothing else, and infinite where fewer than 5 draws make the tail.
    Rows do not depend on each other.

    References:
        Pareto smoothed importance sampling, Vehtari, Simpson, Gelman, Yao and Gabry, 2024. A new
        and efficient estimation method for the generalized Pareto distribution, Zhang and Stephens,
        2009.

    Arguments:
        log_weights: log-weights in nats, up to a constant for each row, `(S, B)`.

    Raises:
        ValueError: another shape, NaN or positive infinity among the weights, or a row of zero
            weights.

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
    """k̂ of each row, `(B,)`, as `pareto_smooth` finds it, without the smoothed weights: less work.

    Arguments:
        log_weights: log-weights in nats, up to a constant for each row, `(S, B)`.

    Raises:
        ValueError: another shape, NaN or positive infinity among the weights, or a row of zero
            weights.

    Example:
        >>> from pyro_vae.inference import pareto_khat
        >>> pareto_khat(torch.randn(1000, 3)).shape
        torch.Size([3])
    """
    _check(log_weights)
    return torch.cat([_khat(part) for part in _some_rows(log_weights)])


def _some_rows(log_weights: Tensor) -> tuple[Tensor, ...]:
    """All draws of some rows at a time: bounds the memory."""
    return log_weights.split(chunk_size(_CHUNK, len(log_weights)), dim=1)


def _check(log_weights: Tensor) -> None:
    if log_weights.dim() != 2 or 0 in log_weights.shape or not log_weights.is_floating_point():
        raise ValueError(
            f"'log_weights' must be real numbers of the shape (draws, rows), got {log_weights.dtype} of the shape "
            f"{tuple(log_weights.shape)}."
        )
    is_bad = (log_weights.isnan() | (log_weights == math.inf)).any(0) | (
        log_weights == -math.inf
    ).all(0)
    if is_bad.any():
        raise ValueError(
            "'log_weights' must be less than infinity, and finite for at least one draw of each row, got others in "
            f"{int(is_bad.sum())} of {len(is_bad)} rows."
        )


class _Tail(NamedTuple):
    """The fitted tail of those rows whose tails have the same length.

    Arguments:
        rows: their numbers, `(R,)`.
        log_quantiles: what takes the place of their largest draws, in ascending order, `(length,
            R)`.
    """

    rows: Tensor
    log_quantiles: Tensor


def _smooth(log_weights: Tensor) -> SmoothedWeights:
    """Log-weights with maximum 0 in each row, smoothed but not normalised, and k̂."""
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
    """Which rows have equal weights up to rounding, `(B,)`; a single draw is not called constant."""
    largest = log_weights.max(0).values
    tolerance = torch.finfo(log_weights.dtype).eps ** 0.5 * _magnitude(log_weights)
    return (largest - log_weights.min(0).values <= tolerance.clamp(max=_CONSTANT)) & (
        len(log_weights) > 1
    )


def _magnitude(log_weights: Tensor) -> Tensor:
    """Magnitude that the rounding of each row's log-weights is proportional to, `(B,)`."""
    return log_weights.max(0).values.abs().clamp(min=1).double()


def _fit_tails(largest: Tensor, log_weights: Tensor) -> tuple[Tensor, list[_Tail]]:
    """k̂ of each row, and the fits, from the largest draws in ascending order, their maximum 0 in
    each row.
    """
    khat = largest.new_full((largest.shape[1],), math.inf)
    tails = []
    if len(largest) > _LEAST_TAIL:
        least = math.log(torch.finfo(largest.dtype).tiny)
        rounding = _ROUNDING * torch.finfo(log_weights.dtype).eps * _magnitude(log_weights)
        # Equal weights at the cutoff make the tail of a row shorter: rows whose tails are of one
        # length go together.
        lengths = (largest > largest[0].clamp(min=least) + rounding).sum(0)
        khat[lengths == 0] = 0.0
        for length in lengths[lengths >= _LEAST_TAIL].unique().tolist():
            rows = (lengths == length).nonzero().squeeze(1)
            tail = largest[-length:, rows]
            base = largest[-length - 1, rows].clamp(min=least).exp()
            shape, quantiles = _fit_pareto(tail.exp() - base)
            log_quantiles = (
                (quantiles + base).log().clamp(max=0.0)
            )  # no weight above the largest that was drawn
            tails.append(_Tail(rows, torch.where(shape.isfinite(), log_quantiles, tail)))
            khat[rows] = shape.nan_to_num(nan=math.inf, posinf=math.inf)
    return khat.masked_fill(_is_constant(log_weights), 0.0), tails


def _fit_pareto(tail: Tensor) -> tuple[Tensor, Tensor]:
    """The shape of the generalised Pareto distribution of ascending exceedances, `(n, R)`, and its
    n mid-quantiles.

    With θ = −k / σ, k = −mean log(1 − θ x) maximises the likelihood at a given θ; θ is averaged
    over a grid with the profile likelihood as weight. Sign of k as in the density (1 + k x / σ)^(−1
    / k − 1) / σ.
    """
    count = len(tail)
    grid = (
        torch.arange(1, _LEAST_GRID + math.isqrt(count) + 1, dtype=tail.dtype, device=tail.device)
        - 0.5
    )
    quartile = tail[int(count / 4 + 0.5) - 1]
    thetas = 1 / tail[-1] + (1 - (len(grid) / grid).sqrt()).unsqueeze(1) / (_GRID_SCALE * quartile)
    thetas = torch.where(
        thetas == 0, torch.finfo(tail.dtype).tiny, thetas
    )  # k / θ has a limit there, but no value
    shapes = torch.stack([torch.log1p(-theta * tail).mean(0) for theta in thetas])
    log_profile = count * ((-thetas / shapes).log() - shapes - 1)
    theta = (log_profile.softmax(0) * thetas).sum(0)
    shape = torch.log1p(-theta * tail).mean(0)
    scale = -shape / theta
    shape = (count * shape + _PRIOR_DRAWS * _PRIOR_SHAPE) / (count + _PRIOR_DRAWS)
    log_survival = torch.log1p(
        -(torch.arange(count, dtype=tail.dtype, device=tail.device) + 0.5) / count
    ).unsqueeze(1)
    curved = torch.expm1(-shape * log_survival) / shape
    return shape, scale * torch.where(shape == 0, -log_survival, curved)
