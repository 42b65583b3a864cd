"""Training that goes on: nothing of what it starts from changes, and what is asked for now holds from then on."""

import copy
from functools import partial

import pytest
import torch
from models import binary_vae
from pyro.infer import Trace_ELBO
from sweeps import thinned
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from pyro_vae import Execution, LinearWarmup, Shuffled, Training, fit
from pyro_vae.runs import RunFolder

BATCHES = Shuffled(25)
HALVED = partial(StepLR, step_size=1, gamma=0.5)


@pytest.fixture(scope="module")
def x():
    torch.manual_seed(0)
    return binary_vae().sample(50)


def training(
    epochs,
    scheduler=None,
    optimizer=torch.optim.Adam,
    trace=False,
    lr=0.01,
    batches=BATCHES,
    **settings,
):
    own = {
        name: settings.pop(name)
        for name in ("weight_decay", "betas", "momentum")
        if name in settings
    }
    return Training(
        epochs=epochs,
        scheduler=scheduler,
        optimizer=partial(optimizer, lr=lr, **own),
        execution=Execution(trace=trace),
        batches=batches,
        **settings,
    )


def train(x, *arguments, start=0, **keywords):
    fits = {
        name: keywords.pop(name)
        for name in ("resume", "validation", "on_epoch")
        if name in keywords
    }
    torch.manual_seed(start)
    return fit(binary_vae(), x, training(*arguments, **keywords), **fits)


def assert_same(first, second):
    """Two trees of tensors and numbers are equal bit for bit."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


def assert_same_run(first, second):
    assert [row._replace(seconds=0) for row in first.history] == [
        row._replace(seconds=0) for row in second.history
    ]
    for name in ("weights", "best_weights", "optimizer", "scheduler"):
        assert_same(getattr(first, name), getattr(second, name))


def memory(tree):
    """Where the tensors of a tree lie."""
    if isinstance(tree, torch.Tensor):
        return [tree.data_ptr()]
    branches = (
        tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
    )
    return [address for branch in branches for address in memory(branch)]


def reached(result):
    """The learning rate that the next epoch would have."""
    return result.optimizer["param_groups"][0]["lr"]


def rates(result):
    return pytest.approx([row.learning_rate for row in result.history], rel=1e-6)


def changed(result):
    return {
        change.setting: (change.epoch, change.before, change.after) for change in result.changes
    }


# What a run starts from stays


OPTIMIZERS = {
    "Adam": {},
    "fused Adam": {"optimizer": partial(torch.optim.Adam, fused=True)},
    "AdamW with amsgrad": {"optimizer": partial(torch.optim.AdamW, amsgrad=True)},
    "SGD with momentum": {"optimizer": torch.optim.SGD, "momentum": 0.9},
    "Adagrad": {"optimizer": torch.optim.Adagrad},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_fit_that_is_gone_on_from_stays_as_it_is_and_serves_again(x, name):
    first = train(x, 2, HALVED, validation=x, **OPTIMIZERS[name])
    before = copy.deepcopy(first)
    runs = [
        train(x, 4, HALVED, start=start, validation=x, resume=first, **OPTIMIZERS[name])
        for start in (1, 2)
    ]
    assert_same(first, before)
    whole = train(x, 4, HALVED, validation=x, **OPTIMIZERS[name])
    for run in runs:
        assert_same_run(run, whole)
        assert run.changes == ()


def test_no_fit_shares_memory_with_another_or_with_the_vae(x):
    vae, fits = binary_vae(), []
    first = train(x, 1, HALVED, validation=x)
    fits.append(first)
    fits.append(
        fit(vae, x, training(4, HALVED), validation=1 - x, resume=first, on_epoch=fits.append)
    )
    addresses = memory([list(vae.parameters()), *fits])
    assert len(addresses) == len(set(addresses))


def test_a_fit_without_validation_rows_shares_none_either(x):
    fits = []
    fits.append(train(x, 2, on_epoch=fits.append))
    addresses = memory(fits)
    assert len(addresses) == len(set(addresses))


def test_what_a_callback_does_to_a_fit_changes_nothing(x):
    def spoil(reached):
        for address in (
            reached.weights,
            reached.best_weights,
            *reached.optimizer["state"].values(),
        ):
            for tensor in address.values():
                tensor.zero_()
        reached.history.clear()
        for group in reached.optimizer["param_groups"]:
            group["lr"] = 1e9

    assert_same_run(
        train(x, 3, HALVED, validation=x, on_epoch=spoil), train(x, 3, HALVED, validation=x)
    )


def test_a_vae_that_the_fit_does_not_belong_to_stays_as_it_is(x):
    first = train(x, 1)
    wrong = first._replace(
        weights=first.weights | {"likelihood.network.layers.0.weight": torch.zeros(3, 3)}
    )
    vae = binary_vae()
    start = copy.deepcopy(vae.state_dict())
    sentence = (
        r"^'resume' must come from a run of this VAE: 'likelihood\.network\.layers\.0\.weight' has the "
        r"shape \(\d+, \d+\) here, and \(3, 3\) there\.$"
    )
    with pytest.raises(ValueError, match=sentence):
        fit(vae, x, training(2), resume=wrong)
    assert_same(vae.state_dict(), start)


# What is asked for as before goes on as if it had never stopped

SCHEDULERS = {
    "step": HALVED,
    "milestones": partial(MultiStepLR, milestones=[1, 3]),
    "exponential": partial(ExponentialLR, gamma=0.9),
    "cosine": partial(CosineAnnealingLR, T_max=4),
    "function": lambda optimizer: LambdaLR(optimizer, lambda epoch: 0.9**epoch),
    "plateau": partial(ReduceLROnPlateau, patience=0, threshold=10.0),
    "one cycle": partial(OneCycleLR, max_lr=0.1, total_steps=10),
    "cycles": partial(CyclicLR, base_lr=1e-3, max_lr=0.1, step_size_up=2, cycle_momentum=False),
    "one after the other": lambda optimizer: SequentialLR(
        optimizer,
        [LinearLR(optimizer, 0.1, total_iters=2), CosineAnnealingLR(optimizer, 4)],
        milestones=[2],
    ),
}
OWN_RATES = (
    "one cycle",
    "cycles",
)  # these make rates of their own, whatever the optimiser is asked for


@pytest.mark.parametrize("name", thinned(SCHEDULERS, 2))
def test_with_any_scheduler_the_run_goes_on_bit_for_bit(x, name):
    part, whole = (train(x, epochs, SCHEDULERS[name]) for epochs in (2, 4))
    again = train(x, 4, SCHEDULERS[name], start=1, resume=part)
    assert_same_run(again, whole)
    assert again.changes == ()
    old = part._replace(asked=None)  # of format 1, which does not say what was asked
    assert_same_run(train(x, 4, SCHEDULERS[name], start=1, resume=old), whole)


# What is asked for now


@pytest.mark.parametrize("name", thinned(SCHEDULERS, 2))
def test_a_learning_rate_is_the_one_at_the_start_of_the_schedule(x, name):
    part, slower = train(x, 2, SCHEDULERS[name]), train(x, 4, SCHEDULERS[name], lr=2e-3)
    again = train(x, 4, SCHEDULERS[name], lr=2e-3, resume=part)
    # What the schedule would give now, had it started there; a plateau is found on losses, which are others.
    received = [row.learning_rate for row in again.history]
    assert received[:2] == rates(part)
    if name != "plateau":
        assert received[2:] == pytest.approx(
            [row.learning_rate for row in slower.history[2:]], rel=1e-6
        )
    assert changed(again) == {"optimizer.lr": (3, "0.01", "0.002")}
    if name not in OWN_RATES:
        assert received[2] == pytest.approx(0.2 * reached(part))


def test_without_a_scheduler_the_learning_rate_is_the_one_asked_for_now(x):
    part = train(x, 2)
    again = train(x, 4, lr=1e-3, resume=part)
    assert [row.learning_rate for row in again.history] == [0.01, 0.01, 1e-3, 1e-3]
    assert [str(change) for change in again.changes] == [
        "From epoch 3 on 'optimizer.lr' is 0.001, was 0.01."
    ]
    assert_same_run(train(x, 4, lr=1e-3, resume=train(x, 3, lr=1e-3, resume=part)), again)


def test_the_moments_of_the_optimiser_are_kept(x):
    # One step of SGD with momentum: what moves is lr · (momentum · buffer + gradient), and the rest is as it was.
    part = train(x, 1, optimizer=torch.optim.SGD, momentum=0.9)
    moves = []
    for lr in (0.01, 0.02):
        again = train(
            x, 2, optimizer=torch.optim.SGD, momentum=0.9, lr=lr, resume=part, batches=BATCHES
        )
        moves.append(again.optimizer["state"][0]["momentum_buffer"])
    assert not torch.equal(moves[0], moves[1])
    still = train(x, 2, optimizer=torch.optim.SGD, momentum=0.9, lr=0.0, resume=part)
    assert_same(still.weights, part.weights)


SETTINGS = {
    "optimizer.weight_decay": ({"weight_decay": 0.5}, "0", "0.5"),
    "optimizer.betas": ({"betas": (0.5, 0.9)}, "[0.9, 0.999]", "[0.5, 0.9]"),
    "clip_norm": ({"clip_norm": 1e-3}, "None", "0.001"),
    "kl_schedule": (
        {"kl_schedule": LinearWarmup(50)},
        "ConstantKL(weight=1.0)",
        "LinearWarmup(epochs=50, start=0.01)",
    ),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("scheduler", [None, HALVED], ids=["constant", "halved"])
def test_any_other_setting_that_is_asked_for_holds_from_the_next_epoch_on(x, setting, scheduler):
    asked, before, after = SETTINGS[setting]
    part, plain = (train(x, epochs, scheduler) for epochs in (2, 4))
    again = train(x, 4, scheduler, resume=part, **asked)
    assert [row.learning_rate for row in again.history] == [
        row.learning_rate for row in plain.history
    ]
    assert not torch.equal(
        again.weights["likelihood.network.layers.0.weight"],
        plain.weights["likelihood.network.layers.0.weight"],
    )
    assert changed(again) == {setting: (3, before, after)}
    assert again.optimizer["param_groups"][0].get("weight_decay") == asked.get("weight_decay", 0)


def test_patience_runs_on_over_the_epochs_so_far(x):
    part = train(x, 3, validation=1 - x, patience=5)
    again = train(x, 9, validation=1 - x, patience=1, resume=part)
    assert again.outcome == "stopped early"
    assert changed(again) == {"patience": (len(part.history) + 1, "5", "1")}


NEW_SCHEDULERS = {
    "none before": (None, HALVED, [0.01, 0.01, 0.01, 0.005]),
    "another constant": (
        HALVED,
        partial(StepLR, step_size=1, gamma=0.1),
        [0.01, 0.005, 0.01, 0.001],
    ),
    "another class": (HALVED, partial(ExponentialLR, gamma=0.25), [0.01, 0.005, 0.01, 0.0025]),
    "none now": (HALVED, None, [0.01, 0.005, 0.01, 0.01]),
    "another in a row": (
        lambda optimizer: SequentialLR(
            optimizer, [StepLR(optimizer, 1, 0.5), StepLR(optimizer, 9)], [3]
        ),
        lambda optimizer: SequentialLR(
            optimizer, [StepLR(optimizer, 1, 0.1), StepLR(optimizer, 9)], [3]
        ),
        [0.01, 0.005, 0.01, 0.001],
    ),
}


@pytest.mark.parametrize("name", NEW_SCHEDULERS)
def test_a_scheduler_that_is_new_or_another_starts_at_the_next_epoch(x, name):
    before, now, expected = NEW_SCHEDULERS[name]
    again = train(x, 4, now, resume=train(x, 2, before))
    assert expected == rates(again)
    assert set(changed(again)) == {"scheduler"}
    assert_same_run(train(x, 4, now, resume=train(x, 3, now, resume=train(x, 2, before))), again)


@pytest.mark.parametrize("name", ["another constant", "another class", "none now", "none before"])
def test_a_run_of_format_1_takes_another_scheduler_too(x, name):
    before, now, expected = NEW_SCHEDULERS[name]
    assert expected == rates(train(x, 4, now, resume=train(x, 2, before)._replace(asked=None)))


def test_a_run_of_format_1_takes_another_learning_rate_too(x):
    old = train(x, 2, HALVED)._replace(asked=None)
    again = train(x, 4, HALVED, lr=4e-3, resume=old)
    assert rates(again) == [0.01, 0.005, 0.001, 0.0005]
    assert changed(again) == {"optimizer.lr": (3, "0.01", "0.004")}


def test_a_scheduler_that_began_on_the_way_counts_its_own_epochs_only(x):
    on_the_way = train(x, 4, HALVED, resume=train(x, 2))
    again = train(x, 6, HALVED, lr=1e-3, resume=on_the_way)
    assert rates(again) == [0.01, 0.01, 0.01, 0.005, 0.00025, 0.000125]
    assert [change.epoch for change in again.changes] == [3, 5]


def test_an_interrupted_change_is_not_made_twice(x):
    def interrupt(reached):
        raise KeyboardInterrupt

    changed_only = train(x, 4, HALVED, lr=2e-3, resume=train(x, 2, HALVED), on_epoch=interrupt)
    assert (changed_only.outcome, len(changed_only.history)) == ("interrupted", 2)
    again = train(x, 4, HALVED, lr=2e-3, resume=changed_only)
    assert rates(again) == [0.01, 0.005, 0.0005, 0.00025]
    assert len(again.changes) == 1


FIXED = {
    "optimizer": {"optimizer": torch.optim.SGD},
    "objective": {"objective": Trace_ELBO(max_plate_nesting=1)},
    "batches": {"batches": Shuffled(20)},
    "seed": {"seed": 3},
}


@pytest.mark.parametrize("setting", FIXED)
def test_what_a_run_is_cannot_change(x, setting):
    part = train(x, 1)
    with pytest.raises(
        ValueError,
        match=rf"^'{setting}' must be .* as in the run that is resumed, got [^\n]* new run",
    ):
        train(
            x,
            2,
            resume=part,
            on_epoch=lambda reached: pytest.fail("work was done"),
            **FIXED[setting],
        )


def test_an_objective_that_has_guessed_its_plates_is_the_same(x):
    objective = Trace_ELBO(vectorize_particles=True, num_particles=2)
    torch.manual_seed(0)
    result = fit(binary_vae(), x, training(1, objective=objective))
    assert fit(binary_vae(), x, training(2, objective=objective), resume=result).changes == ()


def test_a_run_folder_keeps_what_was_asked_and_what_was_changed(x, tmp_path):
    folder = RunFolder(tmp_path)
    folder.begin("vae: {}", tuple(x.shape[1:]))
    part = train(x, 2, HALVED)
    folder.save(part)
    assert not (tmp_path / "changes.csv").exists()
    again = train(x, 3, HALVED, lr=2e-3, weight_decay=0.1, resume=folder.fit())
    folder.save(again)
    assert_same(folder.fit(), again)
    assert folder.fit().changes == again.changes
    assert (tmp_path / "changes.csv").read_text().splitlines() == [
        "epoch,setting,before,after",
        "3,optimizer.lr,0.01,0.002",
        "3,optimizer.weight_decay,0,0.1",
    ]
    assert_same_run(
        train(x, 4, HALVED, lr=2e-3, weight_decay=0.1, resume=folder.fit()),
        train(x, 4, HALVED, lr=2e-3, weight_decay=0.1, resume=again),
    )


def test_a_state_of_format_1_is_read_and_gone_on_from(x, tmp_path):
    folder = RunFolder(tmp_path)
    folder.begin("vae: {}", tuple(x.shape[1:]))
    part = train(x, 2, HALVED)
    folder.save(part)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    torch.save(
        {name: value for name, value in state.items() if name not in ("asked", "changes")},
        tmp_path / "state.pt",
    )
    assert_same_run(train(x, 3, HALVED, resume=folder.fit()), train(x, 3, HALVED))
