"""Sums of log-gamma functions whose large terms cancel, accurate in single precision.

log Γ(a) grows as a log a, and a log-density is a difference of such terms: at a = 10⁶ single
precision keeps one decimal of it. So log a! is split into a log a − a and a small rest
(`stirling_rest`). Sums of the first have a closed form (`negative_deviance`).
"""

import math
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any, TypeAlias

import torch
from torch import Tensor

# B_2k / (2k (2k − 1)): log Γ(a) = (a − ½) log a − a + ½ log 2π + Σ of these times a^(1 − 2k).
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
# log Γ(y + ½) = y log y − y + ½ log 2π + Σ of these times y^(1 − 2k).
_SHIFTED = tuple(-(1 - 2 ** (1 - 2 * k)) * term for k, term in enumerate(_STIRLING, start=1))
# log Γ(a + ½) − log Γ(a) − ½ log a, as a sum of these times a^(1 − 2k).
_HALF_STEP = (-1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432, 691 / 180224, -5461 / 425984)
# From this argument, three terms of these series have the digits of single precision, and seven
# terms those of double precision.
_FAR = 10.0
# A number below this counts as 0 in a product with its own logarithm.
SMALLEST = 1e-30
# Below this |(k − m) / (k + m)| a deviance is summed as a series.
_NEAR = 0.2
# Factor that turns a small difference into a step from 0 to 1.
_STEEP = 1e30
# 2 (artanh(v) − v) / v, by powers of (2 v)².
_ARTANH = (0.0, *(2 / (2 * k + 1) / 4**k for k in range(1, 12)))


# From inputs of one shape to functions: one for a value of that shape, and one for its derivative
# by each of the inputs.
Formula: TypeAlias = Callable[..., Sequence[Callable[[], Tensor]]]


class _WithSlopes(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(formula: Formula, needed: Sequence[bool], *inputs: Tensor) -> tuple[Tensor, ...]:
        value, *slopes = formula(*inputs)
        return value(), *(slope() for slope in compress(slopes, needed))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.formula, ctx.needed, *tensors = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*tensors, *output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        num_inputs = len(ctx.needed)
        inputs = ctx.saved_tensors[:num_inputs]
        known = ctx.saved_tensors[num_inputs:]
        if torch.is_grad_enabled():  # for derivatives of the slopes
            known = [slope() for slope in compress(ctx.formula(*inputs)[1:], ctx.needed)]
        slopes = iter(known)
        gradients = [gradient * next(slopes) if needed else None for needed in ctx.needed]
        return None, None, *gradients


def with_slopes(formula: Formula, *inputs: Tensor) -> Tensor:
    """Return the value of a formula; its gradients, to any order, are those of the formula."""
    inputs = torch.broadcast_tensors(*inputs)
    needed = [given.requires_grad and torch.is_grad_enabled() for given in inputs]
    if any(needed):
        return _WithSlopes.apply(formula, needed, *inputs)[0]
    with torch.no_grad():
        return formula(*inputs)[0]()


def stirling_rest(a: Tensor) -> Tensor:
    """Return log a! − (a log a − a) for a ≥ 0, without a gradient.

    It is 0 at 0, and ½ log(2π a) + 1 / (12 a) − … far out. With y = a + s + ½, a! is Γ(y + ½) over
    a product of s factors; there the series for log Γ(y + ½) is exact.
    """
    num_factors = _num_factors(a.dtype)
    shift = num_factors + 0.5
    y = a + shift
    rest = y.sqrt()
    for factor in range(1, num_factors + 1):
        rest.mul_(y).div_(a + factor)
    rest.log_().add_(0.5 * math.log(2 * math.pi) - shift)
    rest.addcmul_(a, a.clamp(min=SMALLEST).reciprocal_().mul_(shift).log1p_())
    inverse = y.reciprocal_()
    return rest.addcmul_(inverse, _polynomial(_SHIFTED, inverse * inverse, num_terms=3))


def digamma_rest(a: Tensor) -> Tensor:
    """Return ψ(a) − log a + 1 / (2 a) for a > 0, which is about −1 / (12 a²)."""
    num_factors = _num_factors(a.dtype)
    y = a + (num_factors + 0.5)
    near = (y / a).log() - 0.5 / a - _odd_powers(_derivative(_SHIFTED), 1 / y) / y
    for factor in range(1, num_factors + 1):
        near = near - 1 / (a + factor)
    far = a.clamp(min=_FAR)
    return select(a < _FAR, near, -_odd_powers(_derivative(_STIRLING), 1 / far) / far)


def log_gamma_half_step(a: Tensor) -> Tensor:
    """Return log Γ(a + ½) − log Γ(a) − ½ log a for a > 0, which is about −1 / (8 a)."""
    near = a.clamp(max=_FAR)
    far = a.clamp(min=_FAR)
    exact = torch.lgamma(near + 0.5) - torch.lgamma(near) - 0.5 * near.log()
    return select(a < _FAR, exact, _odd_powers(_HALF_STEP, 1 / far))


def negative_deviance(k: Tensor, difference: Tensor, log_ratio: Tensor) -> Tensor:
    """Return k − m − k log(k / m) ≤ 0 for k ≥ 0 and m > 0.

    It is 0 if both are 0, as when m underflows.

    References:
        Fast and accurate computation of binomial probabilities, Loader, 2000.

    Arguments:
        k: the observed number.
        difference: k − m, which must be accurate if k and m are close.
        log_ratio: log(k / m), which must be accurate if they are not close; any finite number if
            k = 0.
    """
    far = torch.addcmul(difference, k, log_ratio, value=-1)
    share = difference / torch.sub(k, difference, alpha=0.5).add_(SMALLEST)  # 2 (k − m) / (k + m)
    square = share * share
    twice_series = torch.addcmul(difference, k, _polynomial(_ARTANH, square, num_terms=5))
    correction = torch.addcmul(far, share, twice_series, value=0.5)
    is_near = square.detach().mul(-_STEEP).add_(_STEEP * (2 * _NEAR) ** 2).clamp_(0, 1)
    return far.addcmul_(is_near, correction, value=-1)


def select(condition: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return `first` where the condition holds and `second` elsewhere; both must be finite.

    On a CPU it is faster than torch.where.
    """
    return torch.lerp(second, first, condition.to(first.dtype))


def unexpanded(tensor: Tensor) -> Tensor:
    """Return the same numbers without the repetitions that `expand` made."""
    repeats = [slice(0, 1) if stride == 0 else slice(None) for stride in tensor.stride()]
    return tensor[tuple(repeats)]


def _odd_powers(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """Return Σ coefficients[k] x^(2k + 1)."""
    return x * _polynomial(coefficients, x * x, num_terms=3)


def _derivative(coefficients: Sequence[float]) -> list[float]:
    """Return the coefficients of −a² d/da Σ coefficients[k] a^(−2k − 1), for the same powers."""
    return [(2 * k + 1) * coefficient for k, coefficient in enumerate(coefficients)]


def _polynomial(coefficients: Sequence[float], x: Tensor, num_terms: int) -> Tensor:
    """Return Σ coefficients[k] x^k, with `num_terms` in single and all in double precision."""
    if _is_single(x.dtype):
        coefficients = coefficients[:num_terms]
    total = x * coefficients[-1] + coefficients[-2]
    for coefficient in reversed(coefficients[:-2]):
        total = total * x + coefficient if x.requires_grad else total.mul_(x).add_(coefficient)
    return total


def _num_factors(dtype: torch.dtype) -> int:
    """Return the s for which the shifted series has full precision from s + ½."""
    return 3 if _is_single(dtype) else 12


def _is_single(dtype: torch.dtype) -> bool:
    return torch.finfo(dtype).eps > 1e-10
