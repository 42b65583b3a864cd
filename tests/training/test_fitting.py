import math
import re
from functools import partial

import pyro
import pytest
import torch
from models import ExactPosterior, binary_vae, linear_gaussian_vae
from pyro.infer import Trace_ELBO
from references import LinearGaussian
from torch import nn

from pyro_vae import (
    MLP,
    VAE,
    BernoulliLikelihood,
    DiagNormalPosterior,
    DynamicDraw,
    Execution,
    LinearWarmup,
    NonFiniteLossError,
    NormalLikelihood,
    Rows,
    Shuffled,
    StandardNormalPrior,
    Training,
    WithReplacement,
    evaluate,
    fit,
)
from pyro_vae.data import Batches, Identity
from pyro_vae.engine import program as engine_program
from pyro_vae.engine import trace
from pyro_vae.evaluation.measures import MeanELBOTerms
from pyro_vae.objectives import RowELBO, Schedule

ADAM = partial(torch.optim.Adam, lr=0.01)
plain = partial(Training, execution=Execution(trace=False))  # so few steps are not worth a trace


@pytest.fixture
def x():
    return binary_vae().sample(50)


def fresh_vae(seed=0):
    torch.manual_seed(seed)
    return binary_vae()


def losses(result):
    return [(row.train_loss, row.validation_loss, row.test_loss) for row in result.history]


def same_weights(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_training_raises_the_elbo(x):
    vae = fresh_vae()
    before = vae.elbo(x, num_samples=50).mean()
    fast = partial(torch.optim.Adam, lr=0.03)
    result = fit(vae, x, plain(epochs=15, batches=Shuffled(10), optimizer=fast))
    assert vae.elbo(x, num_samples=50).mean() > before + 0.5
    assert result.outcome == "finished"
    assert [row.epoch for row in result.history] == list(range(1, 16))


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(x):
    runs = [
        fit(fresh_vae(), x, plain(epochs=2, seed=seed, batches=Shuffled(10)), test=x)
        for seed in (3, 3, 4)
    ]
    assert losses(runs[0]) == losses(runs[1])
    assert same_weights(runs[0].weights, runs[1].weights)
    assert losses(runs[0]) != losses(runs[2])


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(x):
    rows = Rows(torch.randint(256, (50, 1, 4, 4), dtype=torch.uint8), DynamicDraw(), 255.0)
    settings = partial(
        plain,
        batches=Shuffled(16),
        optimizer=ADAM,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8),
        kl_schedule=LinearWarmup(3),
        clip_norm=5.0,
    )
    whole = fit(fresh_vae(), rows, settings(epochs=4), validation=x)
    part = fit(fresh_vae(), rows, settings(epochs=2), validation=x)
    resumed = fit(fresh_vae(seed=9), rows, settings(epochs=4), validation=x, resume=part)
    assert losses(whole) == losses(resumed)
    assert same_weights(whole.weights, resumed.weights)
    assert same_weights(whole.best_weights, resumed.best_weights)


def test_the_train_loss_weighs_rows_alike_whatever_the_last_batch():
    # With the exact posterior every loss is -log p(x) of its rows, so the epoch's mean is known.
    torch.set_default_dtype(torch.float64)
    try:
        reference = LinearGaussian(torch.randn(3, 2), torch.randn(3), 0.5)
        vae, x = linear_gaussian_vae(reference, ExactPosterior(reference)), torch.randn(23, 3)
        still = Training(
            epochs=1,
            batches=Shuffled(10),
            optimizer=partial(torch.optim.SGD, lr=0.0),
            objective=Trace_ELBO(),
        )
        result = fit(vae, x, still)
        expected = -reference.log_marginal(x).mean().item()
    finally:
        torch.set_default_dtype(torch.float32)
    assert result.history[0].train_loss == pytest.approx(expected, abs=1e-9)


def test_a_step_differentiates_the_mean_so_that_the_batch_size_does_not_scale_it(x):
    moves = []
    for rows in (x, torch.cat([x, x, x, x])):
        vae = fresh_vae()
        before = vae.likelihood.network.layers[-1].bias.detach().clone()
        fit(
            vae,
            rows,
            plain(
                epochs=1, batches=Shuffled(len(rows)), optimizer=partial(torch.optim.SGD, lr=0.1)
            ),
        )
        moves.append(vae.likelihood.network.layers[-1].bias.detach() - before)
    torch.testing.assert_close(
        moves[0], moves[1], rtol=0.3, atol=2e-3
    )  # another draw of z, not another scale


def test_random_state_store_and_validation_flags_of_the_caller_stay(x):
    vae = fresh_vae()
    state, store = torch.get_rng_state(), set(pyro.get_param_store().keys())
    with pyro.validation_enabled(False):
        fit(vae, x, plain(epochs=1, batches=Shuffled(10)), test=x)
        assert not pyro.distributions.is_validation_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    assert set(pyro.get_param_store().keys()) == store


def test_ctrl_c_returns_what_the_last_whole_epoch_reached(x):
    def interrupt(reached):
        if len(reached.history) == 2:
            raise KeyboardInterrupt

    settings = plain(epochs=4, batches=Shuffled(10))
    result = fit(fresh_vae(), x, settings, on_epoch=interrupt)
    assert (result.outcome, len(result.history)) == ("interrupted", 2)
    assert losses(fit(fresh_vae(), x, settings, resume=result)) == losses(
        fit(fresh_vae(), x, settings)
    )


def test_on_epoch_sees_the_start_and_every_epoch(x):
    seen = []
    fit(
        fresh_vae(),
        x,
        plain(epochs=2, batches=Shuffled(10)),
        on_epoch=lambda reached: seen.append(len(reached.history)),
    )
    assert seen == [0, 1, 2]


def test_early_stopping_keeps_the_best_weights(x):
    vae, opposite = fresh_vae(), 1 - x
    torch.manual_seed(0)
    result = fit(
        vae,
        x,
        plain(epochs=60, batches=Shuffled(10), optimizer=ADAM, patience=3),
        validation=opposite,
    )
    validation = [row.validation_loss for row in result.history]
    best = validation.index(min(validation))
    assert result.outcome == "stopped early"
    assert len(validation) == best + 1 + 3
    again = fit(
        fresh_vae(),
        x,
        plain(epochs=best + 1, batches=Shuffled(10), optimizer=ADAM),
        validation=opposite,
    )
    assert same_weights(result.best_weights, again.weights)
    assert not same_weights(result.best_weights, result.weights)
    assert same_weights(vae.state_dict(), result.best_weights)


def overfitted(vae, x, epochs, **options):
    """The result of a fit to almost only ones; on rows of zeros each epoch is worse than the last."""
    fast = partial(torch.optim.Adam, lr=0.1)
    training = plain(epochs=epochs, batches=Shuffled(25), optimizer=fast)
    most = torch.ones_like(x)
    most[0] = 0  # rows that are all alike are refused
    return fit(vae, most, training, **options)


@pytest.mark.parametrize("is_validated", [True, False])
def test_after_fit_the_vae_has_the_best_weights_or_without_validation_the_last(x, is_validated):
    vae = fresh_vae()
    result = overfitted(vae, x, 6, validation=torch.zeros_like(x) if is_validated else None)
    assert same_weights(vae.state_dict(), result.best_weights)
    assert same_weights(vae.state_dict(), result.weights) is not is_validated


def test_after_ctrl_c_the_vae_has_the_best_weights_of_whole_epochs(x):
    def interrupt(reached):
        if len(reached.history) == 5:
            interrupted.append(True)

    def at_once(step):
        if interrupted:
            raise KeyboardInterrupt

    for validation in (torch.zeros_like(x), None):
        vae, interrupted = fresh_vae(), []
        result = overfitted(vae, x, 7, validation=validation, on_epoch=interrupt, on_step=at_once)
        assert (result.outcome, len(result.history)) == ("interrupted", 5)
        assert same_weights(vae.state_dict(), result.best_weights)


def test_a_run_that_is_resumed_goes_on_from_its_last_weights(x):
    validation = torch.zeros_like(x)
    vae = fresh_vae()
    part = overfitted(vae, x, 4, validation=validation)
    resumed = overfitted(vae, x, 6, validation=validation, resume=part)
    whole = overfitted(fresh_vae(), x, 6, validation=validation)
    assert losses(resumed) == losses(whole)
    assert same_weights(resumed.weights, whole.weights)
    assert same_weights(vae.state_dict(), whole.best_weights)


def test_a_run_with_no_epoch_left_gives_its_best_weights(x):
    part = overfitted(fresh_vae(), x, 4, validation=torch.zeros_like(x))
    vae = fresh_vae()
    again = overfitted(vae, x, 4, validation=torch.zeros_like(x), resume=part)
    assert same_weights(again.weights, part.weights)
    assert same_weights(vae.state_dict(), part.best_weights)


def test_the_history_holds_the_rate_and_so_the_distortion_of_validation_and_test_rows(x):
    vae = fresh_vae()
    result = fit(vae, x, plain(epochs=1), validation=x[:20], test=x[20:])
    row = result.history[-1]
    for loss, rate, rows in (
        (row.validation_loss, row.validation_rate, x[:20]),
        (row.test_loss, row.test_rate, x[20:]),
    ):
        found = evaluate(vae, rows, num_samples=1, num_importance_samples=0)
        assert (loss, rate) == (found.negative_elbo.mean, found.rate.mean)
        assert loss - rate == pytest.approx(found.distortion.mean, rel=1e-6)


def test_a_non_finite_loss_names_epoch_and_step_and_gives_the_last_good_weights_back(x):
    vae, good = fresh_vae(), []

    def poison(reached):
        good.append(reached.weights)
        if len(reached.history) == 1:
            broken.poisoned = True

    class Broken(BernoulliLikelihood):
        poisoned, calls = False, 0

        def forward(self, z, y=None):
            self.calls += self.poisoned
            p_x = super().forward(z, y)
            return (
                p_x
                if self.calls < 3
                else pyro.distributions.Normal(math.nan * z[:, :1, None, None], 1)
                .expand([len(z), 1, 4, 4])
                .to_event(3)
            )

    broken = Broken(vae.likelihood.network, vae.x_shape)
    vae.likelihood = broken
    with pytest.raises(
        NonFiniteLossError,
        match="in epoch 2 at step 3, .* end of epoch 1 .* 'loc' of its Normal must be finite, got NaN",
    ):
        fit(
            vae,
            x,
            Training(epochs=3, batches=Shuffled(10), execution=Execution(trace=False)),
            on_epoch=poison,
        )
    assert same_weights(vae.state_dict(), good[1])


def test_weights_that_overflow_are_caught_before_they_are_kept(x):
    vae = fresh_vae()
    start = {name: value.clone() for name, value in vae.state_dict().items()}
    with pytest.raises(NonFiniteLossError, match="epoch 1 at step .* a lower learning rate"):
        fit(
            vae,
            x,
            Training(epochs=1, batches=Shuffled(10), optimizer=partial(torch.optim.SGD, lr=1e38)),
        )
    assert same_weights(vae.state_dict(), start)


def test_the_kl_weight_warms_up_over_epochs(x):
    result = fit(
        fresh_vae(),
        x,
        plain(epochs=4, batches=Shuffled(10), kl_schedule=LinearWarmup(epochs=2, start=0.1)),
    )
    assert [row.scheduled for row in result.history] == pytest.approx([0.46, 0.91, 1.0, 1.0])


def test_the_scheduler_steps_once_an_epoch(x):
    halve = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    result = fit(
        fresh_vae(), x, plain(epochs=3, batches=Shuffled(10), optimizer=ADAM, scheduler=halve)
    )
    assert [row.learning_rate for row in result.history] == pytest.approx([0.01, 0.005, 0.0025])


def test_a_plateau_scheduler_watches_the_validation_loss(x):
    plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, factor=0.1, patience=0)
    settings = plain(epochs=15, batches=Shuffled(10), optimizer=ADAM, scheduler=plateau)
    result = fit(fresh_vae(), x, settings, validation=1 - x)
    assert result.history[-1].learning_rate < 0.01


def test_gradients_are_clipped_by_their_common_norm(x):
    vae = fresh_vae()
    before = [parameter.detach().clone() for parameter in vae.parameters()]
    fit(
        vae,
        x,
        plain(
            epochs=1,
            batches=Shuffled(50),
            optimizer=partial(torch.optim.SGD, lr=1.0),
            clip_norm=0.01,
        ),
    )
    moved = torch.cat(
        [(new - old).flatten() for new, old in zip(vae.parameters(), before, strict=True)]
    )
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_a_vae_in_double_precision_is_trained_and_evaluated_in_it(x):
    vae = fresh_vae().double()
    result = fit(vae, x, plain(epochs=1, batches=Shuffled(10)), test=x)
    assert all(value.dtype == torch.float64 for value in result.weights.values())


def test_modes_come_back_and_a_module_set_apart_stays_so(x):
    vae = fresh_vae()
    frozen = vae.posterior.network.layers[1].eval()
    seen = []
    vae.likelihood.register_forward_hook(lambda *_: seen.append((vae.training, frozen.training)))
    fit(vae, x, Training(epochs=1, batches=Shuffled(10), execution=Execution(trace=False)))
    assert seen[-1] == (True, False)
    assert not any(is_frozen_training for _, is_frozen_training in seen)
    vae.eval()
    fit(vae, x, Training(epochs=1, batches=Shuffled(10), execution=Execution(trace=False)))
    assert not any(module.training for module in vae.modules())


def test_what_a_callback_draws_leaves_the_losses_alone(x):
    runs = [
        fit(fresh_vae(), x, plain(epochs=1, batches=Shuffled(10)), on_step=on_step)
        for on_step in (None, lambda step: torch.rand(3))
    ]
    assert losses(runs[0]) == losses(runs[1])


def test_a_test_loss_that_is_not_finite_ends_the_run(x, monkeypatch):
    vae = fresh_vae()
    start = {name: value.clone() for name, value in vae.state_dict().items()}
    without_value = MeanELBOTerms(math.nan, math.nan)
    monkeypatch.setattr("pyro_vae.training.fitting.mean_elbo_terms", lambda *_: without_value)
    with pytest.raises(
        NonFiniteLossError, match="epoch 1 on the rows of 'test', .* end of epoch 0"
    ):
        fit(vae, x, plain(epochs=2, batches=Shuffled(10)), test=x)
    assert same_weights(vae.state_dict(), start)


def test_frozen_parameters_stay(x):
    vae = fresh_vae()
    before = [parameter.requires_grad_(False).clone() for parameter in vae.posterior.parameters()]
    fit(vae, x, plain(epochs=1, batches=Shuffled(10)))
    torch.testing.assert_close(list(vae.posterior.parameters()), before)


def test_batches_with_replacement_number_what_they_should(x):
    vae, steps = fresh_vae(), []
    fit(vae, x, plain(epochs=2, batches=WithReplacement(5, 7)), on_step=steps.append)
    assert steps == list(range(1, 15))


BAD_SETTINGS = {
    "'epochs' must be a whole number of at least 1, got 0": lambda: Training(epochs=0),
    "'patience' must be a whole number of at least 1, got 0": lambda: Training(patience=0),
    "'patience' needs validation rows, got 3 without any": lambda: Training(patience=3),
    "'clip_norm' must be greater than 0, got 0": lambda: Training(clip_norm=0.0),
    "'optimizer' of Training must be a function of 1 argument that returns an Opt.* an Adam": lambda: (
        Training(optimizer=ADAM(binary_vae().parameters()))
    ),
    "'data' must have at least one batch of 128 rows, got 50": lambda: Training(
        batches=Shuffled(128, drop_last=True)
    ),
}


@pytest.mark.parametrize("sentence", BAD_SETTINGS)
def test_bad_settings_are_refused_before_any_work(x, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit(
            fresh_vae(),
            x,
            BAD_SETTINGS[sentence](),
            on_epoch=lambda reached: pytest.fail("work was done"),
        )


BAD_DATA = {
    "'x' must be 0 or 1": lambda x: x / 2,
    "must have rows of the shape": lambda x: x.flatten(1),
    "must be finite": lambda x: x * math.nan,
    "must vary from row to row": lambda x: x * 0,
    "at least one row": lambda x: x[:0],
}


@pytest.mark.parametrize("sentence", BAD_DATA)
def test_bad_data_are_refused_before_any_work(x, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit(
            fresh_vae(),
            BAD_DATA[sentence](x),
            Training(batches=Shuffled(10)),
            on_epoch=lambda reached: pytest.fail("work was done"),
        )


# How steps are run


def grey_rows(num_rows=40):
    """Grey levels that are binarised anew in every batch."""
    levels = torch.randint(256, (num_rows, 1, 4, 4), dtype=torch.uint8)
    return Rows(levels, DynamicDraw(), max_level=255)


WARM = {"batches": Shuffled(10), "kl_schedule": LinearWarmup(epochs=3, start=0.1), "clip_norm": 0.5}


def test_traced_training_is_that_of_plain_pyro_bit_for_bit():
    rows = grey_rows(47)  # the last batch of an epoch is short
    traced, plain = (
        fit(fresh_vae(), rows, Training(epochs=3, execution=Execution(trace=trace), **WARM))
        for trace in (True, False)
    )
    assert losses(traced) == losses(plain)
    assert same_weights(traced.weights, plain.weights)
    assert (traced.how, plain.how) == ("traced", "plain")


EXECUTIONS = {
    "traced": Execution(),
    "compiled": Execution(compile=True),
    "traced, bfloat16 products": Execution(precision="bfloat16"),
}


@pytest.mark.usefixtures("every_product_counts")
@pytest.mark.parametrize(
    "how",
    [
        "traced",
        *(pytest.param(how, marks=pytest.mark.slow) for how in EXECUTIONS if how != "traced"),
    ],
)
def test_however_it_is_run_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(how):
    rows = grey_rows()
    whole, first = (
        fit(fresh_vae(), rows, Training(epochs=epochs, **WARM, execution=EXECUTIONS[how]))
        for epochs in (2, 1)
    )
    resumed = fit(
        fresh_vae(), rows, Training(epochs=2, **WARM, execution=EXECUTIONS[how]), resume=first
    )
    assert losses(resumed) == losses(whole)
    assert same_weights(resumed.weights, whole.weights)
    assert resumed.how == how


@pytest.mark.usefixtures("every_product_counts")
@pytest.mark.parametrize(
    "how", [pytest.param("compiled", marks=pytest.mark.slow), "traced, bfloat16 products"]
)
def test_however_it_is_run_it_learns_the_same(how):
    rows = grey_rows()
    received, expected = (
        fit(fresh_vae(), rows, Training(epochs=3, **WARM, execution=execution))
        for execution in (EXECUTIONS[how], Execution(trace=False))
    )
    torch.testing.assert_close(losses(received)[-1][0], losses(expected)[-1][0], rtol=5e-3, atol=0)


@pytest.mark.slow
def test_long_runs_are_compiled_and_short_ones_are_not(x, monkeypatch):
    monkeypatch.setattr(
        engine_program, "_seconds_saved", lambda graph: engine_program._COMPILE_SECONDS / 11
    )
    hows = [
        fit(fresh_vae(), x, Training(epochs=epochs, batches=Shuffled(10))).how for epochs in (2, 3)
    ]
    assert hows == ["traced", "compiled"]


def test_a_schedule_of_kl_weights_needs_no_trace_for_each(x, monkeypatch):
    traces = []

    def counted(function, inputs):
        traces.append(inputs)
        return trace(function, inputs)

    monkeypatch.setattr(engine_program, "trace", counted)
    fit(
        fresh_vae(), x, Training(epochs=3, batches=Shuffled(10), kl_schedule=LinearWarmup(epochs=3))
    )
    assert len(traces) == 1


@pytest.mark.usefixtures("every_product_counts")
def test_losses_of_validation_rows_are_in_the_precision_of_the_parameters():
    rows = grey_rows()
    result = fit(
        fresh_vae(),
        rows,
        Training(epochs=1, execution=Execution(precision="bfloat16"), **WARM),
        test=rows,
    )
    vae = fresh_vae()
    vae.load_state_dict(result.weights)
    assert (
        result.history[-1].test_loss
        == evaluate(vae, rows, num_samples=1, num_importance_samples=0).negative_elbo.mean
    )


def test_whole_numbers_under_a_density_are_said_to_be_so():
    x = torch.randint(5, (20, 3)).float()
    vae = VAE(
        StandardNormalPrior(2),
        NormalLikelihood(MLP(2, [], 3), 3),
        DiagNormalPosterior(MLP(3, [], 4), 3, 2),
    )
    with pytest.warns(
        UserWarning,
        match="'data' hold whole numbers only, which NormalLikelihood scores by a density",
    ):
        fit(vae, x, plain(epochs=1, batches=Shuffled(10)))
    fit(vae, x + 0.5, plain(epochs=1, batches=Shuffled(10)))


def test_an_element_that_no_row_has_is_said_to_be_unknown():
    x = torch.rand(20, 3)
    x[:, 1] = torch.nan
    likelihood = NormalLikelihood(MLP(2, [], 3), 3)
    posterior = DiagNormalPosterior(MLP(3, [], 4), 3, 2)
    vae = VAE(StandardNormalPrior(2), likelihood, posterior, missing="nan")
    with pytest.warns(UserWarning, match=r"has an observed value of x at \[1\], so the VAE knows"):
        fit(vae, x, plain(epochs=1, batches=Shuffled(10)))
    named = Rows(x, Identity(), column_names=["mass", "age", "size"])
    with pytest.warns(UserWarning, match="has an observed value of x at 'age', so the VAE knows"):
        fit(vae, named, plain(epochs=1, batches=Shuffled(10)))
    vae.likelihood.requires_grad_(False)  # it has learned from other rows
    fit(vae, x, plain(epochs=1, batches=Shuffled(10)))
    vae.likelihood.requires_grad_(True)
    x[3, 1] = 0.5
    fit(vae, x, plain(epochs=1, batches=Shuffled(10)))


# Short batches


def with_batch_norm():
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    likelihood = BernoulliLikelihood(nn.Linear(2, 4), 4)
    return VAE(StandardNormalPrior(2), likelihood, DiagNormalPosterior(network, 4, 2))


@pytest.mark.parametrize(("num_rows", "size"), [(9, 4), (1, 4), (5, 1)])
def test_a_batch_normalisation_names_drop_last_before_a_step(num_rows, size):
    vae = with_batch_norm()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    rows = torch.eye(4).repeat(3, 1)[:num_rows]
    with pytest.raises(ValueError, match="batch of one: omit a short last batch, by 'drop_last'"):
        fit(vae, rows, Training(epochs=1, batches=Shuffled(size)))
    for name, value in vae.state_dict().items():
        assert torch.equal(value, before[name])


def test_fewer_rows_than_a_batch_make_one_short_batch():
    vae = with_batch_norm()
    result = fit(vae, torch.eye(4).repeat(2, 1), Training(epochs=1))
    assert len(result.history) == 1


def own(base, **members):
    """An object of a user's class; its right methods are replaced by the given ones."""
    valid = {
        "num_batches": lambda self, num_rows: 2,
        "indices": lambda self, num_rows: iter(torch.randperm(num_rows).split(25)),
        "__call__": lambda self, epoch: 1.0,
        "differentiable_loss": lambda self, model, guide, x, **kwargs: (
            -model.__self__.elbo(x).sum()
        ),
    }
    arguments = [25] if base is Batches else []
    return type("Own", (base,), valid | members)(*arguments)


class Uninitialised(RowELBO):
    def __init__(self):
        self.beta = 2.0

    def differentiable_loss(self, model, guide, *args, **kwargs):
        raise AssertionError("work was done")


def by_row(self, model, guide, x, **kwargs):
    return -model.__self__.elbo(x)


LOSS = (
    "'differentiable_loss' of Own must return the loss as a tensor of one number, with its gradient"
)
OF_USERS = {
    "few batches": ({"batches": own(Batches, indices=lambda self, _: iter([torch.arange(5)]))},
                    "'indices' of Own must return 2 batches, the number that 'num_batches' returns"),
    "half a batch": ({"batches": own(Batches, num_batches=lambda self, _: 2.5)}, "least 0, got 2.5."),
    "no rows dealt": ({"batches": own(Batches, num_dealt=lambda self, _: None)},
                      "'num_dealt' of Own must return a whole number of at least 0, got None."),
    "a vector": ({"objective": own(RowELBO, differentiable_loss=by_row)}, f"{LOSS}, got a tensor of t"),
    "a vector of Pyro": ({"objective": own(Trace_ELBO, differentiable_loss=by_row)}, f"{LOSS}, got a"),
    "a float": ({"objective": own(RowELBO, differentiable_loss=lambda *_, **__: 1.0)}, f"{LOSS}, got 1.0"),
    "no loss": ({"objective": own(RowELBO, differentiable_loss=lambda *_, **__: None)}, "got None."),
    "no weight": ({"objective": own(RowELBO, differentiable_loss=lambda self, model, guide, x: None)},
                  "'differentiable_loss' of Own must be a method that takes (model, guide, *args, **kw"),
    "no time": ({"kl_schedule": own(Schedule, __call__=lambda self: 1.0)}, "that takes (epoch), but"),
    "a tensor": ({"kl_schedule": own(Schedule, __call__=lambda *_: torch.ones(5))}, "the shape (5,) from"),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_USERS)
def test_a_wrong_result_of_a_users_class_is_named_and_changes_no_weight(name, x):
    settings, sentence = OF_USERS[name]
    vae = fresh_vae()
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    with pytest.raises(ValueError, match=re.escape(sentence)):
        fit(vae, x, plain(epochs=1, **{"batches": Shuffled(25)} | settings))
    assert same_weights(before, vae.state_dict())


def test_right_classes_of_the_user_train(x):
    parts = {"batches": own(Batches), "kl_schedule": own(Schedule), "objective": own(RowELBO)}
    assert len(fit(fresh_vae(), x, plain(epochs=1, **parts)).history) == 1


def test_settings_refuse_classes_that_lack_what_their_base_sets():
    with pytest.raises(ValueError, match="'__init__' of Uninitialised must call super"):
        plain(objective=Uninitialised())
    with pytest.raises(ValueError, match="'unit' of Own must be 'weight' or 'nats', got 'percent'"):
        plain(kl_schedule=own(Schedule, unit="percent"))


def test_a_check_of_a_likelihood_that_returns_is_refused(x):
    vae = fresh_vae()
    vae.likelihood.check = lambda x: False
    with pytest.raises(ValueError, match="'check' of BernoulliLikelihood must return None, and"):
        fit(vae, x, plain(epochs=1))
