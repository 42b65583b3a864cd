"""Evaluation on given rows: ELBO, rate, distortion and log p(x), in nats per row."""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.data.batch import Batch
from pyro_vae.data.rows import Data
from pyro_vae.engine.execution import Execution
from pyro_vae.engine.program import Program
from pyro_vae.evaluation.results import Estimate, Evaluation
from pyro_vae.evaluation.row_terms import (
    ELBOTerms,
    Marginal,
    RowEstimate,
    RowTerms,
    elbo_terms,
    row_terms,
    sample_chunks,
)
from pyro_vae.evaluation.vae_rows import BLOCK_ROWS, VAERows, rows_for
from pyro_vae.evaluation.without_latent import NUM_ROWS, fit_without_latent
from pyro_vae.inference.programs import Programs
from pyro_vae.inference.psis import TRUSTED_KHAT
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import whole
from pyro_vae.support.modules import evaluating, tensor_like
from pyro_vae.support.streams import stream
from pyro_vae.support.tables import shown_in_short
from pyro_vae.vae import VAE

# From this number of chunks of draws a trace saves more time than it takes.
_TRACE_PAYS_FROM = 50
# A latent dimension is active if the variance over rows of E_q[z_d | x] exceeds this (Burda et al.,
# 2015).
ACTIVE_VARIANCE = 0.01


@arguments_checked
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

    The result does not depend on the order of the rows. The caller's random state does not change.
    If entries are missing, log p(x) and the terms of its bound are those of the observed entries.

    Arguments:
        vae: the VAE.
        data: rows, `(N, *x_shape)`; for a conditional VAE a pair (x, y), or rows with labels.
        num_samples: the number of draws of z for each row, for −ELBO, rate and distortion.
        num_importance_samples: the number of draws of z for each row, for log p(x); 0 omits it.
        seed: names the random stream.
        execution: of the importance weights. By default they are traced and compiled where it pays,
            for some million draws.

    Raises:
        ValueError: if rows have another shape or lie outside the likelihood's support, or if a
            count is too small.
    """
    whole(num_samples, "num_samples")
    whole(num_importance_samples, "num_importance_samples", least=0)
    rows = rows_for(vae, data).checked()
    blocks = _blocks(rows, num_samples, num_importance_samples, seed, execution)
    marginals = [block.marginal for block in blocks if block.marginal is not None]
    log_marginal = None
    if marginals:
        log_marginal = _estimate([marginal.log_marginal for marginal in marginals])
    bits_per_dim = None
    if log_marginal is not None and all(block.is_discrete for block in blocks):
        bits_per_dim = log_marginal.scaled(-1 / (vae.x_shape.numel() * math.log(2)))
    variance = _variance_of_means(blocks)
    return Evaluation(
        negative_elbo=_estimate([block.negative_elbo for block in blocks]),
        rate=_estimate([block.rate for block in blocks]),
        distortion=_estimate([block.distortion for block in blocks]),
        log_marginal=log_marginal,
        bits_per_dim=bits_per_dim,
        rate_by_dim=_by_dim([block.rate_by_dim for block in blocks]),
        active_variance=variance.tolist(),
        active_units=int((variance > ACTIVE_VARIANCE).sum()),
        transform=repr(rows.rows.transform),
        high_khat_share=_high_khat_share(marginals),
        without_latent=_without_latent(rows, seed),
    )


@shown_in_short
class RowEvaluation(NamedTuple):
    """Results of `evaluate_rows` in nats, each `(N,)`, in the order of the rows."""

    negative_elbo: Tensor
    rate: Tensor
    log_marginal: Tensor


@arguments_checked
@torch.no_grad()
def evaluate_rows(
    vae: VAE,
    data: Data | VAERows,
    *,
    num_samples: int = 10,
    num_importance_samples: int = 100,
    seed: int = 0,
    execution: Execution = Execution(),
) -> RowEvaluation:
    """Return −ELBO, rate and log p(x) of each row; arguments and errors as for `evaluate`."""
    whole(num_samples, "num_samples")
    whole(num_importance_samples, "num_importance_samples")
    rows = rows_for(vae, data).checked()
    blocks = _blocks(rows, num_samples, num_importance_samples, seed, execution)
    marginals = [block.marginal for block in blocks if block.marginal is not None]
    return RowEvaluation(
        negative_elbo=rows.in_order([block.negative_elbo.mean for block in blocks]),
        rate=rows.in_order([block.rate.mean for block in blocks]),
        log_marginal=rows.in_order([marginal.log_marginal.mean for marginal in marginals]),
    )


@arguments_checked
@torch.no_grad()
def negative_elbo(vae: VAE, data: Data | VAERows, *, num_samples: int = 1, seed: int = 0) -> float:
    """Return the mean −ELBO over all rows, in nats per row, without the other measures.

    It is the value of `evaluate`. It costs one pass for each draw of z.
    """
    whole(num_samples, "num_samples")
    return mean_elbo_terms(rows_for(vae, data), num_samples, seed).negative_elbo


class MeanELBOTerms(NamedTuple):
    """−ELBO and its rate, as means over rows in nats."""

    negative_elbo: float
    rate: float


@torch.no_grad()
def mean_elbo_terms(rows: VAERows, num_samples: int = 1, seed: int = 0) -> MeanELBOTerms:
    """Return the value of `negative_elbo` and the rate in it, from one pass over the rows."""
    blocks = _elbo_terms(rows, num_samples, seed)
    return MeanELBOTerms(
        negative_elbo=torch.cat([block.negative_elbo for block in blocks]).mean().item(),
        rate=torch.cat([block.rate for block in blocks]).mean().item(),
    )


@torch.no_grad()
def negative_elbo_by_row(rows: VAERows) -> Tensor:
    """Return the terms of the mean of `negative_elbo`, `(N,)`, in the order of the rows."""
    blocks = _elbo_terms(rows, num_samples=1, seed=0)
    return rows.in_order([block.negative_elbo for block in blocks])


def _elbo_terms(rows: VAERows, num_samples: int, seed: int) -> list[ELBOTerms]:
    """Return the terms of each row, `(B,)`, as means over draws, block by block."""

    def of_block(batch: Batch) -> ELBOTerms:
        q_z = rows.vae.encode(*batch)
        terms = elbo_terms(rows.vae, batch, q_z, num_samples)
        return ELBOTerms(*(term.mean(0) for term in terms))

    return rows.by_block(seed, of_block)


def _blocks(
    rows: VAERows,
    num_samples: int,
    num_importance_samples: int,
    seed: int,
    execution: Execution,
) -> list[RowTerms]:
    """Return the terms of each row, block by block, in one pass over the rows."""
    weights = _weights_program(rows.vae, len(rows), num_importance_samples, execution)
    of_block = partial(row_terms, rows.vae, weights, num_samples, num_importance_samples)
    return rows.by_block(seed, of_block)


def _weights_program(vae: VAE, num_rows: int, num_samples: int, execution: Execution) -> Program:
    """Return a program for the log-weights of a chunk of draws, `(S, B)`.

    It is traced if there are many chunks, and compiled if there are very many.
    """
    num_chunks = -(-num_rows // BLOCK_ROWS) * len(sample_chunks(num_samples))

    def weights(x: Tensor, y: Tensor | None, num_samples: int) -> tuple[Tensor]:
        programs = Programs(vae.model, vae.guide, (x, y), {})
        return (programs.draw(num_samples).log_weights(),)

    needs_trace = execution.compile is True or execution.precision != "float32"
    if num_chunks < _TRACE_PAYS_FROM and not needs_trace:
        execution = Execution(trace=False)
    return Program(
        weights,
        calls=[vae],
        name="log_weights",
        execution=execution,
        num_calls=num_chunks,
    )


def _without_latent(rows: VAERows, seed: int) -> Estimate | None:
    """Return −log p(x) over all rows under the best model without z.

    The model is fitted to the first rows in the order of their contents.
    """
    vae = rows.vae
    with evaluating(vae), stream(seed, device=tensor_like(vae).device):
        first_rows = rows.batch(rows.rows.content_order()[:NUM_ROWS])
        log_prob = fit_without_latent(vae, first_rows.x)
    if log_prob is None:
        return None
    blocks = rows.by_block(seed, lambda batch: -log_prob(batch.x).double())
    return _estimate([RowEstimate.exact(block) for block in blocks])


def _variance_of_means(blocks: Sequence[RowTerms]) -> Tensor:
    """Return Var_x E_q[z_d | x] of each latent dimension, less the Monte Carlo noise of means."""
    means = torch.cat([block.latent_mean.mean for block in blocks])
    noise = torch.cat([block.latent_mean.variance for block in blocks])
    return (means.var(0, correction=0) - noise.mean(0)).clamp(min=0)


def _high_khat_share(marginals: Sequence[Marginal]) -> float | None:
    """Return the share of rows with unreliable importance weights, if k̂ is known."""
    known = [marginal.khat for marginal in marginals if marginal.khat is not None]
    if not known:
        return None
    return (torch.cat(known) > TRUSTED_KHAT).double().mean().item()


def _estimate(blocks: Sequence[RowEstimate]) -> Estimate:
    mean = torch.cat([block.mean for block in blocks])
    variance = torch.cat([block.variance for block in blocks])
    num_samples = blocks[0].num_samples
    monte_carlo_error = variance.sum().sqrt().item() / len(mean)
    has_error = num_samples != 1 and math.isfinite(monte_carlo_error)
    return Estimate.over_rows(mean, num_samples, monte_carlo_error if has_error else None)


def _by_dim(blocks: Sequence[Tensor | None]) -> list[Estimate] | None:
    known = [block for block in blocks if block is not None]
    if not known:
        return None
    return [_estimate([RowEstimate.exact(column)]) for column in torch.cat(known).unbind(1)]
