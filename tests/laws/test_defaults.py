"""With the command line's defaults every likelihood learns from data of its own kind: more than any model without z."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from test_combinations import LIKELIHOOD_ARGUMENTS

import pyro_vae as pv
from pyro_vae.runs import instantiate, prepare, read_preset, settings_parser

NUM_ROWS, NUM_COLUMNS = 600, 12
# Units of the columns of a table, and the row sums of counts, span many orders of magnitude.
UNITS = np.array([1e-3, 1.0, 1e5] * 4)


def signal(generator):
    """Two factors seen in each column, of variance 1."""
    weight = generator.normal(size=(2, NUM_COLUMNS))
    return generator.normal(size=(NUM_ROWS, 2)) @ (weight / np.linalg.norm(weight, axis=0))


def noise(generator):
    return 0.3 * generator.normal(size=(NUM_ROWS, NUM_COLUMNS))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def binary(generator):
    return generator.binomial(1, sigmoid(4 * signal(generator))).astype(np.uint8)


def shares(generator):
    return sigmoid(2 * signal(generator) + noise(generator))


def levels(generator):
    return np.round(255 * shares(generator)).astype(np.uint8)


def table(generator):
    return UNITS * (signal(generator) + noise(generator)) + UNITS


def table_with_outliers(generator):
    spread = generator.standard_t(2, size=(NUM_ROWS, NUM_COLUMNS))
    return UNITS * (signal(generator) + 0.2 * spread) + UNITS


def rates(generator):
    """Rows whose sums go from about 100 to 100,000, in columns of their own heights."""
    sums = 10 ** generator.uniform(2, 5, size=(NUM_ROWS, 1))
    composition = np.exp(0.5 * signal(generator))
    return sums * composition / composition.sum(1, keepdims=True)


def counts(generator):
    return generator.poisson(rates(generator)).astype(np.int64)


def overdispersed(generator):
    return generator.poisson(
        rates(generator) * generator.gamma(5, 0.2, size=(NUM_ROWS, NUM_COLUMNS))
    ).astype(np.int64)


def with_extra_zeros(generator):
    return overdispersed(generator) * generator.binomial(1, 0.7, size=(NUM_ROWS, NUM_COLUMNS))


def one_hot(generator):
    logits = 4 * signal(generator).reshape(NUM_ROWS, 3, 4)
    return np.eye(4, dtype=np.uint8)[(logits + generator.gumbel(size=logits.shape)).argmax(-1)]


def of_three_kinds(generator):
    parts = [kind(generator)[:, :4].astype(np.float64) for kind in (table, counts, binary)]
    return np.concatenate(parts, axis=1)


COLUMNS = (
    "[{size: 4, likelihood: NormalLikelihood}, {size: 4, likelihood: PoissonLikelihood}, "
    "{size: 4, likelihood: BernoulliLikelihood}]"
)


class Law(NamedTuple):
    """Data of a likelihood's kind, and the nats per row by which it must beat the best model without z."""

    make: Callable
    margin: float
    arguments: tuple = ()
    epochs: int = 25


LAWS = {
    "BernoulliLikelihood": Law(binary, 1),
    "BetaLikelihood": Law(shares, 3),
    "BinomialLikelihood": Law(levels, 300, ("--vae.likelihood.total_count", "255")),
    "ContinuousBernoulliLikelihood": Law(shares, 1),
    "DiscretizedLogisticLikelihood": Law(levels, 1),
    "DiscretizedLogisticMixtureLikelihood": Law(levels, 3),
    "LaplaceLikelihood": Law(table, 2),
    "NegativeBinomialLikelihood": Law(overdispersed, 1.5, epochs=40),
    "NormalLikelihood": Law(table, 1.5),
    "OneHotCategoricalLikelihood": Law(one_hot, 0.1, epochs=40),
    "PoissonLikelihood": Law(counts, 5000),
    "ProductLikelihood": Law(of_three_kinds, 1000, ("--vae.likelihood.columns", COLUMNS)),
    "StudentTLikelihood": Law(table_with_outliers, 2),
    "ZeroInflatedNegativeBinomialLikelihood": Law(with_extra_zeros, 0.5, epochs=40),
}


# These learn as another one of the same kind of data does, but take longer.
ALIKE = [
    *("DiscretizedLogisticMixtureLikelihood", "LaplaceLikelihood", "StudentTLikelihood"),
    "ZeroInflatedNegativeBinomialLikelihood",
    *("ContinuousBernoulliLikelihood", "BetaLikelihood", "BinomialLikelihood"),
    *("DiscretizedLogisticLikelihood", "NegativeBinomialLikelihood"),
    *("BernoulliLikelihood", "ProductLikelihood"),
]


# Only to be quick: smaller networks than the default ones, and steps that are not worth a trace.
SMALL = [
    "--vae.encoder.hidden",
    "[64]",
    "--vae.decoder.hidden",
    "[64]",
    "--training.execution.trace",
    "false",
]


@cache
def parser():
    return settings_parser(read_preset("digits")[0])


def trained(name, path):
    law = LAWS[name]
    np.save(path, law.make(np.random.default_rng(0)))
    data = [
        "--data.source",
        "ArrayFile",
        "--data.source.path",
        str(path),
        "--data.transform",
        "Identity",
    ]
    likelihood = ["--vae.likelihood", name, *law.arguments]
    options = [*data, *likelihood, "--training.epochs", str(law.epochs), *SMALL]
    settings = instantiate(parser(), parser().parse_args(options))
    vae, splits = prepare(settings)
    pv.fit(vae, splits.train, settings.training)
    return vae, splits


def test_no_likelihood_is_forgotten():
    assert set(LAWS) == set(LIKELIHOOD_ARGUMENTS)


@pytest.mark.filterwarnings("ignore:'data' hold whole numbers only")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ()) for name in LAWS],
)
def test_the_defaults_beat_the_best_model_without_z(name, tmp_path):
    vae, splits = trained(name, tmp_path / "x.npy")
    result = pv.evaluate(vae, splits.train, num_importance_samples=0)
    assert result.active_units >= 1
    assert result.negative_elbo.mean < result.without_latent.mean - LAWS[name].margin
    assert result.remarks() == []
