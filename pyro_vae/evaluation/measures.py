"""What a VAE is worth on given rows: ELBO, rate, distortion and log p(x), in nats per row and with their errors."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_vae.data.rows import Data, Rows, as_rows
from pyro_vae.distributions.kl import closed_kl, closed_kl_by_dim
from pyro_vae.engine.execution import Execution
from pyro_vae.engine.program import Program
from pyro_vae.evaluation.results import Estimate, Evaluation
from pyro_vae.evaluation.without_latent import NUM_ROWS, fit_without_latent
from pyro_vae.inference.psis import LEAST_DRAWS, TRUSTED_KHAT, pareto_khat
from pyro_vae.inference.weights import draw, log_mean_exp_variance
from pyro_vae.support.checks import as_shape, whole
from pyro_vae.support.modules import evaluating, tensor_like
from pyro_vae.support.streams import stream
from pyro_vae.vae import VAE

# Random draws belong to blocks of this many rows, so that no batch size of the user's can change them.
BLOCK_ROWS = 200
# Draws times rows that pass through the networks at once: bounds the memory.
_CHUNK = 5_000
# Draws times rows whose weights are judged at once: bounds the memory, with any number of draws.
_JUDGED = 200_000
# Chunks of draws from which on a trace takes less time than it saves.
_TRACE_PAYS_FROM = 50
# A latent dimension is active when the variance over rows of E_q[z_d | x] exceeds this (Burda et al., 2015).
ACTIVE_VARIANCE = 0.01
# Draws of z that are averaged where a posterior has no mean in closed form.
_MEAN_DRAWS = 100

T = TypeVar("T")


class _RowMeans(NamedTuple):
    """A mean over draws of z for each row: the mean and its Monte Carlo variance, `(B,)`, from `num_samples` draws."""

    mean: Tensor
    variance: Tensor
    num_samples: int


class _Block(NamedTuple):
    """What is known of one block of rows."""

    negative_elbo: _RowMeans
    rate: _RowMeans
    distortion: _RowMeans
    log_marginal: _RowMeans | None
    khat: Tensor | None
    rate_by_dim: Tensor | None
    latent_mean: tuple[Tensor, Tensor]
    is_discrete: bool


@torch.no_grad()
def evaluate(
    vae: VAE,
    data: Data,
    *,
    num_samples: int = 10,
    num_importance_samples: int = 100,
    seed: int = 0,
    execution: Execution = Execution(),
) -> Evaluation:
    """Evaluate a VAE on all rows, in evaluation mode.

    The result does not depend on the order of the rows, and the caller's random state stays as it is. Where entries are
    missing, log p(x) and the terms of its bound are those of the observed entries.

    Arguments:
        vae: the VAE.
        data: rows, `(N, *x_shape)`; for a conditional VAE a pair (x, y), or rows with labels.
        num_samples: the draws of z for each row, for −ELBO, rate and distortion.
        num_importance_samples: the draws of z for each row, for log p(x); 0 leaves it out.
        seed: names the random stream.
        execution: of the importance weights. By default they are traced and compiled where it pays,
            for some million draws.

    Raises:
        ValueError: rows of another shape or outside the likelihood's support; a count that is too small.
    """
    whole(num_samples, "num_samples")
    whole(num_importance_samples, "num_importance_samples", least=0)
    rows = as_rows(data, vae.context_dim, vae.missing)
    check_data(vae, rows)
    weights = _weights_program(vae, len(rows), num_importance_samples, execution)
    blocks = by_block(vae, rows, seed, partial(_evaluate_block, vae, weights, num_samples, num_importance_samples))
    marginals = [block.log_marginal for block in blocks if block.log_marginal is not None]
    log_marginal = _estimate(marginals) if marginals else None
    is_discrete = all(block.is_discrete for block in blocks)
    latent_means, noise = (torch.cat(parts) for parts in zip(*(block.latent_mean for block in blocks), strict=True))
    variance = (latent_means.var(0, correction=0) - noise.mean(0)).clamp(min=0)
    return Evaluation(
        negative_elbo=_estimate([block.negative_elbo for block in blocks]),
        rate=_estimate([block.rate for block in blocks]),
        distortion=_estimate([block.distortion for block in blocks]),
        log_marginal=log_marginal,
        bits_per_dim=_bits_per_dim(log_marginal, rows.x_shape.numel()) if log_marginal and is_discrete else None,
        rate_by_dim=_by_dim([block.rate_by_dim for block in blocks]),
        active_variance=variance.tolist(),
        active_units=int((variance > ACTIVE_VARIANCE).sum()),
        transform=repr(rows.transform),
        high_khat_share=_high_khat_share([block.khat for block in blocks]),
        without_latent=_without_latent(vae, rows, seed),
    )


def _without_latent(vae: VAE, rows: Rows, seed: int) -> Estimate | None:
    """−log p(x) without z: fitted to the first rows in the order of their contents, and taken over all."""
    like = tensor_like(vae)
    with evaluating(vae), stream(seed, device=like.device):
        x = rows.batch(rows.content_order()[:NUM_ROWS], like.dtype).to(like.device)
        log_prob = fit_without_latent(vae, x)
    if log_prob is None:
        return None
    blocks = by_block(vae, rows, seed, lambda x, y: -log_prob(x).double())
    return _estimate([_RowMeans(block, torch.zeros_like(block), 0) for block in blocks])


class RowEvaluation(NamedTuple):
    """What `evaluate_rows` returns, in nats, each `(N,)` in the order of the rows."""

    negative_elbo: Tensor
    rate: Tensor
    log_marginal: Tensor


@torch.no_grad()
def evaluate_rows(
    vae: VAE,
    data: Data,
    *,
    num_samples: int = 10,
    num_importance_samples: int = 100,
    seed: int = 0,
    execution: Execution = Execution(),
) -> RowEvaluation:
    """−ELBO, rate and log p(x) of each row; arguments and errors as for `evaluate`."""
    as_shape((num_samples, num_importance_samples), "num_samples and num_importance_samples")
    rows = as_rows(data, vae.context_dim, vae.missing)
    check_data(vae, rows)
    weights = _weights_program(vae, len(rows), num_importance_samples, execution)
    blocks = by_block(vae, rows, seed, partial(_evaluate_block, vae, weights, num_samples, num_importance_samples))
    columns = zip(*((block.negative_elbo, block.rate, block.log_marginal) for block in blocks), strict=True)
    places = rows.content_order().argsort()
    return RowEvaluation(*(torch.cat([part.mean for part in column]).cpu()[places] for column in columns))


@torch.no_grad()
def negative_elbo(vae: VAE, data: Data, *, num_samples: int = 1, seed: int = 0) -> float:
    """−ELBO in nats per row over all rows, as `evaluate` gives it, at the price of one pass for each draw."""
    rows = as_rows(data, vae.context_dim, vae.missing)
    blocks = by_block(vae, rows, seed, lambda x, y: _draws(vae, x, y, vae.encode(x, y), num_samples)[0])
    return torch.cat([draws.mean(0) for draws in blocks]).mean().item()


@torch.no_grad()
def check_data(vae: VAE, rows: Rows) -> None:
    """Refuse rows that the VAE cannot score, before any work is done.

    Raises:
        ValueError: rows of another shape, outside the likelihood's support, with NaN that the VAE does not take, or without
            the context that it takes.
    """
    rows.context(vae.context_dim)
    if rows.x_shape != vae.x_shape:
        raise ValueError(f"'data' must have rows of the shape {tuple(vae.x_shape)}, got {tuple(rows.x_shape)}.")
    dtype = tensor_like(vae).dtype
    with stream(0, device=rows.levels.device):
        for block in rows.blocks():
            vae.check(rows.batch(block, dtype))


def by_block(vae: VAE, rows: Rows, seed: int, function: Callable[[Tensor, Tensor | None], T]) -> list[T]:
    """The function of x and y by blocks, in an order that the rows' contents decide, each with its own random stream."""
    like = tensor_like(vae)
    context = rows.context(vae.context_dim)
    results = []
    with evaluating(vae):
        for number, index in enumerate(rows.content_order().split(BLOCK_ROWS)):
            with stream(seed, number, device=like.device):
                y = None if context is None else context[index].to(like)
                results.append(function(rows.batch(index, like.dtype).to(like.device), y))
    return results


def _weights_program(vae: VAE, num_rows: int, num_samples: int, execution: Execution) -> Program:
    """Log-weights of a chunk of draws, `(S, B)`: traced where there are many chunks, compiled where there are very many."""
    num_chunks = -(-num_rows // BLOCK_ROWS) * len(_chunks(num_samples))

    def weights(x: Tensor, y: Tensor | None, count: int) -> tuple[Tensor]:
        return (draw(vae.model, vae.guide, (x, y), {}, count).log_weights(),)

    needs_trace = execution.compile is True or execution.precision != "float32"
    if num_chunks < _TRACE_PAYS_FROM and not needs_trace:
        execution = Execution(trace=False)
    return Program(weights, calls=[vae], name="log_weights", execution=execution, num_calls=num_chunks)


def _evaluate_block(
    vae: VAE, weights: Program, num_samples: int, num_importance_samples: int, x: Tensor, y: Tensor | None
) -> _Block:
    q_z, p_z = vae.encode(x, y), vae.prior(y)
    negative_elbo, rate, distortion = _draws(vae, x, y, q_z, num_samples)
    latent_mean, noise = _latent_mean(q_z)
    rate_by_dim = closed_kl_by_dim(q_z, p_z)
    log_marginal, khat = _log_marginal(weights, x, y, num_importance_samples)
    return _Block(
        negative_elbo=_row_means(negative_elbo),
        rate=_row_means(rate, is_exact=closed_kl(q_z, p_z) is not None),
        distortion=_row_means(distortion),
        log_marginal=log_marginal,
        khat=khat,
        rate_by_dim=None if rate_by_dim is None else rate_by_dim.double(),
        latent_mean=(latent_mean.double(), noise.double()),
        is_discrete=_is_discrete(vae.decode(latent_mean, y), x),
    )


def _latent_mean(q_z: TorchDistribution) -> tuple[Tensor, Tensor]:
    """E_q[z | x] of each row, and the variance of its estimate where it is an average of draws; both `(B, D)`."""
    try:
        return q_z.mean, torch.zeros_like(q_z.mean)
    except NotImplementedError:
        draws = q_z.sample(torch.Size([_MEAN_DRAWS]))
        return draws.mean(0), draws.var(0) / _MEAN_DRAWS


def _draws(
    vae: VAE, x: Tensor, y: Tensor | None, q_z: TorchDistribution, num_samples: int
) -> tuple[Tensor, Tensor, Tensor]:
    """−ELBO, rate and distortion at each draw of z, `(S, B)`; the rate in closed form where there is one."""
    p_z = vae.prior(y)
    rates, distortions = [], []
    for count in _chunks(num_samples):
        z = q_z.sample(torch.Size([count]))
        kl = closed_kl(q_z, p_z)
        rates.append(q_z.log_prob(z) - p_z.log_prob(z) if kl is None else kl.expand(count, -1))
        distortions.append(-vae.log_likelihood(x, z, y))
    rate, distortion = torch.cat(rates).double(), torch.cat(distortions).double()
    return rate + distortion, rate, distortion


def _log_marginal(
    program: Program, x: Tensor, y: Tensor | None, num_samples: int
) -> tuple[_RowMeans | None, Tensor | None]:
    """log of the mean importance weight, chunk by chunk, and k̂ of the weights where they are enough to tell."""
    if not num_samples:
        return None, None
    log_sum = x.new_full(x.shape[:1], -math.inf, dtype=torch.float64)
    chunks = []
    for count in _chunks(num_samples):
        chunks.append(program(x, y, count)[0].clone())  # compiled for CUDA, the next call overwrites it
        log_sum = torch.logaddexp(log_sum, chunks[-1].double().logsumexp(0))
    parts = torch.cat(chunks).split(max(1, _JUDGED // num_samples), dim=1)
    variance = torch.cat([log_mean_exp_variance(part.double()) for part in parts])
    khat = torch.cat([_khat(part) for part in parts]) if num_samples >= LEAST_DRAWS else None
    return _RowMeans(log_sum - math.log(num_samples), variance, num_samples), khat


def _khat(log_weights: Tensor) -> Tensor:
    """k̂ of each row, infinite where the weights are none: NaN, infinite or all 0."""
    khat = log_weights.new_full(log_weights.shape[1:], math.inf, dtype=torch.float64)
    is_finite = log_weights.amax(0).isfinite()
    if is_finite.any():
        khat[is_finite] = pareto_khat(log_weights[:, is_finite])
    return khat


def _high_khat_share(blocks: Sequence[Tensor | None]) -> float | None:
    """The share of rows whose importance weights are not to be trusted."""
    known = [block for block in blocks if block is not None]
    return (torch.cat(known) > TRUSTED_KHAT).double().mean().item() if known else None


def _chunks(num_samples: int) -> list[int]:
    """The draws, split so that no more than `_CHUNK` rows times draws pass through the networks at once."""
    size = max(1, _CHUNK // BLOCK_ROWS)
    return [min(size, num_samples - start) for start in range(0, num_samples, size)]


def _is_discrete(p_x: TorchDistribution, x: Tensor) -> bool:
    """Whether x are values of a discrete distribution, none missing, and not grey levels that it scores improperly."""
    try:
        support = p_x.support
    except NotImplementedError:
        return False
    return support is not None and support.is_discrete and bool(support.check(x).all())


def _row_means(draws: Tensor, is_exact: bool = False) -> _RowMeans:
    if is_exact:
        return _RowMeans(draws[0], torch.zeros_like(draws[0]), 0)
    spread = draws - draws.mean(0)
    return _RowMeans(draws.mean(0), (spread**2).sum(0) / len(draws) / max(1, len(draws) - 1), len(draws))


def _estimate(blocks: Sequence[_RowMeans]) -> Estimate:
    mean, variance = (torch.cat(parts) for parts in ([b.mean for b in blocks], [b.variance for b in blocks]))
    num_samples, num_rows = blocks[0].num_samples, len(mean)
    monte_carlo_error = variance.sum().sqrt().item() / num_rows
    return Estimate(
        mean=mean.mean().item(),
        monte_carlo_error=monte_carlo_error if num_samples != 1 and math.isfinite(monte_carlo_error) else None,
        row_error=None if num_rows == 1 else (mean.std() / num_rows**0.5).item(),
        num_samples=num_samples,
        num_rows=num_rows,
    )


def _by_dim(blocks: Sequence[Tensor | None]) -> list[Estimate] | None:
    known = [block for block in blocks if block is not None]
    if not known:
        return None
    columns = torch.cat(known).unbind(1)
    return [_estimate([_RowMeans(column, torch.zeros_like(column), 0)]) for column in columns]


def _bits_per_dim(log_marginal: Estimate, num_elements: int) -> Estimate:
    unit = 1 / (num_elements * math.log(2))
    monte_carlo_error, row_error = (
        None if error is None else error * unit for error in (log_marginal.monte_carlo_error, log_marginal.row_error)
    )
    return log_marginal._replace(
        mean=-log_marginal.mean * unit, monte_carlo_error=monte_carlo_error, row_error=row_error
    )
