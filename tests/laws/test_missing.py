"""Missing entries: what is under the mask has no part in anything, and what is not refused is right."""

import copy
import pickle

import numpy as np
import pyro.distributions as dist
import pytest
import references
import torch
import yaml
from models import PriorAsPosterior, linear, linear_gaussian_vae, nowhere_special
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from test_contracts import LIKELIHOODS
from test_scripts import call
from torch import nn

from pyro_vae import (
    MLP,
    SVI,
    VAE,
    AggregatedPosterior,
    ArrayFile,
    BernoulliLikelihood,
    BetaLikelihood,
    ConvEncoder,
    DiagNormalPosterior,
    DoublyReparameterizedELBO,
    DynamicDraw,
    Execution,
    FixedDraw,
    Identity,
    ImportanceWeightedELBO,
    Likelihood,
    NormalLikelihood,
    OneHotCategoricalLikelihood,
    OpenUnitInterval,
    Posterior,
    Rows,
    Shuffled,
    StandardNormalPrior,
    StickingTheLandingELBO,
    Threshold,
    Training,
    UnitInterval,
    VampPrior,
    WithMask,
    evaluate,
    fit,
    gaussian_mixture,
    impute,
    load,
    log_weights,
)
from pyro_vae.data import as_rows
from pyro_vae.data.sources import transformed
from pyro_vae.distributions import masked
from pyro_vae.evaluation import anomaly_scores, evaluate_rows
from pyro_vae.runs import instantiate, prepare, read_preset, settings_parser
from pyro_vae.support import stream

NAN = torch.nan
OBJECTIVES = [
    Trace_ELBO(),
    TraceMeanField_ELBO(),
    ImportanceWeightedELBO(3),
    StickingTheLandingELBO(3),
    DoublyReparameterizedELBO(3),
]


def in_turn(objectives):
    """Each likelihood with one of the objectives by default, and with the others in the slow tests."""
    return [
        pytest.param(
            name,
            objective,
            id=f"{name}, {type(objective).__name__}",
            marks=() if place % len(objectives) == number else pytest.mark.slow,
        )
        for place, name in enumerate(LIKELIHOODS)
        for number, objective in enumerate(objectives)
    ]


def make_vae(likelihood, missing="nan", network=None, prior=None):
    x_shape = likelihood.x_shape
    posterior = DiagNormalPosterior(network or MLP(x_shape.numel(), [4], (2, 2)), x_shape, 2)
    return VAE(prior or StandardNormalPrior(2), likelihood, posterior, missing=missing)


def normal_vae(size=3, **parts):
    return make_vae(NormalLikelihood(MLP(2, [4], size), size), **parts)


def some_missing(name):
    """A mask for each of three rows of a case: some missing, all missing, none missing; one-hot vectors as wholes."""
    x = LIKELIHOODS[name].x
    observed = torch.ones(3, *x.shape, dtype=torch.bool)
    observed[1] = False
    if name == "one-hot":
        observed[0, 0] = False
    elif name == "product":
        observed[0, [0, 3, 4, 5]] = False
    else:
        observed[0, 0, [0, 2]] = observed[0, 1, 1] = False
    return x.expand(3, *x.shape), observed


def loss_and_gradients(vae, objective, x, trace=False, seed=0):
    execution = Execution(trace=trace, compile=False)
    optimizer = torch.optim.SGD(vae.parameters(), lr=0.1)
    svi = SVI(vae.model, vae.guide, optimizer, objective, execution=execution)
    for _ in range(
        2 if trace else 0
    ):  # the first signature is traced when it comes again, here with other holes
        svi.backward(torch.where(x.isnan(), vae.likelihood.filler, x))
    svi.optim.zero_grad()
    with stream(seed):
        loss = svi.backward(x)
    assert svi.how.startswith("traced" if trace else "plain")
    return [
        loss,
        *(parameter.grad.clone() for parameter in vae.parameters() if parameter.grad is not None),
    ]


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(*pair) for pair in zip(first, second, strict=True)
    )


# What a mask leaves out


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_log_likelihood_is_that_of_the_observed_entries(name, float64):
    x, observed = some_missing(name)
    x, observed = x[0], observed[0]
    vae = make_vae(nowhere_special(LIKELIHOODS[name].make()))
    z = torch.randn(4, 5, 2)
    parts = [
        vae.log_likelihood(torch.where(seen, x.double(), NAN), z) for seen in (observed, ~observed)
    ]
    torch.testing.assert_close(
        sum(parts), vae.decode(z).log_prob(x.double()), rtol=1e-12, atol=1e-12
    )
    assert all((part != 0).all() and part.shape == (4, 5) for part in parts)
    assert (vae.log_likelihood(torch.full_like(x, NAN), z) == 0).all()


@pytest.mark.parametrize(("name", "objective"), in_turn(OBJECTIVES[:3]))
def test_nothing_under_the_mask_changes_bound_or_gradient_and_gradients_are_finite(
    name, objective, monkeypatch
):
    x, observed = some_missing(name)
    vae = make_vae(nowhere_special(LIKELIHOODS[name].make()))
    results = loss_and_gradients(vae, objective, torch.where(observed, x, NAN))
    assert len(results) == 1 + len(list(vae.parameters()))
    assert all(result.isfinite().all() for result in results)
    monkeypatch.setattr(
        type(vae.likelihood), "filler", LIKELIHOODS[name].x
    )  # another value inside the support
    assert same(loss_and_gradients(vae, objective, torch.where(observed, x, NAN)), results)


@pytest.mark.parametrize(("name", "objective"), in_turn(OBJECTIVES))
def test_fully_observed_rows_are_scored_as_by_a_vae_without_missing_entries(name, objective):
    vae = make_vae(nowhere_special(LIKELIHOODS[name].make()))
    plain = VAE(vae.prior, vae.likelihood, vae.posterior)
    x = LIKELIHOODS[name].x.expand(3, *LIKELIHOODS[name].x.shape)
    assert same(loss_and_gradients(vae, objective, x), loss_and_gradients(plain, objective, x))


@pytest.mark.parametrize(
    ("case", "objective"),
    [("product", OBJECTIVES[0]), ("beta", OBJECTIVES[2])],
    ids=["product", "beta"],
)
def test_a_traced_step_is_that_of_plain_pyro(case, objective):
    x, observed = some_missing(case)
    x = torch.where(observed, x, NAN)
    vae = make_vae(nowhere_special(LIKELIHOODS[case].make()))
    plain = loss_and_gradients(vae, objective, x)
    assert same(loss_and_gradients(vae, objective, x, trace=True), plain)


def test_what_a_mask_covers_may_be_any_number():
    p_x = NormalLikelihood(nn.Linear(2, 3), 3)(torch.randn(2, 2))
    observed = torch.tensor([[True, False, True], [False, False, True]])
    scores = [
        masked(p_x, observed).log_prob(torch.where(observed, 0.5, value)) for value in (0.0, 1e9)
    ]
    assert torch.equal(*scores)


def test_the_model_and_its_terms_agree():
    vae, x = normal_vae(), torch.tensor([[NAN, 1.0, 2.0], [NAN, NAN, NAN], [0.0, 1.0, 2.0]])
    with stream(0):
        expected = -Trace_ELBO().loss(vae.model, vae.guide, x)
    with stream(0):
        assert vae.elbo(x).sum().item() == pytest.approx(expected, rel=1e-6)


# Rows of which nothing is known


def test_a_row_of_which_nothing_is_known_is_worth_nothing_where_the_posterior_is_the_prior():
    vae = VAE(
        StandardNormalPrior(2),
        NormalLikelihood(nn.Linear(2, 3), 3),
        PriorAsPosterior(nn.Identity(), 3, 2),
        "nan",
    )
    x = torch.full((4, 3), NAN)
    assert (vae.elbo(x, num_samples=5) == 0).all()
    assert (log_weights(vae.model, vae.guide, x, num_samples=5) == 0).all()


def test_the_bound_of_a_row_of_which_nothing_is_known_rises_to_zero(float64):
    vae = normal_vae(network=linear(torch.zeros(4, 3), torch.tensor([0.5, 0.5, 0.0, 0.0])))
    x, kl = torch.full((200, 3), NAN), 0.25
    bounds = [
        evaluate_rows(vae, x, num_samples=1, num_importance_samples=count)
        for count in (1, 20, 2000)
    ]
    first, second, third = (bound.log_marginal for bound in bounds)
    # Five standard errors fail with probability 6e-7 on each side.
    assert abs(first.mean() + kl) < 5 * first.std() / 200**0.5
    assert first.mean() < second.mean() < 5 * second.std() / 200**0.5
    # The weights have the variance exp(1/2) − 1, so that L_K is about −0.32 / K.
    assert abs(third.mean() + 0.32 / 2000) < 5 * third.std() / 200**0.5 < 0.01
    torch.testing.assert_close(bounds[0].rate, torch.full((200,), kl), rtol=0, atol=1e-5)


# The linear-Gaussian model, where all is known


class ObservedPosterior(Posterior):
    """p(z | x_observed) of a linear-Gaussian model."""

    takes_nan = True

    def __init__(self, reference):
        super().__init__(nn.Identity(), len(reference.bias), reference.weight.shape[1])
        self.reference = reference

    def forward(self, x, y=None):
        reference, observed = self.reference, (~x.isnan()).double()
        weight = observed.unsqueeze(-1) * reference.weight
        precision = weight.mT @ weight + reference.scale**2 * torch.eye(self.latent_dim)
        centred = torch.where(x.isnan(), 0.0, x - reference.bias)
        loc = torch.linalg.solve(precision, (weight.mT @ centred.unsqueeze(-1)).squeeze(-1))
        return dist.MultivariateNormal(loc, reference.scale**2 * precision.inverse())


@pytest.fixture
def reference(float64):
    return references.LinearGaussian(torch.randn(4, 2), torch.randn(4), 0.6)


@pytest.fixture
def x(reference):
    x = torch.randn(6, 2) @ reference.weight.T + reference.bias + 0.6 * torch.randn(6, 4)
    observed = torch.tensor(
        [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0]]
    ).bool()
    return torch.where(observed, x, NAN)


def linear_vae(reference, posterior):
    complete = linear_gaussian_vae(reference, posterior)
    return VAE(complete.prior, complete.likelihood, complete.posterior, missing="nan")


def test_with_the_exact_posterior_every_weight_is_the_density_of_the_observed_entries(reference, x):
    vae = linear_vae(reference, ObservedPosterior(reference))
    covariance = reference.weight @ reference.weight.T + 0.36 * torch.eye(4)
    expected = []
    for row in x:
        seen = ~row.isnan()
        expected.append(
            references.multivariate_normal(
                row[seen], reference.bias[seen], covariance[seen][:, seen]
            )
            if seen.any()
            else 0.0
        )
    weights = log_weights(vae.model, vae.guide, x, num_samples=7)
    assert (weights - torch.tensor(expected)).abs().max() < 1e-10
    assert (vae.elbo(x) - torch.tensor(expected)).abs().max() < 1e-10
    found = evaluate(vae, x, num_importance_samples=7)
    assert found.log_marginal.mean == pytest.approx(np.mean(expected), abs=1e-10)
    assert found.bits_per_dim is None


# Refusals


def test_nan_is_refused_by_all_that_take_data_unless_the_vae_is_made_for_it():
    vae = normal_vae(missing=None)
    x = torch.randn(40, 3)
    x[3, 1] = NAN
    sentence = r"'(data|validation|test)' must be finite, got NaN or infinity in 1 of 40 rows: only a VAE made with missing=\"nan\" takes NaN"
    training = Training(epochs=1, batches=Shuffled(10))
    for refusing in (
        lambda: fit(vae, x, training),
        lambda: fit(vae, torch.randn(40, 3), training, validation=x),
        lambda: fit(vae, torch.randn(40, 3), training, test=Rows(x, Identity())),
        lambda: evaluate(vae, x),
        lambda: evaluate_rows(vae, x.numpy()),
        lambda: anomaly_scores(vae, x),
        lambda: AggregatedPosterior(vae, x),
        lambda: gaussian_mixture(vae, x),
        lambda: as_rows((x, torch.zeros(40, 1))),
    ):
        with pytest.raises(ValueError, match=sentence):
            refusing()
    for refusing in (vae.model, vae.guide, vae.elbo, vae.encode, vae.reconstruct, vae.check):
        with pytest.raises(
            ValueError, match=r"'x' must be finite, got NaN: only a VAE made with missing=\"nan\""
        ):
            refusing(x)


def test_infinity_is_refused_always():
    x = torch.randn(5, 3).index_fill(0, torch.tensor(2), torch.inf)
    with pytest.raises(
        ValueError, match="'data' must be finite, got NaN or infinity in 1 of 5 rows"
    ):
        evaluate(normal_vae(), x)
    with pytest.raises(ValueError, match="'x' must be finite for NormalLikelihood"):
        normal_vae().model(x)


def test_observed_values_outside_the_support_are_refused_among_missing_ones():
    vae = make_vae(BernoulliLikelihood(nn.Linear(2, 3), 3))
    with pytest.raises(
        ValueError, match="'x' must be 0 or 1 for BernoulliLikelihood, got values from 0 to 2"
    ):
        evaluate(vae, torch.tensor([[NAN, 1.0, 2.0]]))


@pytest.mark.parametrize("x", [[0, NAN, 1.0], [NAN, NAN, 0], [NAN, 1, 0]])
def test_a_part_of_a_one_hot_vector_is_refused(x):
    vae = make_vae(OneHotCategoricalLikelihood(nn.Linear(2, 3), 3))
    for refusing in (vae.elbo, lambda x: evaluate(vae, x)):
        with pytest.raises(ValueError, match=r"OneHotCategorical|one-hot along"):
            refusing(torch.tensor([x, [0, 0, 1.0]]))


def test_a_part_of_a_joint_distribution_is_refused_with_one_sentence():
    class Joint(Likelihood):
        def forward(self, z, y=None):
            return dist.MultivariateNormal(self.call_network(z), torch.eye(3))

    vae, x = make_vae(Joint(nn.Linear(2, 3), 3)), torch.tensor([[NAN, NAN, NAN], [0.0, 1.0, 2.0]])
    assert vae.log_likelihood(x, torch.zeros(2, 2))[0] == 0
    assert vae.log_likelihood(torch.tensor([[NAN, 1.0, 2.0]]), torch.zeros(1, 2)) == 0
    assert vae.elbo(x).isfinite().all()
    with pytest.raises(
        ValueError,
        match=r"'x' must be missing as a whole .* of MultivariateNormal, which has 3 numbers",
    ):
        vae.check(torch.tensor([[NAN, 1.0, 2.0]]))


@pytest.mark.parametrize("missing", ["NaN", True, "mask"])
def test_other_words_for_missing_are_refused(missing):
    with pytest.raises(ValueError, match=f"'missing' must be \"nan\" or None, got {missing!r}"):
        normal_vae(missing=missing)


class LogNormalLikelihood(Likelihood):
    """A user's own, positive data: it cannot score the filler 0."""

    def forward(self, z, y=None):
        return dist.LogNormal(self.call_network(z), 1.0).to_event(1)


def test_a_likelihood_must_be_able_to_score_its_filler():
    class WithFiller(LogNormalLikelihood):
        filler = 1.0

    network = nn.Linear(2, 3)
    assert make_vae(LogNormalLikelihood(network, 3), missing=None).missing is None
    with pytest.raises(
        ValueError, match="'filler' of LogNormalLikelihood must be a value that it can score"
    ) as caught:
        make_vae(LogNormalLikelihood(network, 3))
    assert "\n" not in str(caught.value)
    vae = make_vae(WithFiller(network, 3))
    results = loss_and_gradients(vae, Trace_ELBO(), torch.tensor([[NAN, 1.0, 2.0]]))
    assert all(result.isfinite().all() for result in results)


# The mask as numpy has it


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8, ">f4", np.bool_])
def test_a_masked_array_is_one_with_nan(dtype):
    levels = np.arange(12).reshape(4, 3).astype(dtype)
    mask = np.eye(4, 3, dtype=bool)
    rows = as_rows(np.ma.array(levels, mask=mask, fill_value=1), missing="nan")
    assert torch.equal(rows.levels.isnan(), torch.from_numpy(mask))
    assert rows.levels.dtype == (torch.float64 if dtype == np.float64 else torch.float32)
    assert rows.levels[0, 1] == levels[0, 1]
    paired = as_rows((np.ma.array(levels, mask=mask), np.zeros((4, 2))), 2, missing="nan")
    assert torch.equal(paired.levels.isnan(), torch.from_numpy(mask))
    with pytest.raises(
        ValueError, match="'data' must be an array of real numbers without a mask, got MaskedArray"
    ):
        as_rows(np.ma.array(levels, mask=mask))


def test_what_a_masked_array_hides_has_no_part_in_an_evaluation():
    vae, mask, values = (
        normal_vae(),
        np.random.default_rng(0).random((20, 3)) < 0.4,
        np.random.randn(20, 3),
    )
    hidden = np.ma.array(np.where(mask, 1e9, values), mask=mask)
    for function in (evaluate, lambda *args: [part.tolist() for part in anomaly_scores(*args)]):
        assert function(vae, hidden) == function(vae, np.where(mask, np.nan, values))


# Rows and transforms


def grey(num_rows=50):
    levels = torch.randint(0, 17, (num_rows, 4)).float()
    missing = torch.rand(num_rows, 4) < 0.4
    missing[:, 3] = True
    return levels, torch.where(missing, NAN, levels), missing


@pytest.mark.parametrize(
    "transform",
    [Identity(), UnitInterval(), OpenUnitInterval(), Threshold(0.3), FixedDraw(), DynamicDraw()],
    ids=lambda transform: type(transform).__name__,
)
def test_a_transform_acts_on_observed_levels_and_leaves_nan_where_it_was(transform):
    levels, holes, missing = grey()
    complete, rows = (
        transformed(Rows(part, Identity(), 16.0), transform, 0) for part in (levels, holes)
    )
    index = torch.tensor([3, 9, 4])
    with stream(0):
        expected = torch.where(missing[index], NAN, complete.batch(index))
    with stream(0):
        torch.testing.assert_close(rows.batch(index), expected, rtol=0, atol=0, equal_nan=True)
    every = torch.where(missing, NAN, transform.mean(complete.levels.float(), complete.max_level))
    torch.testing.assert_close(rows.mean(), every.nanmean(0).nan_to_num(0.0))


def test_observed_levels_outside_the_range_of_a_transform_are_refused():
    with pytest.raises(
        ValueError,
        match=r"'data' must lie in 0 ... 1 for the transform UnitInterval\(\), got values",
    ):
        transformed(Rows(torch.tensor([[NAN, 2.0]]), Identity()), UnitInterval(), 0)


def test_rows_that_differ_in_what_is_missing_alone_do_not_vary():
    levels = torch.tensor([[NAN, NAN, 2.0], [NAN, 1.0, 2.0], [NAN, 1.0, NAN]])
    with pytest.raises(ValueError, match="'data' must vary from row to row, got 3 equal rows"):
        as_rows(levels, missing="nan").check_varied()
    levels[2, 2] = 3.0
    as_rows(levels, missing="nan").check_varied()


def test_rows_are_ordered_by_what_is_observed_whatever_nan_is_made_of():
    _, levels, missing = grey()
    other = levels.clone()
    other.view(torch.int32)[missing] = 0x7FC00001
    assert not torch.equal(levels.view(torch.int32), other.view(torch.int32))
    orders = [as_rows(part, missing="nan").content_order() for part in (levels, other)]
    assert torch.equal(*orders)
    assert torch.equal(orders[0].sort().values, torch.arange(len(levels)))


def test_the_order_of_rows_does_not_change_an_evaluation():
    vae, x = nowhere_special(normal_vae()), torch.randn(300, 3)
    x[:, :2][torch.rand(300, 2) < 0.4] = NAN
    order = torch.randperm(300)
    assert torch.equal(
        evaluate_rows(vae, x, num_importance_samples=20).log_marginal[order],
        evaluate_rows(vae, x[order], num_importance_samples=20).log_marginal,
    )


def test_bits_per_dimension_are_told_only_where_nothing_is_missing():
    vae, x = make_vae(BernoulliLikelihood(nn.Linear(2, 3), 3)), torch.ones(5, 3)
    assert evaluate(vae, x).bits_per_dim is not None
    x[4, 0] = NAN
    assert evaluate(vae, x).bits_per_dim is None


def test_the_squared_error_of_a_row_is_that_of_its_observed_entries():
    vae, x = normal_vae(), torch.tensor([[NAN, 1.0, 2.0], [NAN, NAN, NAN]])
    means = vae.reconstruct(x)
    assert means.isfinite().all()
    expected = [((x[0, 1:] - means[0, 1:]) ** 2).sum().item(), 0.0]
    assert anomaly_scores(vae, x).squared_error.tolist() == pytest.approx(expected)


# What the posterior sees


def test_a_posterior_sees_zero_where_x_is_missing():
    vae = normal_vae()
    seen = torch.tensor([[0.0, 1.0, 2.0]])
    assert torch.equal(vae.encode(torch.tensor([[NAN, 1.0, 2.0]])).mean, vae.posterior(seen).mean)


@pytest.mark.parametrize("row_shape", [(3,), (2, 4, 5)])
def test_with_mask_stacks_x_and_the_mask_along_the_first_dimension_of_a_row(row_shape):
    x = torch.randn(6, *row_shape)
    missing = torch.rand(6, *row_shape) < 0.5
    stacked = WithMask(nn.Identity())(torch.where(missing, NAN, x))
    assert torch.equal(
        stacked, torch.cat([torch.where(missing, 0.0, x), 1.0 - missing.float()], dim=1)
    )


def test_with_mask_passes_on_what_the_network_offers():
    network = MLP(6, [4], 5, context_dim=2)
    wrapped = WithMask(network)
    assert (wrapped.context_dim, wrapped.output_bias) == (2, network.output_bias)
    assert wrapped(torch.full((4, 3), NAN), torch.ones(4, 2)).shape == (4, 5)
    assert not hasattr(WithMask(nn.Linear(2, 1)), "output_bias")
    assert WithMask(nn.Linear(2, 1)).context_dim == 0


@pytest.mark.parametrize("make_prior", [lambda: StandardNormalPrior(2), lambda: VampPrior(2, 5)])
def test_an_encoder_that_sees_the_mask_knows_a_zero_from_a_missing_entry(make_prior):
    vae = normal_vae(network=WithMask(MLP(6, [4], (2, 2))), prior=make_prior())
    x = torch.tensor([[NAN, 1.0, 2.0], [0.0, 1.0, 2.0]])
    known, unknown = vae.encode(x).mean
    assert not torch.equal(known, unknown)
    results = loss_and_gradients(vae, ImportanceWeightedELBO(4), x)
    assert all(result.isfinite().all() for result in results)
    assert VAE(vae.prior, vae.likelihood, vae.posterior).elbo(x[1:]).isfinite().all()


def test_an_encoder_of_images_takes_the_mask_as_further_channels():
    x = torch.rand(3, 1, 8, 8)
    x[:, :, 2:4] = NAN
    network = WithMask(ConvEncoder((2, 8, 8), (2, 2), channels=[8]))
    likelihood = BetaLikelihood(nn.Linear(2, 128), (1, 8, 8))
    vae = VAE(
        StandardNormalPrior(2),
        likelihood,
        DiagNormalPosterior(network, (1, 8, 8), 2),
        missing="nan",
    )
    assert vae.elbo(x).isfinite().all()


# A VAE as a thing


def test_a_copy_and_a_pickled_vae_go_on_taking_nan():
    vae, x = normal_vae(network=WithMask(MLP(6, [4], (2, 2)))), torch.tensor([[NAN, 1.0, 2.0]])
    assert "missing='nan'" in repr(vae)
    for other in (copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))):
        with stream(0):
            first = vae.elbo(x)
        with stream(0):
            assert torch.equal(other.elbo(x), first)


def test_whole_numbers_with_holes_are_told_of_before_a_density_scores_them():
    x = torch.randint(0, 3, (40, 3)).float()
    x[::3, 0] = NAN
    with pytest.warns(UserWarning, match="hold whole numbers only"):
        fit(normal_vae(), x, Training(epochs=1, batches=Shuffled(20)))


def test_fit_with_nothing_missing_gives_the_losses_of_a_vae_without_missing_entries():
    x, histories = torch.randn(60, 3), []
    for missing in (None, "nan"):
        torch.manual_seed(1)
        result = fit(
            normal_vae(missing=missing),
            x,
            Training(epochs=3, batches=Shuffled(20)),
            validation=x[:20],
        )
        histories.append([(row.train_loss, row.validation_loss) for row in result.history])
        assert result.how.startswith(("traced", "compiled"))
    assert histories[0] == histories[1]


def test_fit_and_all_that_follows_take_nan():
    x = torch.randn(60, 3)
    x[torch.rand(60, 3) < 0.3] = NAN
    vae = normal_vae(prior=VampPrior(2, 4))
    result = fit(
        vae,
        x,
        Training(epochs=2, batches=Shuffled(20), objective=ImportanceWeightedELBO(5)),
        validation=x,
    )
    assert result.how.startswith(("traced", "compiled"))
    assert evaluate(vae, x).negative_elbo.mean < float("inf")
    assert AggregatedPosterior(vae, x).log_prob(torch.zeros(2)).isfinite()
    assert gaussian_mixture(vae, x, num_components=2).mean.isfinite().all()
    assert impute(vae, x, num_samples=50).mean.isfinite().all()
    assert vae.reconstruct(x).isfinite().all()


# From the command line


TABLE = (
    *(
        "--data.source",
        "ArrayFile",
        "--data.source.path",
        "table.npy",
        "--data.transform",
        "Identity",
    ),
    *(
        "--vae.likelihood",
        "NormalLikelihood",
        "--vae.encoder.hidden",
        "[8]",
        "--vae.decoder.hidden",
        "[8]",
    ),
    *(
        "--training.epochs",
        "1",
        "--run",
        "run",
        "--device",
        "cpu",
        "--training.execution.trace",
        "false",
    ),
)


@pytest.fixture
def table(tmp_path):
    x = np.random.default_rng(0).normal(size=(200, 3))
    x[np.random.default_rng(1).random(x.shape) < 0.3] = np.nan
    np.save(tmp_path / "table.npy", x)
    return tmp_path


@pytest.mark.parametrize("sees_mask", [False, True])
def test_a_table_with_holes_is_trained_on_saved_loaded_evaluated_and_sampled(table, sees_mask):
    ended = call(
        table,
        "train",
        *TABLE,
        "--vae.missing",
        "nan",
        "--vae.encoder_sees_mask",
        str(sees_mask).lower(),
    )
    assert ended.code == 0, ended.err
    vae = load(table / "run")
    behind = vae.posterior.network.network  # what sees x standardised
    assert (vae.missing, type(behind)) == ("nan", WithMask if sees_mask else MLP)
    assert (behind.network if sees_mask else behind).in_size == (6 if sees_mask else 3)
    assert evaluate(vae, np.load(table / "table.npy")).log_marginal.mean < 0
    ended = call(table, "sample" if sees_mask else "evaluate", "run")
    assert ended.code == 0, ended.err


def test_without_the_setting_holes_are_refused_and_nothing_is_written(table):
    ended = call(table, "train", *TABLE)
    assert ended.code == 2
    assert "'data' must be finite, got NaN or infinity in" in ended.err
    assert 'only a VAE made with missing="nan" takes NaN' in ended.err
    assert [file.name for file in table.iterdir()] == ["table.npy"]


def test_a_mask_for_the_encoder_needs_missing_entries(table):
    ended = call(table, "train", *TABLE, "--vae.encoder_sees_mask", "true")
    assert "'vae.encoder_sees_mask' needs 'missing' to be nan, got null" in ended.err


def test_a_run_folder_from_before_there_were_missing_entries_loads(table):
    np.save(table / "table.npy", np.nan_to_num(np.load(table / "table.npy")))
    assert call(table, "train", *TABLE).code == 0
    file = table / "run" / "settings.yaml"
    tree = yaml.safe_load(file.read_text())
    for name in ("missing", "encoder_sees_mask"):
        del tree["vae"][name]
    file.write_text(yaml.safe_dump(tree))
    assert load(table / "run").missing is None


def test_a_vamp_prior_and_an_output_bias_start_from_rows_with_holes(table):
    source = ArrayFile(str(table / "table.npy"))
    settings = settings_parser(read_preset("digits")[0])
    starts = (
        "--vae.prior.num_components",
        "5",
        "--vae.initialize_prior",
        "true",
        "--vae.initialize_bias",
        "true",
    )
    namespace = settings.parse_args(
        [
            *TABLE[: TABLE.index("--run")],
            "--data.source.path",
            source.path,
            "--vae.missing",
            "nan",
            "--vae.prior",
            "VampPrior",
            *starts,
        ]
    )
    vae, splits = prepare(instantiate(settings, namespace))
    assert all(parameter.isfinite().all() for parameter in vae.parameters())
    expected = splits.train.levels.nanmean(0).float()
    torch.testing.assert_close(vae.likelihood.center, expected)
    torch.testing.assert_close(
        vae.likelihood.network.output_bias, torch.zeros(3), atol=1e-6, rtol=0
    )


def test_a_mask_inside_another_network_is_refused():
    network = nn.Sequential(WithMask(nn.Linear(8, 4)), nn.Tanh(), nn.Linear(4, 4))
    with pytest.raises(
        ValueError,
        match="^'network' must be an EncoderInput, such as WithMask, as a whole, got one inside another",
    ):
        DiagNormalPosterior(network, 4, 2)


def test_a_vamp_prior_starts_at_rows_with_holes():
    vae = VAE(
        VampPrior(2, 3),
        NormalLikelihood(nn.Linear(2, 4), 4),
        DiagNormalPosterior(nn.Linear(4, 4), 4, 2),
        missing="nan",
    )
    vae.prior.initialize(torch.randn(3, 4).masked_fill(torch.eye(3, 4).bool(), torch.nan))
    assert vae.prior.pseudo_inputs.isfinite().all()
