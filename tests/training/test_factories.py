import re
import warnings
from functools import partial

import pyro
import pytest
import torch
from models import binary_vae
from pyro.infer import Trace_ELBO
from torch import nn
from torch.optim import SGD, Adam, lr_scheduler

from pyro_vae import ConstantKL, Execution, Shuffled, Training, fit
from pyro_vae.objectives import Schedule
from pyro_vae.training.factories import cut_short, made_optimizer, made_scheduler, rehearse

X = torch.ones(20, 1, 4, 4).tril(1).index_fill(0, torch.arange(5), 0.0)

PLAIN = Execution(trace=False)  # so few steps are not worth a trace


def refuse(reached):
    raise AssertionError("work was done")


class Falling(Schedule):
    def __init__(self, number, unit="weight"):
        self.number = number
        self.unit = unit

    def __call__(self, epoch):
        return self.number


class Late(Falling):
    def __call__(self, epoch):
        return 1.0 if epoch < 1 else self.number


REFUSED = [
    ({"batches": 64}, "'batches' of Training must be a Batches, such as Shuffled or"),
    ({"kl_schedule": 0.5}, "'kl_schedule' of Training must be a Schedule, such as ConstantKL or"),
    ({"kl_schedule": ConstantKL}, "got the class ConstantKL, which must be called."),
    ({"kl_schedule": Falling(0.0)}, "'kl_schedule' must give finite numbers greater than 0, got 0.0"),
    ({"kl_schedule": Falling(torch.nan)}, "greater than 0, got nan from a Falling."),
    ({"kl_schedule": Falling("1")}, "greater than 0, got '1' from a Falling."),
    ({"epochs": "10"}, "'epochs' of Training must be a whole number, got '10'."),
    ({"epochs": 2.5}, "'epochs' of Training must be a whole number, got 2.5."),
    ({"epochs": True}, "'epochs' of Training must be a whole number, got True."),
    ({"seed": None}, "'seed' of Training must be a whole number, got None."),
    ({"clip_norm": "1"}, "'clip_norm' of Training must be a number or None, got '1'."),
    ({"patience": 0.5}, "'patience' of Training must be a whole number or None, got 0.5."),
    ({"execution": "compiled"}, "'execution' of Training must be an Execution, got 'compiled'."),
    ({"objective": Trace_ELBO}, "must be an ELBO, such as RenyiELBO or Trace_ELBO, got the class"),
    ({"objective": Trace_ELBO(num_particles=-1)}, "'num_particles' must be a whole number of at"),
    ({"objective": None}, "'objective' of Training must be an ELBO, such as"),
    ({"optimizer": "Adam"}, "must be a function of 1 argument that returns an Optimizer, got 'Adam'."),
    ({"optimizer": nn.Linear}, "got the class Linear (missing a required argument: 'out_features')."),
    ({"optimizer": pyro.optim.Adam({"lr": 0.1})}, "'optimizer' must make a torch optimiser, such as "
     "partial(torch.optim.Adam, lr=1e-3), got a PyroOptim of pyro.optim."),
    ({"optimizer": pyro.optim.Adam}, "'optimizer' must make an optimiser, but Adam fails: optim_args"),
    ({"optimizer": lambda _: {}["lr"]}, "'optimizer' must make an optimiser, but <lambda> fails: 'lr'"),
    ({"optimizer": list}, "'optimizer' must return a torch optimiser, got a list of 8."),
    ({"optimizer": lambda parameters: None}, "'optimizer' must return a torch optimiser, got None."),
    ({"optimizer": torch.optim.LBFGS}, "must take one dense gradient a step, as Adam does, got LBFGS"),
    ({"optimizer": torch.optim.SparseAdam}, "as Adam does, got SparseAdam."),
    ({"optimizer": lambda _: Adam(nn.Linear(2, 2).parameters())}, "'optimizer' must hold the parameters"),
    ({"optimizer": partial(Adam, lr=float("nan"))}, "Adam(lr=nan) fails: Invalid learning rate: nan"),
    ({"optimizer": partial(Adam, lr=float("inf"))}, "must have a finite learning rate of 0 or more"),
    ({"optimizer": partial(Adam, lr="1e-3")}, "'optimizer' must make an optimiser, but Adam(lr='1e-3')"),
    ({"optimizer": partial(Adam, weight_decay=-1)}, "Adam(weight_decay=-1) fails: Invalid weight_decay"),
    ({"optimizer": partial(Adam, betas=0.9)}, "'optimizer' must make an optimiser, but Adam(betas=0.9)"),
    ({"scheduler": "StepLR"}, "of 1 argument that returns an LRScheduler or None, got 'StepLR'."),
    ({"scheduler": lr_scheduler.StepLR}, "got the class StepLR (missing a required argument: 'step_"),
    ({"scheduler": lr_scheduler.StepLR(Adam([torch.zeros(1)]), 1)}, "or None, got a StepLR."),
    ({"scheduler": lambda _: None}, "'scheduler' must return a torch scheduler, got None."),
    ({"scheduler": lambda _: lr_scheduler.StepLR(Adam([torch.zeros(1)]), 1)}, "got another."),
    ({"scheduler": partial(lr_scheduler.StepLR, step_size=0)}, "'scheduler' must take a step after "
     "each epoch, but StepLR fails after epoch 1 of 10: integer modulo by zero"),
    ({"scheduler": partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=4)}, "fails after epoch 5"),
    ({"scheduler": partial(lr_scheduler.OneCycleLR, max_lr=0.1)}, "'scheduler' must make a scheduler, "
     "but OneCycleLR(max_lr=0.1) fails: You must define either total_steps"),
    ({"scheduler": partial(lr_scheduler.LambdaLR, lr_lambda=lambda _: torch.nan)}, "got nan."),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "sentence"), REFUSED)
def test_unusable_settings_are_refused_before_any_work(settings, sentence):
    vae = binary_vae()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        fit(vae, X, Training(**{"batches": Shuffled(10)} | settings), on_epoch=refuse)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert not pyro.get_param_store().keys()


CALLS = {
    "'training' must be a Training or None, got a tensor of the shape": lambda v: fit(v, X, X),
    "'training' must be a Training or None, got 10.": lambda v: fit(v, X, 10),
    "'training' .* got the class Training, which must be called": lambda v: fit(v, X, Training),
    "'vae' must be a VAE, got a tensor of the shape": lambda v: fit(X, v),
    "'vae' must be a VAE, got 'vae'.": lambda v: fit("vae", X),
    "'vae' must be a VAE, got the class .*, which must be called": lambda v: fit(type(v), X),
    "'resume' must be a Fit or None, got 'runs/digits'.": lambda v: fit(v, X, resume="runs/digits"),
    "'resume' must be a Fit or None, got an OrderedDict": lambda v: fit(
        v, X, resume=v.state_dict()
    ),
    "'on_epoch' must be a function of 1 argument or None, got .<built-in": lambda v: fit(
        v, X, on_epoch=[print]
    ),
    r"'on_step' .* got the function <lambda> \(missing a required argument: 'b'": lambda v: fit(
        v, X, on_step=lambda a, b: None
    ),
    "'progress' must be True or False, got 'bar'.": lambda v: fit(v, X, progress="bar"),
}


@pytest.mark.parametrize("sentence", CALLS)
def test_wrong_arguments_of_fit_are_refused_before_any_work(sentence):
    vae = binary_vae()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    with pytest.raises(ValueError, match=f"^{sentence}") as caught:
        CALLS[sentence](vae)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


def late_schedule():
    return {"kl_schedule": Late(float("inf"))}


def failing_callback():
    def on_step(step):
        if step == 3:
            raise RuntimeError("no space left")

    return {"on_step": on_step}


@pytest.mark.parametrize("make", [late_schedule, failing_callback])
def test_after_any_error_the_vae_has_the_weights_of_the_last_whole_epoch(make):
    vae = binary_vae()
    kept = []
    options = make()
    settings = {"kl_schedule": options.pop("kl_schedule")} if "kl_schedule" in options else {}
    training = Training(epochs=2, batches=Shuffled(10), execution=PLAIN, **settings)
    with pytest.raises((ValueError, RuntimeError), match="got inf from a Late|no space left"):
        fit(vae, X, training, on_epoch=lambda reached: kept.append(reached.weights), **options)
    assert len(kept) == 2
    assert all(torch.equal(value, kept[1][name]) for name, value in vae.state_dict().items())
    assert not torch.equal(next(iter(kept[0].values())), next(iter(kept[1].values())))


def one_optimizer(**settings):
    return SGD([nn.Parameter(torch.zeros(1))], **{"lr": 0.1} | settings)


SCHEDULERS = [
    partial(lr_scheduler.StepLR, step_size=3),
    partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=10),
    partial(lr_scheduler.CyclicLR, base_lr=0.1, max_lr=1.0, step_size_up=5),
    partial(lr_scheduler.ReduceLROnPlateau, patience=1),
    partial(lr_scheduler.CosineAnnealingLR, T_max=3),
    lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)],
        [3],
    ),
    None,
]


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)], ids=["number", "tensor"])
@pytest.mark.parametrize("make", SCHEDULERS)
def test_a_rehearsal_changes_nothing_and_warns_of_nothing(make, lr):
    optimizer = one_optimizer(momentum=0.5, lr=lr)
    before = dict(optimizer.param_groups[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rehearse(make, optimizer, num_epochs=10)
    assert optimizer.param_groups[0] == before
    assert optimizer.param_groups[0]["lr"] is lr
    assert float(lr) == pytest.approx(0.1)


def test_a_scheduler_of_the_user_is_not_rehearsed():
    class Mine(lr_scheduler.LRScheduler):
        steps = 0

        def get_lr(self):
            Mine.steps += 1
            return [0.1]

    rehearse(Mine, one_optimizer(), num_epochs=10)
    assert Mine.steps == 1  # torch's own, when it is made


def test_a_course_of_steps_is_named_and_a_longer_course_of_epochs_is_not():
    long = lr_scheduler.OneCycleLR(one_optimizer(momentum=0.5), 1.0, total_steps=500)
    assert cut_short(long, num_epochs=10, num_batches=50) == [
        "'scheduler' is stepped once an epoch, so this run takes 10 of the 500 steps in the course "
        "of OneCycleLR: count its steps in epochs."
    ]
    assert cut_short(long, num_epochs=100, num_batches=50) == []
    assert cut_short(long, num_epochs=250, num_batches=2) == []  # the first half of a longer run
    assert cut_short(lr_scheduler.StepLR(one_optimizer(), 500), 10, 50) == []
    assert cut_short(None, 10, 50) == []


def test_fit_warns_of_a_scheduler_that_is_meant_for_each_step():
    scheduler = partial(lr_scheduler.OneCycleLR, max_lr=0.01, total_steps=20)
    training = Training(epochs=1, batches=Shuffled(10), scheduler=scheduler, execution=PLAIN)
    with pytest.warns(UserWarning, match="takes 1 of the 20 steps in the course of OneCycleLR"):
        fit(binary_vae(), X, training)


def test_what_is_made_is_what_the_function_returns():
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    optimizer = made_optimizer(lambda both: Adam(both[1:], lr=0.5), parameters)
    assert optimizer.param_groups[0]["params"] == parameters[1:]
    assert made_scheduler(None, optimizer) is None
    scheduler = made_scheduler(partial(lr_scheduler.ExponentialLR, gamma=0.5), optimizer)
    assert scheduler.optimizer is optimizer
