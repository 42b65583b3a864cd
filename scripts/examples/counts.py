"""Counts of genes in cells, as biologists have them: codes, normalised expression, differing genes.

The counts are simulated: 3,000 cells of 6 types in 4 batches, 500 genes, library sizes (the sums of
the rows) from 150 to 11,000. So the truth is known. The VAE sees neither the types nor the shares:

- its likelihood is a negative binomial whose means are the row's library size times the shares of
  the genes, with a dispersion for each gene;
- the batch is the context of encoder and decoder, so that the codes need not hold it.

It prints the adjusted Rand index of k-means on the codes, the share of the codes' variance that the
batch explains, log p(x) of cells held out, the error of the normalised expression, and the genes
that differ between two types, with power and false discoveries.
"""

import sys
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

import pyro_vae as pv
from pyro_vae.evaluation import differential_expression, normalized_expression
from pyro_vae.runs import Seed, SentenceParser, run

NUM_CELLS = 3_000
NUM_HELD_OUT = 600
NUM_GENES = 500
NUM_TYPES = 6
NUM_BATCHES = 4
LIBRARY_SIZES = (150, 11_000)
# A type changes this share of the genes, each by a log fold change in this range.
SHARE_CHANGED = 0.1
LOG_CHANGES = (0.7, 2.0)
# Standard deviation over genes of the log of the shares, and of the change in a batch.
SPREAD = 1.2
BATCH_SPREAD = 0.3
# Shape and scale of the gamma distribution of dispersions, and their floor.
DISPERSIONS = (2.0, 0.1, 0.02)
LATENT_DIM = 10
HIDDEN = [128]
BATCH = 128
# The types whose genes are compared, and the least log2 fold change of interest.
COMPARED = (0, 1)
LEAST_CHANGE = 0.5
FALSE_DISCOVERY_RATE = 0.05


class Cells(NamedTuple):
    """Simulated cells.

    Arguments:
        counts: the counts of each gene, `(N, J)`.
        types: the type of each cell, `(N,)`.
        batches: its batch, `(N,)`.
        shares: the expected share of each gene in its counts, `(N, J)`.
    """

    counts: Tensor
    types: Tensor
    batches: Tensor
    shares: Tensor

    def take(self, index: Tensor | slice) -> "Cells":
        return Cells(*(values[index] for values in self))

    @property
    def data(self) -> tuple[Tensor, Tensor]:
        """Counts with their batch, as the VAE takes them."""
        return self.counts, self.batches


class Simulation(NamedTuple):
    """Cells, and the shares of each type in each batch, `(types, batches, J)`."""

    cells: Cells
    shares: Tensor


def simulate(seed: int) -> Simulation:
    generator = np.random.default_rng(seed)
    changes = np.zeros((NUM_TYPES, NUM_GENES))
    for change in changes:
        genes = generator.choice(NUM_GENES, round(SHARE_CHANGED * NUM_GENES), replace=False)
        signs = generator.choice([-1, 1], len(genes))
        change[genes] = signs * generator.uniform(*LOG_CHANGES, len(genes))
    batch_changes = generator.normal(0, BATCH_SPREAD, (NUM_BATCHES, NUM_GENES))
    logits = generator.normal(0, SPREAD, NUM_GENES) + changes[:, None] + batch_changes
    all_shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)

    types = generator.integers(NUM_TYPES, size=NUM_CELLS)
    batches = generator.integers(NUM_BATCHES, size=NUM_CELLS)
    smallest, largest = np.log(LIBRARY_SIZES)
    library = np.exp(generator.uniform(smallest, largest, NUM_CELLS))
    shape, scale, floor = DISPERSIONS
    dispersion = floor + generator.gamma(shape, scale, NUM_GENES)
    shares = all_shares[types, batches]
    noise = generator.gamma(1 / dispersion, dispersion, shares.shape)
    counts = generator.poisson(library[:, None] * shares * noise)
    cells = Cells(*map(torch.from_numpy, (counts, types, batches, shares)))
    return Simulation(cells, torch.from_numpy(all_shares))


def make_vae() -> pv.VAE:
    def decoder(out_shape: torch.Size) -> pv.MLP:
        return pv.MLP(LATENT_DIM, HIDDEN, out_shape, context_dim=NUM_BATCHES)

    encoder = pv.MLP(NUM_GENES, HIDDEN, (2, LATENT_DIM), context_dim=NUM_BATCHES)
    seen = pv.Log1p(pv.Standardized(encoder, NUM_GENES))
    return pv.VAE(
        pv.StandardNormalPrior(LATENT_DIM),
        pv.NegativeBinomialLikelihood(decoder, NUM_GENES, library_size=True),
        pv.DiagNormalPosterior(seen, NUM_GENES, LATENT_DIM),
    )


def train(cells: Cells, epochs: int, seed: int) -> pv.VAE:
    vae = make_vae()
    pv.initialize(vae, cells.data)
    vae.likelihood.initialize_bias(cells.counts.double().mean(0))
    optimizer = partial(torch.optim.Adam, lr=1e-3)
    training = pv.Training(epochs, pv.Shuffled(BATCH), optimizer, seed=seed)
    pv.fit(vae, cells.data, training)
    return vae.eval()


def explained(codes: Tensor, labels: Tensor) -> float:
    """Return the share of the variance of codes, `(N, D)`, that lies between labels."""
    total = codes.var(0, correction=0).sum()
    means = torch.stack([codes[labels == label].mean(0) for label in labels.unique()])
    spread = (means[torch.searchsorted(labels.unique(), labels)] - codes.mean(0)).square().mean(0)
    return (spread.sum() / total).item()


def show_codes(vae: pv.VAE, cells: Cells, seed: int) -> None:
    with torch.no_grad():
        codes = vae.encode(*cells.data).mean
    clusters = KMeans(NUM_TYPES, n_init=10, random_state=seed).fit_predict(codes.numpy())
    print(f"adjusted Rand index       {adjusted_rand_score(cells.types, clusters):.3f}")
    print(f"variance by type          {explained(codes, cells.types):.3f}")
    print(f"variance by batch         {explained(codes, cells.batches):.3f}")


def show_expression(vae: pv.VAE, cells: Cells, seed: int) -> None:
    """Print the total variation between shares and the truth, beside that of the raw shares."""
    found = normalized_expression(vae, cells.data, seed=seed)
    raw = cells.counts / cells.counts.sum(1, keepdim=True)
    for name, shares in (("expression", found), ("raw shares", raw)):
        distance = (shares - cells.shares).abs().sum(1).mean() / 2
        print(f"error of the {name:<12} {distance:.3f}")


def show_genes(vae: pv.VAE, simulation: Simulation, cells: Cells, seed: int) -> None:
    """Print how many genes are called between two types, and how many of the calls are false."""
    first, second = (cells.take(cells.types == label).data for label in COMPARED)
    found = differential_expression(
        vae,
        first,
        second,
        contexts=torch.arange(NUM_BATCHES),
        least_change=LEAST_CHANGE,
        seed=seed,
    )
    is_called = found.called(FALSE_DISCOVERY_RATE)
    of_type = simulation.shares.mean(1)
    truth = (of_type[COMPARED[0]] / of_type[COMPARED[1]]).log2()
    differs = truth.abs() > LEAST_CHANGE
    num_false = (is_called & ~differs).sum().item()
    power = (is_called & differs).sum() / differs.sum()
    error = (found.log2_fold_change - truth).square().mean().sqrt()
    print(f"genes called              {is_called.sum()} of {NUM_GENES}; {differs.sum()} differ")
    print(f"power                     {power:.3f}")
    print(f"false discovery rate      {num_false / max(1, is_called.sum().item()):.3f}")
    print(f"expected                  {found.expected_false_discovery_rate(is_called):.3f}")
    print(f"error of the log2 changes {error:.3f}")


def main() -> int:
    parser = SentenceParser(description=__doc__)
    parser.add_argument("--epochs", type=PositiveInt, default=60, help="how long to train the VAE")
    parser.add_argument("--seed", type=Seed, default=0, help="the seed of data and random draws")
    options = parser.parse_args(sys.argv[1:])
    torch.manual_seed(options.seed)
    simulation = simulate(options.seed)
    held_out = simulation.cells.take(slice(NUM_HELD_OUT))
    cells = simulation.cells.take(slice(NUM_HELD_OUT, None))
    vae = train(cells, options.epochs, options.seed)
    show_codes(vae, cells, options.seed)
    evaluation = pv.evaluate(vae, held_out.data, num_importance_samples=200, seed=options.seed)
    log_marginal = evaluation.log_marginal
    if log_marginal is not None and log_marginal.row_error is not None:
        print(f"log p(x), held out        {log_marginal.mean:.2f} ± {log_marginal.row_error:.2f}")
    show_expression(vae, held_out, options.seed)
    show_genes(vae, simulation, cells, options.seed)
    return 0


if __name__ == "__main__":
    run(main)
