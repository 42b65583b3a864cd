"""Stochastic variational inference with Pyro's face and one torch optimiser."""

from collections.abc import Callable, Iterable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO, JitTrace_ELBO, JitTraceEnum_ELBO, JitTraceGraph_ELBO, JitTraceMeanField_ELBO
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor, nn
from torch.optim import Optimizer

from pyro_vae.store import store_as_found


class SVI:
    """`pyro.infer.SVI` with a torch optimiser over all parameters at once, for any Pyro model and guide.

    One optimiser means a fused step and clipping over all gradients together. The param store is left as found, but for
    what the user's own `pyro.param` statements put there.

    Arguments:
        model: the Pyro model.
        guide: the Pyro guide.
        optim: a torch optimiser; or a function from parameters to one, called after the first run has created them.
        loss: a Pyro ELBO.
        rows: how many rows the arguments of a call hold; when given, a step differentiates the mean loss over them.

    Raises:
        ValueError: `optim` is of another kind, or holds nothing that the loss depends on.

    Example:
        >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), lr=1e-3), Trace_ELBO())
        >>> svi.step(vae.sample(5)).shape
        torch.Size([])
    """

    def __init__(
        self,
        model: Callable,
        guide: Callable,
        optim: Optimizer | Callable[[Iterable[nn.Parameter]], Optimizer],
        loss: ELBO,
        *,
        rows: Callable[..., int] | None = None,
    ) -> None:
        if isinstance(optim, pyro.optim.PyroOptim):
            raise ValueError(
                f"'optim' must be a torch optimiser, such as torch.optim.Adam(vae.parameters()), or a function from "
                f"parameters to one, got {type(optim).__name__} of pyro.optim."
            )
        if not isinstance(optim, Optimizer) and not callable(optim):
            raise ValueError(f"'optim' must be a torch optimiser or a function from parameters to one, got {optim!r}.")
        if isinstance(optim, torch.optim.LBFGS):
            raise ValueError("'optim' must take one gradient a step, got LBFGS, which evaluates the loss many times.")
        if isinstance(loss, (JitTrace_ELBO, JitTraceMeanField_ELBO, JitTraceEnum_ELBO, JitTraceGraph_ELBO)):
            raise ValueError(f"'loss' must run as plain Pyro, got {type(loss).__name__}: use it without Jit.")
        if not isinstance(loss, ELBO):
            raise ValueError(f"'loss' must be a pyro.infer.ELBO, got {loss!r}.")
        self.model, self.guide, self.rows = model, guide, rows
        self.loss: Any = loss  # Pyro's base class declares none of the methods of an ELBO
        self._optim = optim

    @property
    def optim(self) -> Optimizer:
        """The torch optimiser."""
        if not isinstance(self._optim, Optimizer):
            raise ValueError(
                "'optim' is a function that makes an optimiser in the first step, which has not been taken."
            )
        return self._optim

    def step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One gradient step; the arguments go to model and guide.

        Returns:
            The loss (the negative ELBO, summed over rows) in nats, detached.
        """
        loss = self.backward(*args, **kwargs)
        self.optim.step()
        return loss

    def backward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss as `step` returns it, with its gradients left in `.grad`, and no step taken."""
        rows = self.rows(*args, **kwargs) if self.rows else 1
        if not hasattr(self.loss, "differentiable_loss"):
            return self._backward_by_pyro(rows, *args, **kwargs)
        with store_as_found(), poutine.trace(param_only=True) as capture:
            loss = self.loss.differentiable_loss(self.model, self.guide, *args, **kwargs)
        self._make_optim(capture)
        parameters = self._trainable()
        gradients = torch.autograd.grad(loss / rows, parameters, allow_unused=True) if loss.requires_grad else ()
        if all(gradient is None for gradient in gradients):
            raise ValueError("'optim' must hold trainable parameters that the loss depends on, got none.")
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        return loss.detach()

    @torch.no_grad()
    def evaluate_loss(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss without a step, in nats."""
        with store_as_found():
            return torch.as_tensor(self.loss.loss(self.model, self.guide, *args, **kwargs))

    def _backward_by_pyro(self, rows: int, *args: Any, **kwargs: Any) -> Tensor:
        """For objectives that differentiate on their own, such as TraceGraph_ELBO: their gradients, divided by rows."""
        if isinstance(self._optim, Optimizer):
            self._optim.zero_grad()
        with store_as_found(), poutine.trace(param_only=True) as capture:
            loss = self.loss.loss_and_grads(self.model, self.guide, *args, **kwargs)
        self._make_optim(capture)
        for parameter in self._trainable():
            if parameter.grad is not None:
                parameter.grad /= rows
        return torch.as_tensor(loss)

    def _make_optim(self, capture: TraceMessenger) -> None:
        if not isinstance(self._optim, Optimizer):
            values: list[Any] = [site["value"] for site in capture.trace.nodes.values()]
            parameters = dict.fromkeys(value.unconstrained() for value in values)
            self._optim = self._optim(list(parameters))

    def _trainable(self) -> list[Tensor]:
        return [p for group in self.optim.param_groups for p in group["params"] if p.requires_grad]
