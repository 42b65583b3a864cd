"""Surrogates: the value of an objective, and the tensor that a step differentiates instead."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from pyro.infer import ELBO, Trace_ELBO
from torch import Tensor

from pyro_vae.engine.tracing import DetachedReads
from pyro_vae.support.checks import described
from pyro_vae.support.methods_of_users import wrong_result


class WrappedELBO(ELBO, ABC):
    """An objective that changes another one: the arguments of model and guide, or the gradient.

    `SVI` runs it as it runs the objective inside: traced, plain, or by `loss_and_grads` alone.
    A subclass defines the methods of a Pyro objective, including `_guess_max_plate_nesting`,
    and `loss_and_surrogate`.

    Arguments:
        objective: the objective inside, a Pyro ELBO.
        calls: functions that the wrapper calls; a trace depends on their settings.
    """

    def __init__(self, objective: ELBO, calls: Iterable[Callable] = ()) -> None:
        super().__init__()
        self.objective: Any = objective  # Pyro's base class declares none of the methods of an ELBO
        self.calls = tuple(calls)

    @abstractmethod
    def loss_and_surrogate(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and the surrogate; the function `loss_and_surrogate` calls this."""

    def _get_trace(self, model: Callable, guide: Callable, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError  # the objective inside makes the traces


def loss_and_surrogate(
    objective: Any, model: Callable, guide: Callable, *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """Return the loss, and a tensor whose gradient a step takes, without reading values.

    No value leaves its tensor for Python.

    The two differ where a site has no `rsample`, and where a wrapper changes the gradient.

    Arguments:
        objective: a Pyro ELBO with `differentiable_loss`.
        model: the Pyro model.
        guide: the Pyro guide.
        *args: passed to both.
        **kwargs: passed to both.
    """
    if isinstance(objective, WrappedELBO):
        return objective.loss_and_surrogate(model, guide, *args, **kwargs)
    loss: Any = 0.0
    surrogate: Any = 0.0
    if type(objective).differentiable_loss is not Trace_ELBO.differentiable_loss:
        loss = objective.differentiable_loss(model, guide, *args, **kwargs)
        loss = checked_loss(objective, loss)
        return loss, loss
    for traces in objective._get_traces(model, guide, args, kwargs):
        with DetachedReads():
            particle, surrogate_particle = objective._differentiable_loss_particle(*traces)
        loss = loss + particle / objective.num_particles
        surrogate = surrogate + surrogate_particle / objective.num_particles
    return torch.as_tensor(loss, dtype=surrogate.dtype, device=surrogate.device), surrogate


def checked_loss(objective: ELBO, loss: Any) -> Tensor:
    """Return the result of an objective's `differentiable_loss`.

    Raises:
        ValueError: if it is not a tensor of one number.
    """
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return loss
    accepted = "the loss as a tensor of one number, with its gradient"
    is_vector = isinstance(loss, Tensor)
    received = f"a tensor of the shape {tuple(loss.shape)}" if is_vector else described(loss)
    raise wrong_result(objective, "differentiable_loss", accepted, received)


def innermost(objective: ELBO) -> ELBO:
    """Return the objective inside all wrappers."""
    while isinstance(objective, WrappedELBO):
        objective = objective.objective
    return objective


def called_by(objective: ELBO) -> list[Any]:
    """Return an objective, the functions that its wrappers call, and the objectives inside."""
    if isinstance(objective, WrappedELBO):
        return [objective, *objective.calls, *called_by(objective.objective)]
    return [objective]
