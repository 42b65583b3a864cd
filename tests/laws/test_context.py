"""The conditional VAE p(x | y): which parts take y, what is refused, and that every number is the one for that y."""

import copy
import math
from itertools import product

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from models import FixedNoisePosterior, linear, nowhere_special
from pyro.infer import Predictive, Trace_ELBO, TraceEnum_ELBO
from references import LinearGaussian
from torch import nn

from pyro_vae import (
    MLP,
    SVI,
    VAE,
    ArrayFile,
    BernoulliLikelihood,
    ConditionalNormalPrior,
    DiagNormalPosterior,
    Execution,
    FullNormalPosterior,
    Identity,
    NormalLikelihood,
    Rows,
    Shuffled,
    StandardNormalPrior,
    Training,
    VampPrior,
    evaluate,
    fit,
    log_weights,
)
from pyro_vae.data import as_rows
from pyro_vae.evaluation import anomaly_scores, evaluate_rows

X_SHAPE, LATENT_DIM, CONTEXT_DIM, NUM_ROWS = (2, 3), 2, 3, 6
PARTS = ("prior", "likelihood", "posterior")


def make_vae(parts=PARTS, context_dim=CONTEXT_DIM):
    """A VAE of which these parts take y, with weights that are nowhere special."""
    size = {part: context_dim if part in parts else 0 for part in PARTS}
    prior = (
        ConditionalNormalPrior(LATENT_DIM, context_dim)
        if "prior" in parts
        else StandardNormalPrior(LATENT_DIM)
    )
    decoder = MLP(LATENT_DIM, [4], X_SHAPE, nn.Tanh, size["likelihood"])
    encoder = MLP(X_SHAPE, [4], (2, LATENT_DIM), nn.Tanh, size["posterior"])
    posterior = DiagNormalPosterior(encoder, X_SHAPE, LATENT_DIM)
    vae = VAE(prior, BernoulliLikelihood(decoder, X_SHAPE), posterior)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(torch.randn_like(parameter))
    return vae


@pytest.fixture
def vae():
    return make_vae()


@pytest.fixture
def labels():
    return torch.tensor([0, 1, 2, 2, 1, 2])


@pytest.fixture
def y(labels):
    return torch.eye(CONTEXT_DIM)[labels]


@pytest.fixture
def x():
    return torch.randint(2, (NUM_ROWS, *X_SHAPE)).float()


# Which parts take y


@pytest.mark.parametrize(
    "parts", [parts for parts in product(*((part, "") for part in PARTS)) if any(parts)]
)
def test_any_of_the_parts_may_take_y(parts, x, y):
    vae, z = make_vae(parts), torch.randn(NUM_ROWS, LATENT_DIM)
    assert vae.context_dim == CONTEXT_DIM
    other = y.roll(1, dims=1)
    for name, changed in (
        ("prior", vae.prior(y).log_prob(z) != vae.prior(other).log_prob(z)),
        ("likelihood", vae.decode(z, y).log_prob(x) != vae.decode(z, other).log_prob(x)),
        ("posterior", vae.encode(x, y).log_prob(z) != vae.encode(x, other).log_prob(z)),
    ):
        assert changed.all() if name in parts else not changed.any()
    assert (
        vae.sample(NUM_ROWS, y).shape
        == vae.reconstruct(x, y).shape
        == vae.model(y=y).shape
        == x.shape
    )
    losses = []
    for loss in (
        lambda: Trace_ELBO().loss(vae.model, vae.guide, x, y),
        lambda: -vae.elbo(x, y).sum().item(),
        lambda: -log_weights(vae.model, vae.guide, x, y, num_samples=1).sum().item(),
    ):
        torch.manual_seed(2)
        losses.append(loss())
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_without_y_there_is_no_context():
    assert make_vae(()).context_dim == 0


def test_contexts_of_different_sizes_are_refused():
    prior, vae = ConditionalNormalPrior(LATENT_DIM, 2), make_vae(("likelihood",))
    with pytest.raises(
        ValueError, match="'prior', 'likelihood' and 'posterior' must take a context y of one size"
    ):
        VAE(prior, vae.likelihood, vae.posterior)


def test_rows_are_kept_apart(vae, x, y):
    z = torch.randn(4, NUM_ROWS, LATENT_DIM)
    together = vae.encode(x, y).log_prob(z) + vae.decode(z, y).log_prob(x)
    for row in range(NUM_ROWS):
        q_z, p_x = vae.encode(x[row : row + 1], y[row]), vae.decode(z[:, row], y[row])
        torch.testing.assert_close(together[:, row], q_z.log_prob(z[:, row]) + p_x.log_prob(x[row]))


# What is refused


USES = {
    "model": lambda vae, x, y: vae.model(x, y),
    "guide": lambda vae, x, y: vae.guide(x, y),
    "encode": lambda vae, x, y: vae.encode(x, y),
    "decode": lambda vae, x, y: vae.decode(torch.zeros(len(x), LATENT_DIM), y),
    "sample": lambda vae, x, y: vae.sample(len(x), y),
    "elbo": lambda vae, x, y: vae.elbo(x, y),
    "reconstruct": lambda vae, x, y: vae.reconstruct(x, y),
}
WRONG = {
    "none": (lambda y: None, r"'y' must have 3 real numbers a row .*, got none\."),
    "another size": (
        lambda y: y[:, :2],
        r"'y' must have 3 real numbers .*, got torch.float32 of the shape \(6, 2\)\.",
    ),
    "labels from 1": (lambda y: y.argmax(1) * 0 + 3, r"'y' must have labels 0 ... 2, .* label 3\."),
    "real labels": (
        lambda y: y[:, 0],
        r"'y' must have labels 0 ... 2, .*got real numbers of the shape \(6,\)",
    ),
    "no number": (lambda y: y / 0, r"'y' must be finite, got NaN or infinity\."),
    "a number": (
        lambda y: torch.tensor(1.0),
        r"'y' must have 3 real numbers .* of the shape \(\)\.",
    ),
    "fewer rows": (
        lambda y: y[:4],
        r"'y' must have (as many rows as 'x', 6, got 4|the batch shape .*got \(4,\))\.",
    ),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("wrong", WRONG)
def test_another_context_than_the_parts_take_is_refused(vae, x, y, use, wrong):
    USES[use](vae, x, y)
    change, sentence = WRONG[wrong]
    with pytest.raises(ValueError, match=sentence):
        USES[use](vae, x, change(y))


@pytest.mark.parametrize("use", USES)
def test_a_context_that_no_part_takes_is_refused(x, y, use):
    with pytest.raises(ValueError, match="'y' must be omitted for a VAE without a context, got "):
        USES[use](make_vae(()), x, y)


@pytest.mark.parametrize("make", [torch.eye, torch.arange], ids=["vectors", "labels"])
def test_contexts_of_other_rows_are_counted_as_they_came(vae, make):
    with pytest.raises(ValueError, match=r"'y' must have the batch shape \(16,\), .* got \(3,\)\."):
        vae.sample(16, make(3))


@pytest.mark.parametrize("program", ["model", "guide"])
def test_a_program_wants_a_context_for_each_row(vae, x, y, program):
    with pytest.raises(ValueError, match=r"'y' must have the shape \(rows, 3\), got \(3,\)\."):
        getattr(vae, program)(x, y[0])


@pytest.mark.parametrize("use", [fit, evaluate, evaluate_rows, anomaly_scores])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x, y: x, r"'data' must have labels for a VAE with a context y of 3, got none\."),
        (
            lambda x, y: (x, y[:, :2]),
            r"finite vectors of 3 numbers, .*got vectors of 2\.",
        ),
        (
            lambda x, y: (x, y / 0),
            r"'data' must have labels 0 ... 2, or finite vectors of 3 numbers,",
        ),
        (
            lambda x, y: (x, y.argmax(1) + 1),
            r"'data' must have labels 0 ... 2, .* got labels from \d to 3\.",
        ),
        (lambda x, y: (x, y.argmax(1) - 1), r"'data' must have labels 0 ... 2,"),
        (lambda x, y: (x, y[:, 0]), r"'data' must have labels 0 ... 2, .*got real numbers"),
        (
            lambda x, y: (x, y[1:]),
            r"'y' must have the shape \(\d+,\) or \(\d+, Y\), got \(\d+, 3\)\.",
        ),
        (lambda x, y: (x, y, y), r"'data' must be rows x or a pair \(x, y\), got a tuple of 3\."),
    ],
)
def test_data_without_a_context_for_each_row_are_refused(vae, x, y, use, change, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        use(vae, change(x.repeat(30, 1, 1), y.repeat(30, 1)))
    assert "\n" not in str(caught.value)


# What y may be


def test_labels_become_unit_vectors_and_vectors_pass_as_they_are(labels, x):
    assert torch.equal(as_rows((x, labels)).context(4), torch.eye(4, dtype=torch.uint8)[labels])
    vectors = torch.randn(NUM_ROWS, 4)
    assert torch.equal(as_rows((x, vectors)).context(4), vectors)
    assert as_rows((x, labels)).context(0) is None
    assert torch.equal(
        as_rows((x, labels)).take(slice(2, 4)).context(3), torch.eye(3, dtype=torch.uint8)[[2, 2]]
    )


@pytest.mark.parametrize("dtype", ["u1", "u2", ">i4", "i8", "u8"])
def test_labels_may_be_arrays_of_any_whole_numbers(vae, x, labels, dtype):
    array = labels.numpy().astype(dtype)[::-1]
    array.flags.writeable = False
    expected = evaluate(vae, (x.flip(0), labels)).negative_elbo
    assert evaluate(vae, (x.flip(0).numpy(), array[::-1])).negative_elbo == expected
    assert (
        evaluate(vae, (x.flip(0), torch.from_numpy(labels.numpy().astype("u2")))).negative_elbo
        == expected
    )


def test_arrays_of_no_numbers_are_refused_as_labels(vae, x):
    with pytest.raises(
        ValueError,
        match="'y' must be an array of real numbers, got strings such as 'a'",
    ):
        evaluate(vae, (x, np.array(list("abcabc"))))


def test_labels_are_left_aside_where_no_part_takes_y(x, labels):
    vae, rows = make_vae(()), Rows(x, Identity(), labels=labels)
    assert evaluate(vae, rows) == evaluate(vae, x)
    fit(vae, rows, Training(epochs=1, batches=Shuffled(3)))
    for function in (evaluate, fit):
        with pytest.raises(ValueError, match="must be rows x without a context y .*, got a pair"):
            function(vae, (x, labels))


def test_a_vae_in_double_precision_sees_its_context_in_double_precision(vae, x, labels):
    vae.double()
    fit(vae, (x, labels), Training(epochs=1, batches=Shuffled(3)))
    assert evaluate(vae, (x, labels)).negative_elbo.mean > 0


# Linear-Gaussian: x | z, y ~ N(W z + C y + b, s² I) with the exact posterior is exact, draw by draw


class Exact:
    """The VAE, rows with their contexts, and log p(x | y) of each row."""

    def __init__(self):
        weight, offset, bias, scale = (
            torch.randn(5, 2),
            torch.randn(5, CONTEXT_DIM),
            torch.randn(5),
            0.7,
        )
        reference = LinearGaussian(weight, bias, scale)
        decoder = affine(2, 5, torch.cat([weight, offset], 1), bias)
        loc = reference.precision.inverse() @ weight.T
        lower = torch.linalg.cholesky(reference.posterior_covariance())
        below = 10 * 2 * lower[1, :1] / lower[1, 1]
        numbers = torch.cat([(lower.diagonal() - 1e-6).log(), below])
        encoder_weight = torch.cat(
            [torch.cat([loc, -loc @ offset], 1), torch.zeros(3, 5 + CONTEXT_DIM)]
        )
        encoder = affine(5, 5, encoder_weight, torch.cat([-loc @ bias, numbers]))
        posterior = FullNormalPosterior(encoder, 5, 2)
        self.vae = VAE(StandardNormalPrior(2), NormalLikelihood(decoder, 5, scale), posterior)
        self.y = torch.randn(230, CONTEXT_DIM)
        self.x = torch.randn(230, 5)
        self.log_marginal = reference.log_marginal(self.x - self.y @ offset.T)


def affine(in_size, out_size, weight, bias):
    mlp = MLP(in_size, [], out_size, context_dim=CONTEXT_DIM)
    mlp.layers = nn.Sequential(linear(weight, bias))
    return mlp


@pytest.fixture
def exact(float64):
    return Exact()


def test_every_draw_gives_the_conditional_log_marginal(exact):
    vae, x, y, expected = exact.vae, exact.x, exact.y, exact.log_marginal
    torch.testing.assert_close(vae.elbo(x, y, num_samples=3), expected, atol=1e-10, rtol=0)
    weights = log_weights(vae.model, vae.guide, x, y, num_samples=3)
    torch.testing.assert_close(weights, expected.expand(3, -1), atol=1e-10, rtol=0)
    assert Trace_ELBO().loss(vae.model, vae.guide, x, y) == pytest.approx(
        -expected.sum().item(), abs=1e-8
    )
    svi = SVI(vae.model, vae.guide, torch.optim.SGD(vae.parameters(), lr=0.0), Trace_ELBO())
    for _ in range(3):  # plain, and traced
        assert svi.step(x, y).item() == pytest.approx(-expected.sum().item(), abs=1e-8)
    assert not torch.isclose(vae.elbo(x, y.roll(1, 0)), expected).any()


def test_every_row_is_evaluated_at_its_own_context(exact):
    data, expected = (exact.x, exact.y), exact.log_marginal
    result = evaluate(exact.vae, data, num_samples=3, num_importance_samples=30)
    assert result.log_marginal.mean == pytest.approx(expected.mean().item(), abs=1e-10)
    assert result.log_marginal.monte_carlo_error == pytest.approx(0, abs=1e-7)
    rows = evaluate_rows(exact.vae, data, num_samples=3, num_importance_samples=30)
    torch.testing.assert_close(rows.log_marginal, expected, atol=1e-10, rtol=0)
    scores = anomaly_scores(exact.vae, data, num_samples=3)
    torch.testing.assert_close(scores.negative_log_marginal, -expected, atol=1e-10, rtol=0)
    residual = exact.x - exact.vae.reconstruct(exact.x, exact.y)
    torch.testing.assert_close(scores.squared_error, residual.square().sum(1))
    assert torch.equal(scores.kl, rows.rate)


def test_evaluation_does_not_depend_on_the_order_of_the_rows(vae):
    # Few different x, so that many rows are told apart by y alone.
    x, labels = torch.randint(2, (450, *X_SHAPE)).float(), torch.randint(CONTEXT_DIM, (450,))
    x[:, :, 1:] = 0.0
    order = torch.randperm(450)
    for y in (labels, torch.eye(CONTEXT_DIM)[labels]):
        result, shuffled = (evaluate(vae, (x[index], y[index])) for index in (order, slice(None)))
        for name in ("negative_elbo", "rate", "log_marginal"):
            assert getattr(result, name) == pytest.approx(getattr(shuffled, name), rel=1e-6)
    rows, shuffled = (evaluate_rows(vae, (x[index], y[index])) for index in (slice(None), order))
    for column, other in zip(rows, shuffled, strict=True):
        # Equal rows with equal y may change places.
        torch.testing.assert_close(column[order].sort().values, other.sort().values)
    assert evaluate(vae, (x, labels.flip(0))).log_marginal.mean != pytest.approx(
        result.log_marginal.mean, rel=1e-3
    )


# Training


PROBABILITIES = torch.tensor([[0.9, 0.9, 0.1], [0.1, 0.5, 0.9], [0.5, 0.1, 0.1]])


@pytest.fixture
def toy():
    """Rows that depend on y alone."""
    labels = torch.arange(600) % CONTEXT_DIM
    return PROBABILITIES[labels].bernoulli(), labels


def toy_vae():
    return VAE(
        StandardNormalPrior(1),
        BernoulliLikelihood(MLP(1, [], 3, context_dim=CONTEXT_DIM), 3),
        DiagNormalPosterior(MLP(3, [], 2, context_dim=CONTEXT_DIM), 3, 1),
    )


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.02)


def test_traced_training_with_y_is_that_of_plain_pyro_bit_for_bit(toy):
    start, runs = toy_vae(), []
    for trace in (True, False):
        vae = copy.deepcopy(start)
        execution = Execution(trace=trace)
        training = Training(epochs=2, batches=Shuffled(64), optimizer=adam, execution=execution)
        run = fit(vae, toy, training, validation=toy)
        assert run.how == ("traced" if trace else "plain")
        runs.append(
            (vae.state_dict(), [(row.train_loss, row.validation_loss) for row in run.history])
        )
    torch.testing.assert_close(*runs, rtol=0, atol=0)


@pytest.mark.slow
def test_training_learns_the_distribution_of_x_given_y(toy):
    # Each mean is of 200 draws, whose standard deviation is 0.035; failure rate 6e-5 each (4 of these), at a fixed seed.
    vae = toy_vae()
    fit(vae, toy, Training(epochs=40, batches=Shuffled(60), optimizer=adam))
    for label, probabilities in enumerate(PROBABILITIES):
        y = torch.eye(CONTEXT_DIM)[label]
        assert (
            (vae.decode(torch.zeros(1), y).mean - toy[0][toy[1] == label].mean(0)).abs() < 0.05
        ).all()
        assert ((vae.sample(200, y).mean(0) - probabilities).abs() < 4 * 0.035 + 0.05).all()
    entropy = (
        -(PROBABILITIES * PROBABILITIES.log() + (1 - PROBABILITIES) * (1 - PROBABILITIES).log())
        .sum(1)
        .mean()
    )
    assert evaluate(vae, toy).log_marginal.mean == pytest.approx(-entropy.item(), abs=0.08)
    wrong = evaluate(vae, (toy[0], (toy[1] + 1) % CONTEXT_DIM)).log_marginal.mean
    assert wrong < -entropy - 0.5


# Drawing for a given y


def test_draws_for_a_context_are_drawn_from_its_prior_and_its_likelihood():
    # Failure rate: 6e-5 for each number (4 standard errors), at a fixed seed.
    vae = VAE(
        ConditionalNormalPrior(1, 2),
        NormalLikelihood(MLP(1, [], 1, context_dim=2), 1, 0.5),
        DiagNormalPosterior(MLP(1, [], 2), 1, 1),
    )
    vae.prior.network.weight.data = torch.tensor([[3.0, -1.0], [0.0, 0.0]])
    vae.prior.network.bias.data.zero_()
    vae.likelihood.network.layers[0].weight.data = torch.tensor([[1.0, 10.0, 0.0]])
    vae.likelihood.network.layers[0].bias.data.zero_()
    y = torch.eye(2).repeat(2000, 1)
    x, error = vae.sample(4000, y), 4 * (1 + 0.25) ** 0.5 / 2000**0.5
    assert abs(x[::2].mean() - 13) < error  # 3 from the prior, 10 from the likelihood
    assert abs(x[1::2].mean() + 1) < error
    assert abs(vae.sample(2000, y[0]).mean() - 13) < error
    drawn = Predictive(vae.model, num_samples=3)(y=y)["x"]
    assert drawn.shape == (3, 4000, 1)
    assert abs(drawn[:, 1::2].mean() + 1) < error


def test_pyro_draws_the_diagram_of_a_conditional_vae(vae, x, y):
    assert "z -> x" in pyro.render_model(vae.model, model_args=(x, y)).source


def test_a_vamp_prior_makes_a_conditional_vae_of_a_posterior_that_takes_y(x, y):
    posterior = make_vae(("posterior",)).posterior
    vae = VAE(VampPrior(LATENT_DIM, 4), make_vae(()).likelihood, posterior)
    assert (vae.context_dim, vae.prior(y).batch_shape) == (CONTEXT_DIM, (NUM_ROWS,))
    torch.manual_seed(0)
    expected = -vae.elbo(x, y).sum().item()
    torch.manual_seed(0)
    assert Trace_ELBO().loss(vae.model, vae.guide, x, y) == pytest.approx(expected, rel=1e-5)


# Contexts in files


@pytest.mark.parametrize("is_vector", [False, True], ids=["labels", "vectors"])
def test_a_file_may_hold_the_context_of_each_row(tmp_path, vae, x, labels, is_vector):
    y = (
        np.random.default_rng(0).normal(size=(NUM_ROWS, CONTEXT_DIM))
        if is_vector
        else labels.numpy()
    )
    np.savez(tmp_path / "rows.npz", x=x.numpy(), y=y)
    train, test = ArrayFile(str(tmp_path / "rows.npz"), test_fraction=0.5).read()
    contexts = torch.cat([train.context(CONTEXT_DIM), test.context(CONTEXT_DIM)]).float()
    expected = torch.from_numpy(y).float() if is_vector else torch.eye(CONTEXT_DIM)[labels]
    together = torch.cat([torch.cat([train.levels, test.levels]).flatten(1), contexts], 1)
    assert sorted(together.tolist()) == sorted(torch.cat([x.flatten(1), expected], 1).tolist())
    assert evaluate(vae, test).negative_elbo.num_rows == 3


# Labels that are enumerated


def conditional_vae(posterior=DiagNormalPosterior):
    return VAE(
        StandardNormalPrior(2),
        BernoulliLikelihood(MLP(2, [8], 6, context_dim=3), 6),
        posterior(MLP(6, [8], 4, context_dim=3), 6, 2),
    )


def test_a_context_with_dimensions_of_its_own_is_met_by_every_row():
    vae, x, y = nowhere_special(conditional_vae()), torch.randn(5, 6), torch.eye(3).unsqueeze(1)
    q_z, p_x = vae.posterior(x, y), vae.likelihood(torch.zeros(5, 2), y)
    assert q_z.batch_shape == p_x.batch_shape == (3, 5)
    for label in range(3):
        one = torch.eye(3)[label].expand(5, 3)
        torch.testing.assert_close(q_z.mean[label], vae.posterior(x, one).mean)
        torch.testing.assert_close(p_x.mean[label], vae.likelihood(torch.zeros(5, 2), one).mean)


def test_an_enumerated_label_gives_the_sum_over_labels():
    vae, x = (
        nowhere_special(conditional_vae(FixedNoisePosterior)),
        torch.bernoulli(torch.full((5, 6), 0.5)),
    )
    classifier = nn.Linear(6, 3)

    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(3)))
            z = pyro.sample("z", vae.prior())
            pyro.sample("x", vae.likelihood(z, y), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample(
                "y", dist.OneHotCategorical(logits=classifier(x)), infer={"enumerate": "parallel"}
            )
            pyro.sample("z", vae.posterior(x, y))

    log_q_y = classifier(x).log_softmax(-1)
    elbo = torch.zeros(5)
    for label in range(3):
        y = torch.eye(3)[label].expand(5, 3)
        of_label = vae.elbo(x, y) - math.log(3) - log_q_y[:, label]
        elbo = elbo + log_q_y[:, label].exp() * of_label
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(model, guide, x)
    assert -loss == pytest.approx(elbo.sum().item(), rel=1e-5)
