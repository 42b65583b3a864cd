"""Resuming a training run, and the changes between its settings then and now."""

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

# Settings that a resumed run may not change. Another optimiser cannot read the moments, another
# objective has other losses, and other batches or seeds have other draws and steps.
_FIXED = ("optimizer", "objective", "batches", "seed")
# Not a setting: Pyro stores its guess in this attribute.
_GUESSED = "max_plate_nesting"
# Entries of every scheduler's state that are not its arguments.
_COMMON = ("class", "base_lrs", "last_epoch")


def asked_for(training: Training, optimizer: Optimizer) -> dict[str, Any]:
    """Return the settings of a run in plain numbers and names, for `Fit.asked`.

    Arguments:
        training: how to train.
        optimizer: the optimiser of `training`, before a scheduler has changed its settings.
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
    """Return the settings that differ from those of a run; they hold from its next epoch on.

    Arguments:
        fit: the state of the run.
        asked: the settings now, from `asked_for`.
        scheduler: the scheduler now.

    Raises:
        ValueError: if a resumed run may not change such a setting.
    """
    before = _shown(fit, asked, scheduler) if fit.asked is None else fit.asked
    differing = [name for name in asked if name in before and before[name] != asked[name]]
    for name in differing:
        if name in _FIXED:
            raise ValueError(
                f"'{name}' must be {_text(before[name])} as in the run that is resumed, "
                f"got {_text(asked[name])}: to change it, begin a new run from the weights."
            )
    epoch = len(fit.history) + 1
    return [Change(epoch, name, _text(before[name]), _text(asked[name])) for name in differing]


def go_on(
    optimizer: Optimizer, scheduler: LRScheduler | None, fit: Fit, changed: list[Change]
) -> None:
    """Bring a new optimiser and scheduler to the state of a run, which is not changed itself.

    If their settings are the same, both get their states back. Otherwise the optimiser keeps its
    new settings. An unchanged scheduler is stepped through the past epochs: the learning rate is
    the one that the run would have with the new settings from its start. A new or changed scheduler
    starts at the next epoch.
    """
    state = copy.deepcopy(fit.optimizer)  # torch keeps the tensors that it is given
    names = [change.setting for change in changed]
    if not any(name == "scheduler" or name.startswith("optimizer.") for name in names):
        optimizer.load_state_dict(state)
        if scheduler is not None:
            scheduler.load_state_dict(copy.deepcopy(fit.scheduler or {}))
        return
    all_changes = [*fit.changes, *changed]
    starts = [change.epoch for change in all_changes if change.setting == "scheduler"]
    begun = max(starts, default=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns that the optimiser took no steps
        for row in fit.history[begun - 1 :]:
            step_scheduler(scheduler, row)
    settings = [dict(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, now in zip(optimizer.param_groups, settings, strict=True):
        parameters = group["params"]
        group.clear()
        group.update(now | {"params": parameters})


def step_scheduler(scheduler: LRScheduler | None, row: Epoch) -> None:
    """Step a scheduler at the end of an epoch.

    A scheduler that watches a loss gets the validation loss, or without one the training loss.
    """
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(row.train_loss if row.validation_loss is None else row.validation_loss)
    elif scheduler is not None:
        scheduler.step()


def _settings(groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the settings of an optimiser; several groups of parameters have lists of values."""
    names = [name for name in groups[0] if name not in ("params", "initial_lr")]
    values = {name: [_plain(group.get(name)) for group in groups] for name in names}
    return {
        f"optimizer.{name}": each if len(each) > 1 else each[0] for name, each in values.items()
    }


def _scheduler(training: Training, optimizer: Optimizer) -> dict[str, Any] | None:
    """Return the scheduler's class and its state at the start.

    It is that for a learning rate of 1, so that another learning rate is no other scheduler. The
    optimiser is not changed.
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
    """Return the settings at the start of an older run, as far as its state shows them."""
    groups = fit.optimizer["param_groups"]
    shown = _settings([group | {"lr": group.get("initial_lr", group["lr"])} for group in groups])
    if not shown.keys() >= {name for name in asked if name.startswith("optimizer.")}:
        shown["optimizer"] = "of another class"
    if scheduler is None or fit.scheduler is None:
        return shown | {"scheduler": None if fit.scheduler is None else "another"}
    if set(fit.scheduler) != set(scheduler.state_dict()):
        return shown | {"scheduler": "another"}
    parameters = inspect.signature(type(scheduler)).parameters.keys()
    constants = parameters & fit.scheduler.keys() - {"last_epoch"}
    kept = {name: _plain(fit.scheduler[name]) for name in constants}
    return shown | {"scheduler": asked["scheduler"] | kept}


def _part(part: Any) -> dict[str, Any]:
    """Return the class of a part, and those arguments that it keeps as attributes."""
    names = inspect.signature(type(part)).parameters.keys() - {_GUESSED}
    attributes = getattr(part, "__dict__", {})
    kept = {name: _plain(value) for name, value in attributes.items() if name in names}
    return {"class": _class_name(part)} | kept


def _class_name(value: object) -> str:
    """Return the import path of a value's class; the public one for a class of this package."""
    module = type(value).__module__
    place = "pyro_vae" if module.startswith("pyro_vae.") else module
    return f"{place}.{type(value).__qualname__}"


def _plain(value: Any) -> Any:
    """Return a value as plain numbers, strings, lists and dicts, equal for equal values.

    Anything else becomes its name, or the name of its class.
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
    """Return a plain value as a sentence shows it."""
    if not isinstance(value, dict) or "class" not in value:
        return str(value)
    arguments = [
        f"{name}={each}" for name, each in value.items() if name[0] != "_" and name not in _COMMON
    ]
    return f"{value['class'].rpartition('.')[2]}({', '.join(arguments)})"
