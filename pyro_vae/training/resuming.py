"""Going on with a training run: what was asked at its start, what is asked now, and what that
changes.
"""

import copy
import inspect
import warnings
from numbers import Integral, Real
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pyro_vae.training.history import Epoch, Fit
from pyro_vae.training.settings import Change, Training

# Part of what a run is: the moments of its optimiser, what its losses are of, and the draws and
# steps of an epoch.
_FIXED = ("optimizer", "objective", "batches", "seed")
# Pyro writes its guess there.
_GUESSED = "max_plate_nesting"
# What every scheduler holds; no argument of its own.
_COMMON = ("class", "base_lrs", "last_epoch")


def asked_for(training: Training, optimizer: Optimizer) -> dict[str, Any]:
    """Return what a run is asked for, in plain numbers and names: `Fit.asked`.

    Arguments:
        training: how to train.
        optimizer: the optimiser that it makes, before a scheduler has changed its settings.
    """
    return {
        "optimizer": _class_name(optimizer),
        **_settings(optimizer.param_groups),
        "scheduler": _scheduler(training, optimizer),
        "objective": _part(training.objective),
        "kl_schedule": _part(training.kl_schedule),
        "batches": _part(training.batches),
        "clip_norm": _plain(training.clip_norm),
        "patience": _plain(training.patience),
        "precision": training.execution.precision,
        "seed": training.seed,
    }


def changes(fit: Fit, asked: dict[str, Any], scheduler: LRScheduler | None) -> list[Change]:
    """Return what is asked for now and was not at the start of a run, for the next epoch on.

    Raises:
        ValueError: what cannot change on the way.
    """
    before = _shown(fit, asked, scheduler) if fit.asked is None else fit.asked
    differing = [name for name in asked if name in before and before[name] != asked[name]]
    for name in differing:
        if name in _FIXED:
            raise ValueError(
                f"'{name}' must be {_text(before[name])} as in the run that is resumed, got {_text(asked[name])}: "
                "to change it, begin a new run from the weights."
            )
    epoch = len(fit.history) + 1
    return [Change(epoch, name, _text(before[name]), _text(asked[name])) for name in differing]


def go_on(
    optimizer: Optimizer, scheduler: LRScheduler | None, fit: Fit, changed: list[Change]
) -> None:
    """Bring a fresh optimiser and scheduler to where a run has got to; the Fit stays as it is.

    Where nothing has changed that concerns them, both get their states back. Else the optimiser
    keeps the settings that are asked for now, and the scheduler goes through the epochs of the run
    again: the learning rate is what it would be now, had it started as asked now. A scheduler that
    is new or has changed starts at the next epoch.
    """
    state = copy.deepcopy(fit.optimizer)  # torch keeps the tensors that it is given
    if not any(
        change.setting == "scheduler" or change.setting.startswith("optimizer.")
        for change in changed
    ):
        optimizer.load_state_dict(state)
        if scheduler is not None:
            scheduler.load_state_dict(copy.deepcopy(fit.scheduler or {}))
        return
    begun = max(
        [change.epoch for change in [*fit.changes, *changed] if change.setting == "scheduler"],
        default=1,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch misses the steps of the optimiser
        for row in fit.history[begun - 1 :]:
            step_scheduler(scheduler, row)
    settings = [
        {name: group[name] for name in group if name != "params"}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(state)
    for group, now in zip(optimizer.param_groups, settings, strict=True):
        parameters = group["params"]
        group.clear()
        group.update(now, params=parameters)


def step_scheduler(scheduler: LRScheduler | None, row: Epoch) -> None:
    """Step a scheduler at the end of an epoch; one that watches a loss gets that of validation
    rows, where there are any.
    """
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(row.train_loss if row.validation_loss is None else row.validation_loss)
    elif scheduler is not None:
        scheduler.step()


def _settings(groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The settings of an optimiser by name; in a list where it has several groups of parameters."""
    names = [name for name in groups[0] if name not in ("params", "initial_lr")]
    values = {name: [_plain(group.get(name)) for group in groups] for name in names}
    return {
        f"optimizer.{name}": each if len(each) > 1 else each[0] for name, each in values.items()
    }


def _scheduler(training: Training, optimizer: Optimizer) -> dict[str, Any] | None:
    """A scheduler by its class and its state at the start, for a learning rate of 1; the optimiser
    stays as it is.
    """
    if training.scheduler is None:
        return None
    asked = [dict(group) for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 1.0
    scheduler = training.scheduler(optimizer)
    for group, settings in zip(optimizer.param_groups, asked, strict=True):
        group.clear()
        group.update(settings)
    return {"class": _class_name(scheduler)} | _plain(scheduler.state_dict())


def _shown(fit: Fit, asked: dict[str, Any], scheduler: LRScheduler | None) -> dict[str, Any]:
    """Settings asked for at the start, as far as the state of an older run shows them."""
    groups = fit.optimizer["param_groups"]
    shown = _settings([group | {"lr": group.get("initial_lr", group["lr"])} for group in groups])
    if not shown.keys() >= {name for name in asked if name.startswith("optimizer.")}:
        shown["optimizer"] = "of another class"
    if scheduler is None or fit.scheduler is None:
        return shown | {"scheduler": None if fit.scheduler is None else "another"}
    if set(fit.scheduler) != set(scheduler.state_dict()):
        return shown | {"scheduler": "another"}
    constants = inspect.signature(type(scheduler)).parameters.keys() & fit.scheduler.keys() - {
        "last_epoch"
    }
    return shown | {
        "scheduler": asked["scheduler"] | {name: _plain(fit.scheduler[name]) for name in constants}
    }


def _part(part: Any) -> dict[str, Any]:
    """A part by its class and by those of its arguments that it keeps under their names."""
    names = inspect.signature(type(part)).parameters.keys() - {_GUESSED}
    kept = {
        name: _plain(value)
        for name, value in getattr(part, "__dict__", {}).items()
        if name in names
    }
    return {"class": _class_name(part)} | kept


def _class_name(value: object) -> str:
    """The import path of a value's class; of this package's classes the public one."""
    module = type(value).__module__
    place = "pyro_vae" if module.startswith("pyro_vae.") else module
    return f"{place}.{type(value).__qualname__}"


def _plain(value: Any) -> Any:
    """Plain numbers, strings, lists and dicts, equal for equal values; a name in place of anything
    else.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return getattr(value, "__qualname__", _class_name(value))


def _text(value: Any) -> str:
    """A plain value as a sentence shows it."""
    if not isinstance(value, dict) or "class" not in value:
        return str(value)
    arguments = [
        f"{name}={each}" for name, each in value.items() if name[0] != "_" and name not in _COMMON
    ]
    return f"{value['class'].rpartition('.')[2]}({', '.join(arguments)})"
