"""Shares of counts that a VAE finds in rows: without their library size, their noise, their batch.

In single-cell data a share is the normalised expression of a gene.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.data.arrays import Array
from pyro_vae.data.batch import Batch
from pyro_vae.data.rows import Data
from pyro_vae.evaluation.vae_rows import BLOCK_ROWS, VAERows, rows_for
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import not_negative, real, whole
from pyro_vae.support.modules import evaluating, tensor_like
from pyro_vae.support.streams import stream
from pyro_vae.support.tables import shown_in_short
from pyro_vae.vae import VAE


@shown_in_short
class DifferentialExpression(NamedTuple):
    """Change of each element's share of the counts between two groups of rows.

    Arguments:
        log2_fold_change: the posterior median of log2(share in the first / share in the second),
            `x_shape`.
        probability: the posterior probability that its absolute value exceeds the least change of
            interest, `x_shape`.
    """

    log2_fold_change: Tensor
    probability: Tensor

    def called(self, false_discovery_rate: float = 0.05) -> Tensor:
        """Return True for the elements that are called changed, `x_shape`.

        They are the most of the highest probabilities p whose mean of 1 − p, the expected share of
        false calls, is at most `false_discovery_rate`.

        References:
            Detecting differential gene expression with a semiparametric hierarchical mixture
                method, Newton et al., 2004.

        Raises:
            ValueError: if the rate does not lie in (0, 1).
        """
        rate = real(
            false_discovery_rate,
            "false_discovery_rate",
            holds=lambda number: 0 < number < 1,
            accepted="lie in (0, 1)",
        )
        probability = self.probability.flatten()
        order = probability.argsort(descending=True, stable=True)
        expected = (1 - probability[order].double()).cumsum(0) / torch.arange(1, len(order) + 1)
        is_called = torch.zeros(len(order), dtype=torch.bool)
        is_called[order[expected <= rate]] = True
        return is_called.reshape(self.probability.shape)

    def expected_false_discovery_rate(self, is_called: Tensor) -> float:
        """Return the mean of 1 − p over called elements; 0 if none is called.

        Arguments:
            is_called: True for the called elements, `x_shape`.
        """
        missed = 1 - self.probability[is_called].double()
        return missed.mean().item() if len(missed) else 0.0


@arguments_checked
@torch.no_grad()
def normalized_expression(
    vae: VAE,
    data: Data,
    *,
    contexts: Array | int | None = None,
    num_samples: int = 20,
    seed: int = 0,
) -> Tensor:
    """Return the expected share of each element in the counts of each row, `(N, *x_shape)`.

    It is E[share(z, y)] over q(z | x), in evaluation mode. The shares of a row add up to 1. With
    `contexts` all rows are decoded in the same contexts, which corrects for batches. The caller's
    random state does not change.

    References:
        Deep generative modeling for single-cell transcriptomics, Lopez et al., 2018.

    Arguments:
        vae: a VAE with a likelihood of counts made with `library_size=True`.
        data: the rows, `(N, *x_shape)`; for a conditional VAE a pair (x, y), or rows with labels.
        contexts: the contexts to decode in, labels `(C,)` or vectors `(C, Y)`, or one of them; the
            shares are averaged over them. When omitted, each row is decoded in its own.
        num_samples: the number of draws of z for each row.
        seed: names the random stream.

    Raises:
        ValueError: if the likelihood has no library size, or the rows or contexts do not fit.
    """
    rows = rows_for(vae, data).checked()
    decoder = _Decoder(vae, contexts)
    count = whole(num_samples, "num_samples")

    def mean_shares(batch: Batch) -> Tensor:
        q_z = vae.encode(*batch)
        total = sum(decoder.shares(q_z.sample(), batch.y) for _ in range(count))
        return torch.as_tensor(total / count)

    return rows.in_order(rows.by_block(seed, mean_shares))


@arguments_checked
@torch.no_grad()
def differential_expression(
    vae: VAE,
    first: Data,
    second: Data,
    *,
    contexts: Array | int | None = None,
    least_change: float = 0.25,
    pseudocount: float = 1e-6,
    num_pairs: int = 5_000,
    seed: int = 0,
) -> DifferentialExpression:
    """Compare the shares of the counts in two groups of rows.

    Each pair is a random row of the first group and one of the second, with a draw of z for each.
    The posterior of log2(share₁ / share₂) thus includes the variation inside the groups. The VAE is
    used in evaluation mode, and the caller's random state does not change.

    References:
        An empirical Bayes method for differential expression analysis of single cells with deep
            generative models, Boyeau et al., 2023.

    Arguments:
        vae: a VAE with a likelihood of counts made with `library_size=True`.
        first: the rows of the first group, as for `normalized_expression`.
        second: the rows of the second group.
        contexts: the contexts to decode both groups in, as for `normalized_expression`. Give all
            batches unless both groups have the same batches in the same shares.
        least_change: the least absolute log2 fold change of interest.
        pseudocount: a share that is added to both shares; 1e-6 is one count in a million.
        num_pairs: the number of pairs; the Monte Carlo standard error of a probability p is
            √(p (1 − p) / num_pairs).
        seed: names the random stream.

    Raises:
        ValueError: if the likelihood has no library size, or the rows or contexts do not fit.
    """
    groups = [
        rows_for(vae, first, "first").checked(),
        rows_for(vae, second, "second").checked(),
    ]
    decoder = _Decoder(vae, contexts)
    least = not_negative(least_change, "least_change")
    added = not_negative(pseudocount, "pseudocount")
    size = whole(num_pairs, "num_pairs")
    device = tensor_like(vae).device
    logs = []
    for number, group in enumerate(groups):
        with evaluating(vae), stream(seed, number, device=device):
            logs.append(_drawn_shares(decoder, group, size).add(added).log2())
    change = logs[0] - logs[1]
    return DifferentialExpression(
        log2_fold_change=change.median(0).values,
        probability=(change.abs() > least).double().mean(0).to(change),
    )


def _drawn_shares(decoder: "_Decoder", rows: VAERows, num_draws: int) -> Tensor:
    """Return the shares at draws of z of random rows, `(num_draws, *x_shape)`, on the CPU."""
    index = torch.randint(len(rows), (num_draws,))
    parts = []
    for part in index.split(BLOCK_ROWS):
        batch = rows.batch(part)
        z = decoder.vae.encode(*batch).sample()
        parts.append(decoder.shares(z, batch.y).cpu())
    return torch.cat(parts)


class _Decoder:
    """Decoder of shares, in the context of each row or in contexts that are the same for all.

    Arguments:
        vae: the VAE.
        contexts: labels `(C,)` or vectors `(C, Y)`, or one of them; None for those of the rows.

    Raises:
        ValueError: if the likelihood has no shares, or a context does not fit.
    """

    def __init__(self, vae: VAE, contexts: Array | int | None) -> None:
        self.vae = vae
        self.contexts = vae.read_context(contexts)
        if not hasattr(vae.likelihood, "shares"):
            raise ValueError(
                "'vae' must have a likelihood of counts with library_size=True, got "
                f"{type(vae.likelihood).__name__}."
            )
        if self.contexts is not None:
            self.contexts = self.contexts.reshape(-1, self.contexts.shape[-1])
            vae.check_context(self.contexts)

    def shares(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Return the shares at latents of rows, `(B, *x_shape)`.

        Arguments:
            z: the latents, `(B, D)`.
            y: the context of each row, `(B, Y)`.
        """
        shares_of: Any = self.vae.likelihood.shares
        if self.contexts is None:
            return shares_of(z, y)
        total = sum(shares_of(z, y.expand(len(z), -1)) for y in self.contexts)
        return torch.as_tensor(total / len(self.contexts))
