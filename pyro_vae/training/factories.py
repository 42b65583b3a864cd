"""Optimiser and scheduler of a run, made by the functions of its settings and checked."""

import copy
import math
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer, SparseAdam
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pyro_vae.support.checks import described, one_line, with_article

# Errors of a function of the user, or of torch for its arguments.
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
# Epochs of a rehearsal, which takes some milliseconds for as many.
_MAX_REHEARSED = 1_000
# A course is not one of epochs if it has as many steps for each epoch as there are batches, with
# these bounds on that number.
_MEANT_FOR_STEPS = 10, 100
# Attributes with the number of steps in a scheduler's whole course.
_COURSES = {"OneCycleLR": "total_steps", "CyclicLR": "total_size"}


def made_optimizer(
    make: Callable[[Iterable[nn.Parameter]], Optimizer], parameters: list[nn.Parameter]
) -> Optimizer:
    """Return the optimiser that a function makes from parameters.

    Raises:
        ValueError: if the function fails, or returns no optimiser that can train them.
    """
    made: Any = _made("optimizer", "optimiser", make, parameters)
    if not isinstance(made, Optimizer):
        raise ValueError(f"'optimizer' must return a torch optimiser, got {described(made)}.")
    if isinstance(made, LBFGS | SparseAdam):
        raise ValueError(
            "'optimizer' must take one dense gradient a step, as Adam does, got "
            f"{type(made).__name__}."
        )
    held = {id(parameter) for group in made.param_groups for parameter in group["params"]}
    if not held & set(map(id, parameters)):
        raise ValueError("'optimizer' must hold the parameters that it is given, got others.")
    _check_rates(made, "'optimizer'")
    return made


def made_scheduler(
    make: Callable[[Optimizer], LRScheduler] | None, optimizer: Optimizer
) -> LRScheduler | None:
    """Return the scheduler that a function makes for an optimiser; None without a function.

    Raises:
        ValueError: if the function fails, or returns no scheduler of this optimiser.
    """
    if make is None:
        return None
    made: Any = _made("scheduler", "scheduler", make, optimizer)
    if not isinstance(made, LRScheduler):
        raise ValueError(f"'scheduler' must return a torch scheduler, got {described(made)}.")
    if getattr(made, "optimizer", optimizer) is not optimizer:
        raise ValueError("'scheduler' must schedule the optimiser that it is given, got another.")
    return made


def rehearse(
    make: Callable[[Optimizer], LRScheduler] | None, optimizer: Optimizer, num_epochs: int
) -> None:
    """Step a scheduler of torch through the epochs of a run, and restore the optimiser's settings.

    Raises:
        ValueError: if it fails in one of them, or gives a learning rate that is no rate.
    """
    settings = [dict(group) for group in optimizer.param_groups]
    for group in optimizer.param_groups:  # a rate that is a tensor is changed in place
        group |= {name: copy.copy(value) for name, value in group.items() if name != "params"}
        group |= {name: value.clone() for name, value in group.items() if isinstance(value, Tensor)}
    try:
        scheduler = made_scheduler(make, optimizer)
        if scheduler is not None and type(scheduler).__module__.startswith("torch."):
            _step_through(scheduler, optimizer, min(num_epochs, _MAX_REHEARSED))
    finally:
        for group, before in zip(optimizer.param_groups, settings, strict=True):
            group.clear()
            group.update(before)


def cut_short(scheduler: LRScheduler | None, num_epochs: int, num_batches: int) -> list[str]:
    """Return a sentence on a scheduler that seems to be meant for each step, not for each epoch.

    Its course is then about as long as all steps of the run. A course that is a little longer than
    the epochs may be that of a run that is resumed later.
    """
    name = type(scheduler).__name__
    num_steps = getattr(scheduler, _COURSES.get(name, ""), 0)
    fewest, most = _MEANT_FOR_STEPS
    if num_steps < num_epochs * max(fewest, min(num_batches, most)):
        return []
    return [
        f"'scheduler' is stepped once an epoch, so this run takes {num_epochs} of the "
        f"{num_steps:g} steps in the course of {name}: count its steps in epochs."
    ]


def _made(name: str, what: str, make: Callable[[Any], Any], given: Any) -> Any:
    try:
        return make(given)
    except _FAILURES as error:
        raise ValueError(
            f"'{name}' must make {with_article(what)}, but {_call(make)} fails: {one_line(error)}"
        ) from error


def _step_through(scheduler: LRScheduler, optimizer: Optimizer, num_epochs: int) -> None:
    name = type(scheduler).__name__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns that the optimiser took no steps
        for epoch in range(1, num_epochs + 1):
            _check_rates(optimizer, f"'scheduler' ({name} in epoch {epoch})")
            try:
                _step(scheduler)
            except _FAILURES as error:
                raise ValueError(
                    f"'scheduler' must take a step after each epoch, but {name} fails after epoch "
                    f"{epoch} of {num_epochs}: {one_line(error)}"
                ) from error


def _step(scheduler: LRScheduler) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(0.0)
    else:
        scheduler.step()


def _check_rates(optimizer: Optimizer, name: str) -> None:
    for group in optimizer.param_groups:
        rate = float(group.get("lr", 0.0))
        if not 0 <= rate < math.inf:
            raise ValueError(f"{name} must have a finite learning rate of 0 or more, got {rate:g}.")


def _call(make: Callable[..., Any]) -> str:
    """Return a function with its bound arguments, as they are written in Python."""
    if not isinstance(make, partial):
        return getattr(make, "__name__", type(make).__name__)
    arguments = [f"{name}={value!r}" for name, value in make.keywords.items()]
    return f"{_call(make.func)}({', '.join([*map(repr, make.args), *arguments])})"
