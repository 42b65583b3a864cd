"""Stochastic variational inference with Pyro's face, one torch optimiser, and a traced or compiled
step.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import (
    ELBO,
    JitTrace_ELBO,
    JitTraceEnum_ELBO,
    JitTraceGraph_ELBO,
    JitTraceMeanField_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceTailAdaptive_ELBO,
    TraceTMC_ELBO,
)
from torch import Tensor, nn
from torch.optim import Optimizer

from pyro_vae.engine.execution import Execution
from pyro_vae.engine.program import Program
from pyro_vae.inference.parameter_groups import GrowingGroups, check_optimizer
from pyro_vae.inference.soundness import Supports, Watch, harmless, signs_of
from pyro_vae.inference.surrogates import called_by, innermost, loss_and_surrogate
from pyro_vae.support.store import store_as_found

_JIT = (JitTrace_ELBO, JitTraceMeanField_ELBO, JitTraceEnum_ELBO, JitTraceGraph_ELBO)
# Enumeration reads values to plan itself, and baselines live in the param store: these run as plain
# Pyro.
_NEVER_TRACED = (TraceEnum_ELBO, TraceTMC_ELBO, TraceGraph_ELBO)
# What these return in place of a loss is infinite in each step.
_WITHOUT_VALUE = (TraceTailAdaptive_ELBO,)


class SVI:
    """`pyro.infer.SVI` with a torch optimiser over all parameters at once, for any Pyro model and
    guide.

    One optimiser means a fused step and clipping over all gradients together. The param store is
    left as found, but for what the user's own `pyro.param` statements put there.

    The loss and its gradients are traced once for each signature of the arguments (shapes, dtypes,
    plain values, modes of modules, and the settings that the program reads from `Containers`) and
    replayed without Pyro's share of the time, with the same values and random draws; `how` tells
    whether. A program whose course depends on values runs as plain Pyro, and one warning says why;
    so do `TraceEnum_ELBO`, `TraceTMC_ELBO`, `TraceGraph_ELBO` and objectives without
    `differentiable_loss`. Numbers that change from step to step, such as a KL weight, should be
    passed as tensors: every other value has a trace of its own.

    Pyro's validation acts only where the program itself runs: in the first steps, and when the
    trace is compared with it again, at least every 1,000 replays. In all other steps the loss, the
    gradients, and the supports that it has checked before are watched.

    Arguments:
        model: the Pyro model.
        guide: the Pyro guide.
        optim: a torch optimiser, which trains what it holds; or a function from parameters to one,
            called after the first run has created them, and again for parameters that appear, thaw
            or are put into the param store later.
        loss: a Pyro ELBO, or a `WrappedELBO` around one.
        execution: plain, traced or compiled, and the precision of matrix products in the trace.
        num_steps: how many steps there will be, if that is known: compiling that pays is then done
            at once.

    Raises:
        ValueError: `optim` is of another kind, or holds nothing that the loss depends on; settings
            that do not fit; a step without gradients enabled.

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
        execution: Execution = Execution(),
        num_steps: int | None = None,
    ) -> None:
        _check_optim(optim)
        self._innermost: Any = innermost(loss)
        _check_loss(self._innermost)
        self.model = model
        self.guide = guide
        self.loss: Any = loss  # Pyro's base class declares none of the methods of an ELBO
        self._optim = optim if isinstance(optim, Optimizer) else None
        self._groups = None if isinstance(optim, Optimizer) else GrowingGroups(optim)
        self._names: dict[str, None] = {}
        self._supports = Supports()
        self._watch = Watch(self._supports)
        self._program = Program(
            self._loss_and_gradients,
            traceable=self._traceable_loss_and_gradients,
            parameters=self._trainable,
            others=self._stored,
            calls=[model, guide, *called_by(loss)],
            name="SVI",
            execution=execution,
            num_calls=num_steps,
        )

    @property
    def optim(self) -> Optimizer:
        """The torch optimiser."""
        if self._optim is None:
            raise ValueError(
                "'optim' is a function that makes an optimiser in the first step, which has not been taken."
            )
        return self._optim

    @property
    def how(self) -> str:
        """How steps are run: "plain", "traced" or "compiled", with the reason where it is not as
        asked.
        """
        if self._is_never_traced():
            return f"plain, as {type(self._innermost).__name__} always is"
        return self._program.how

    def step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One gradient step; the arguments go to model and guide.

        Returns:
            The loss (the negative ELBO, summed over rows) in nats, detached.

        Raises:
            UnsoundStepError: if the loss or a gradient is not finite, or an observed value is
                outside its support. The gradients of that step are not used; on an accelerator it
                is raised up to 50 steps later.
        """
        if self._optim is not None:
            self._optim.zero_grad()  # a parameter that was frozen must not move on, and memory is free for new gradients
        loss, gradients = self._differentiate(*args, **kwargs)
        for parameter, gradient in zip(self._trainable(), gradients, strict=True):
            parameter.grad = gradient
        self.optim.step()
        return loss

    def backward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss as `step` returns it, with its gradients added to `.grad` as torch does it, and
        no step taken.
        """
        for parameter in self._trainable():
            if parameter.is_cuda and parameter.grad is not None:
                parameter.grad = (
                    parameter.grad.clone()
                )  # the next replay of a CUDA graph writes over it
        loss, gradients = self._differentiate(*args, **kwargs)
        for parameter, gradient in zip(self._trainable(), gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return loss

    @torch.no_grad()
    def evaluate_loss(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss without a step, in nats."""
        self.check()
        with store_as_found():
            return torch.as_tensor(self.loss.loss(self.model, self.guide, *args, **kwargs))

    def check(self) -> None:
        """Wait for all steps so far.

        Raises:
            UnsoundStepError: if one of them was not sound, and this has not been said yet.
        """
        self._watch.read()

    def _guess_max_plate_nesting(self, *args: Any, **kwargs: Any) -> None:
        """Pyro's guess runs model and guide once, and draws: it comes before the first step,
        however that is run.
        """
        objective = self._innermost
        if objective.vectorize_particles and objective.max_plate_nesting == math.inf:
            with store_as_found():
                self.loss._guess_max_plate_nesting(self.model, self.guide, args, kwargs)

    def _is_never_traced(self) -> bool:
        return isinstance(self._innermost, _NEVER_TRACED) or not self._is_differentiable()

    def _is_differentiable(self) -> bool:
        return hasattr(self._innermost, "differentiable_loss")

    def _differentiate(self, *args: Any, **kwargs: Any) -> tuple[Tensor, list[Tensor | None]]:
        """The loss, and its gradients by what the optimiser holds, of a step that is sound as far
        as it was read.
        """
        if not torch.is_grad_enabled():
            raise ValueError(
                "'step' must be called with gradients enabled, got a call under torch.no_grad()."
            )
        self._guess_max_plate_nesting(*args, **kwargs)
        run: Callable[..., Any] = self._program
        if self._is_never_traced() or self._optim is None:
            run = self._loss_and_gradients
        loss, signs, *gradients = run(*args, **kwargs)
        if loss.is_cuda:  # the next replay of a CUDA graph writes over them
            loss = loss.clone()
            signs = signs.clone()
        self._watch.note(signs)
        return loss, gradients

    def _loss_and_gradients(self, *args: Any, **kwargs: Any) -> tuple[Tensor | None, ...]:
        """The loss, detached, the signs of the step, and the gradients, as Pyro itself computes
        them.
        """
        if not self._is_differentiable():
            return self._loss_and_gradients_by_pyro(*args, **kwargs)
        with self._followed():
            loss = self.loss.differentiable_loss(self.model, self.guide, *args, **kwargs)
        return self._with_signs(loss, self._gradients(loss))

    def _traceable_loss_and_gradients(self, *args: Any, **kwargs: Any) -> tuple[Tensor | None, ...]:
        """The same, where Pyro's objective reads no values into Python."""
        with store_as_found(), self._supports:
            loss, surrogate = loss_and_surrogate(self.loss, self.model, self.guide, *args, **kwargs)
        return self._with_signs(loss, self._gradients(surrogate))

    def _loss_and_gradients_by_pyro(self, *args: Any, **kwargs: Any) -> tuple[Tensor | None, ...]:
        """For objectives that differentiate on their own, such as TraceGraph_ELBO."""
        with _grads_put_back(self._trainable):
            with self._followed():
                loss = self.loss.loss_and_grads(self.model, self.guide, *args, **kwargs)
            gradients = tuple(parameter.grad for parameter in self._trainable())
        return self._with_signs(torch.as_tensor(loss), gradients)

    def _with_signs(
        self, loss: Tensor, gradients: tuple[Tensor | None, ...]
    ) -> tuple[Tensor | None, ...]:
        loss = loss.detach()
        value = loss.new_zeros(()) if isinstance(self._innermost, _WITHOUT_VALUE) else loss
        signs = signs_of(value, gradients, self._supports.outside(value))
        # On an accelerator steps go on before the signs are read.
        return (
            loss,
            signs,
            *(gradients if loss.device.type == "cpu" else harmless(gradients, signs)),
        )

    def _gradients(self, loss: Tensor) -> tuple[Tensor | None, ...]:
        gradients: tuple[Tensor | None, ...] = ()
        trainable = self._trainable()
        if loss.requires_grad and trainable:
            gradients = torch.autograd.grad(loss, trainable, allow_unused=True)
        if all(gradient is None for gradient in gradients):
            raise ValueError(
                "'optim' must hold trainable parameters that the loss depends on, got none."
            )
        return _apart(gradients)

    def _stored(self) -> list[Tensor]:
        """The tensors behind the user's own pyro.param statements: the user may put others in their
        place.
        """
        stored = pyro.get_param_store()._params
        return [stored[name] for name in self._names if name in stored]

    @contextmanager
    def _followed(self) -> Iterator[None]:
        """Run Pyro's own objective: the parameters that it meets go to an optimiser that a function
        made.
        """
        with store_as_found(), self._supports, poutine.trace(param_only=True) as capture:
            yield
        sites: dict[str, Any] = capture.trace.nodes
        named = {name: site["value"].unconstrained() for name, site in sites.items()}
        self._names |= dict.fromkeys(named)
        if self._groups is not None:
            self._optim = self._groups.follow(named)

    def _trainable(self) -> list[Tensor]:
        if self._optim is None:
            return []
        return [p for group in self._optim.param_groups for p in group["params"] if p.requires_grad]


def _check_loss(loss: Any) -> None:
    if isinstance(loss, _JIT):
        raise ValueError(
            f"'loss' must run as plain Pyro, got {type(loss).__name__}: use it without Jit."
        )
    if not isinstance(loss, ELBO):
        raise ValueError(f"'loss' must be a pyro.infer.ELBO, got {loss!r}.")


def _check_optim(optim: Any) -> None:
    if isinstance(optim, pyro.optim.PyroOptim):
        raise ValueError(
            f"'optim' must be a torch optimiser, such as torch.optim.Adam(vae.parameters()), or a function from "
            f"parameters to one, got {type(optim).__name__} of pyro.optim."
        )
    if isinstance(optim, Optimizer):
        check_optimizer(optim)
    elif not callable(optim):
        raise ValueError(
            f"'optim' must be a torch optimiser or a function from parameters to one, got {optim!r}."
        )


@contextmanager
def _grads_put_back(trainable: Callable[[], list[Tensor]]) -> Iterator[None]:
    """Let Pyro leave gradients in an empty `.grad`, and put back what was there."""
    held = {parameter: parameter.grad for parameter in trainable()}
    for parameter in held:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter in trainable():
            parameter.grad = held.get(parameter)


def _apart(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """The gradients, each in memory of its own: what clips them in place would clip shared memory
    twice.
    """
    seen: set[int] = set()
    apart = []
    for gradient in gradients:
        if gradient is not None:
            memory = gradient.untyped_storage().data_ptr()
            if memory in seen or (0 in gradient.stride() and gradient.numel() > 1):
                gradient = gradient.clone(memory_format=torch.contiguous_format)
            seen.add(memory)
        apart.append(gradient)
    return tuple(apart)
