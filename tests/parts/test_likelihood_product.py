"""Tables with columns of different kinds: one network, a factor for each group of columns, from Python and from YAML."""

import copy
import math
import pickle
from functools import partial

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import pyro_vae as pv
from pyro_vae import BernoulliLikelihood, Columns, Likelihood, NormalLikelihood, ProductLikelihood
from pyro_vae.commands.job import Job
from pyro_vae.commands.request import read_settings
from pyro_vae.commands.train import train
from pyro_vae.runs import RunFolder

COLUMNS = """
- size: 2
  likelihood: {class_path: NormalLikelihood, init_args: {scale: {class_path: LearnedScale, init_args: {init: 0.5}}}}
- {size: 1, likelihood: PoissonLikelihood}
- size: 3
  likelihood:
    class_path: pyro_vae.OneHotCategoricalLikelihood
"""
SIZES = [
    Columns(2, pv.NormalLikelihood),
    Columns(1, pv.PoissonLikelihood),
    Columns(3, pv.OneHotCategoricalLikelihood),
]


def table(num_rows=60):
    generator = np.random.default_rng(0)
    reals, counts = (
        generator.normal(3, 1, size=(num_rows, 2)),
        generator.poisson(4, size=(num_rows, 1)),
    )
    return np.concatenate(
        [reals, counts, np.eye(3)[generator.integers(3, size=num_rows)]], axis=1
    ).astype(np.float32)


@pytest.fixture
def arguments(tmp_path):
    """Those of a small run over a table, with some columns."""
    np.save(tmp_path / "t.npy", table())
    data = ["--data.source", "ArrayFile", "--data.source.path", str(tmp_path / "t.npy")]
    small = [
        "--training.epochs=1",
        "--training.execution.trace=false",
        "--training.batches.size=16",
        "--vae.decoder.hidden=[8]",
        "--vae.encoder.hidden=[8]",
    ]

    def arguments(columns, *others):
        flow = yaml.safe_dump(yaml.safe_load(columns), default_flow_style=True, width=math.inf)
        likelihood = ["--vae.likelihood", "ProductLikelihood", "--vae.likelihood.columns", flow]
        return [*data, *small, *likelihood, *others]

    return arguments


def test_a_factor_is_moved_by_its_own_numbers_alone():
    likelihood = ProductLikelihood(nn.Identity(), 6, SIZES)
    numbers = torch.randn(6, requires_grad=True)
    x, other = torch.tensor([0.5, -1, 3, 0, 1, 0]), torch.tensor([0.5, -1, 5, 0, 1, 0])
    p_x = likelihood(numbers)
    (gradient,) = torch.autograd.grad(p_x.log_prob(x) - p_x.log_prob(other), numbers)
    assert (gradient != 0).tolist() == [False, False, True, False, False, False]


def test_the_network_gives_all_numbers_with_the_context_in_one_pass():
    likelihood = ProductLikelihood(
        lambda out_shape: pv.MLP(2, [4], out_shape, context_dim=3), 6, SIZES
    )
    z, y = torch.randn(5, 2), torch.randn(5, 3)
    assert likelihood.out_shape == (6,)
    others = [name for name, _ in likelihood.named_parameters() if not name.startswith("network.")]
    assert others == ["factors.0.scale.log_scale"]  # the learned scale of the normal columns
    assert likelihood(z, y).batch_shape == (5,)
    assert not torch.equal(likelihood(z, y).mean, likelihood(z, -y).mean)


def test_a_product_trains_like_any_other_likelihood_and_survives_copies():
    vae = pv.VAE(
        pv.StandardNormalPrior(2),
        ProductLikelihood(partial(pv.MLP, 2, [8]), 6, SIZES),
        pv.DiagNormalPosterior(pv.MLP(6, [8], 4), 6, 2),
    )
    x = torch.from_numpy(table())
    vae.likelihood.initialize_bias(x.mean(0))
    before = vae.elbo(x, num_samples=10).mean()
    pv.fit(
        vae,
        x,
        pv.Training(
            epochs=30, batches=pv.Shuffled(20), optimizer=partial(torch.optim.Adam, lr=0.01)
        ),
    )
    assert vae.elbo(x, num_samples=10).mean() > before
    vae.likelihood.check(vae.sample(50))
    for other in (copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))):
        torch.testing.assert_close(
            other.decode(torch.ones(1, 2)).mean, vae.decode(torch.ones(1, 2)).mean
        )


def test_a_run_over_a_table_is_trained_from_the_command_line_and_loaded_again(tmp_path, arguments):
    request = read_settings("digits", arguments(COLUMNS, "--vae.initialize_bias=true"))
    text = request.text
    assert train(Job(request, RunFolder(tmp_path / "run"))) == 0
    vae = pv.load(tmp_path / "run")
    normal, poisson, one_hot = vae.likelihood.factors
    assert [type(factor) for factor in vae.likelihood.factors] == [
        columns.likelihood for columns in SIZES
    ]
    assert normal.scale.log_scale.item() != math.log(0.5 - 1e-3)
    assert (poisson.x_shape, one_hot.x_shape) == ((1,), (3,))
    stored = yaml.safe_load(text)["vae"]["likelihood"]["init_args"]["columns"]
    assert [group["size"] for group in stored] == [2, 1, 3]
    file = tmp_path / "again.yaml"
    file.write_text(text)
    assert read_settings(str(file), [])[1] == text


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (
            "[{size: 3, likelihood: NormalLikelihod}]",
            "subclass of Likelihood .* the nearest is 'NormalLikelihood'",
        ),
        (
            "[{sise: 3, likelihood: NormalLikelihood}]",
            "'vae.likelihood.columns.sise' is no setting; known are size, likelihood",
        ),
        (
            "[{size: 0, likelihood: NormalLikelihood}]",
            r"'vae.likelihood.columns\[0\].size' must be a whole number of at least 1, got 0",
        ),
        (
            "[{size: 2, likelihood: {class_path: NormalLikelihood, init_args: {scal: 2}}}]",
            "'vae.likelihood.columns.likelihood.scal' is no setting; the nearest is 'scale'",
        ),
    ],
)
def test_a_mistake_in_the_columns_is_explained_in_one_sentence(arguments, columns, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        read_settings("digits", arguments(columns))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("x_shape", [5, 7, (2, 3), (6, 1)])
def test_sizes_that_do_not_add_up_are_refused(x_shape):
    with pytest.raises(
        ValueError,
        match=r"'columns' must have sizes that add up to x_shape = \(.*\), got \[2, 1, 3\]",
    ):
        ProductLikelihood(nn.Identity(), x_shape, SIZES)


def test_no_columns_are_refused():
    with pytest.raises(
        ValueError, match=r"'columns' must have sizes that add up to x_shape = \(1,\), got \[\]"
    ):
        ProductLikelihood(nn.Identity(), 1, [])


@pytest.mark.parametrize(
    ("index", "value", "sentence"),
    [
        (1, math.inf, "In columns 0 to 1, 'x' must be finite for NormalLikelihood"),
        (
            2,
            0.5,
            "In column 2, 'x' must hold counts .* for PoissonLikelihood, got the fraction 0.5",
        ),
        (5, 0.5, "In columns 3 to 5, 'x' must be one-hot"),
    ],
)
def test_a_factor_refuses_its_own_columns_by_their_numbers(index, value, sentence):
    likelihood, x = ProductLikelihood(nn.Identity(), 6, SIZES), torch.from_numpy(table())
    likelihood.check(x)
    x[3, index] = value
    with pytest.raises(ValueError, match=sentence):
        likelihood.check(x)


def test_a_factor_without_a_link_is_named():
    class Plain(Likelihood):
        def forward(self, z, y=None):
            raise NotImplementedError

    likelihood = ProductLikelihood(
        lambda out_shape: pv.MLP(2, [4], out_shape), 3, [SIZES[0], Columns(1, Plain)]
    )
    with pytest.raises(ValueError, match="Plain defines no 'link'"):
        likelihood.initialize_bias(torch.zeros(3))


def test_a_factor_scores_what_it_accepts():
    relaxed = partial(BernoulliLikelihood, relaxed=True)
    likelihood = ProductLikelihood(
        nn.Linear(2, 3), 3, [Columns(2, relaxed), Columns(1, NormalLikelihood)]
    )
    x = torch.tensor([[0.5, 0.25, -3.0]])
    likelihood.check(x)
    assert likelihood(torch.zeros(1, 2)).log_prob(x).isfinite().all()
