"""Stochastic variational inference with Pyro's interface and traced or compiled steps."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

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
from pyro.poutine.messenger import Messenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.optim import Optimizer

from pyro_vae.engine.execution import Execution, check_execution
from pyro_vae.engine.program import Program
from pyro_vae.inference.arguments import FAILURES, check_program, raise_plainly
from pyro_vae.inference.parameter_groups import GrowingGroups, check_optimizer
from pyro_vae.inference.programs import Programs
from pyro_vae.inference.sites import is_auxiliary
from pyro_vae.inference.soundness import Supports, Watch, harmless, signs_of
from pyro_vae.inference.surrogates import (
    called_by,
    checked_loss,
    innermost,
    loss_and_surrogate,
)
from pyro_vae.support.checks import described, whole
from pyro_vae.support.store import make_picklable, store_as_found

_JIT = (JitTrace_ELBO, JitTraceMeanField_ELBO, JitTraceEnum_ELBO, JitTraceGraph_ELBO)
# These run as plain Pyro: enumeration depends on values, and baselines live in the param store.
_NEVER_TRACED = (TraceEnum_ELBO, TraceTMC_ELBO, TraceGraph_ELBO)
# These return an infinite number in each step in place of a loss.
_WITHOUT_VALUE = (TraceTailAdaptive_ELBO,)


class SVI:
    """`pyro.infer.SVI` with one torch optimiser for all parameters, for any Pyro model and guide.

    One optimiser allows a fused step, and clipping over all gradients together. The param store is
    left as found, except for entries of the user's own `pyro.param` statements.

    The loss and its gradients are traced once for each signature of the arguments. The signature is
    the shapes, dtypes, plain values, modes of modules, and the settings that the program reads from
    `Containers`. Replays save the time that Pyro itself takes, and give the same values and random
    draws. `how` tells if steps are replayed.

    A program whose control flow depends on values runs as plain Pyro, and one warning says why. So
    do `TraceEnum_ELBO`, `TraceTMC_ELBO`, `TraceGraph_ELBO` and objectives without
    `differentiable_loss`, without a warning. Pass numbers that change from step to step, such as a
    KL weight, as tensors: each plain value has a trace of its own.

    Pyro's validation acts only when the program itself runs: in the first steps, and when its trace
    is checked against it, at least every 1,000 replays. All other steps watch the loss, the
    gradients, and the supports that validation has checked before.

    It can be pickled and copied if its parts can, and goes on as before. Pyro's param store is no
    part of it.

    Arguments:
        model: the Pyro model.
        guide: the Pyro guide.
        optim: a torch optimiser, which trains the parameters that it holds. Or a function from
            parameters to a torch optimiser: it is called after the first run has created the
            parameters, and again for those that appear, thaw or enter the param store later.
        loss: a Pyro ELBO, or a `WrappedELBO` around one.
        execution: plain, traced or compiled, and the precision of matrix products in the trace.
        num_steps: the number of steps, if known. If compiling pays, it is then done at once.

    Raises:
        ValueError: if `optim` is of another kind, or holds nothing that the loss depends on. If
            settings do not fit together. If a step is taken without gradients enabled.

    Example:
        >>> optim = torch.optim.Adam(vae.parameters(), lr=1e-3)
        >>> svi = SVI(vae.model, vae.guide, optim, Trace_ELBO())
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
        check_program(model, "model")
        check_program(guide, "guide")
        _check_optim(optim)
        self._innermost: Any = innermost(loss)
        _check_loss(self._innermost)
        check_execution(execution)
        self.model = model
        self.guide = guide
        self.loss: Any = loss  # Pyro's base class declares none of the methods of an ELBO
        self._optim = optim if isinstance(optim, Optimizer) else None
        self._groups = None if isinstance(optim, Optimizer) else GrowingGroups(optim)
        self._names: dict[str, None] = {}
        self._supports = Supports()
        self._watch = Watch(self._supports)
        self._execution = execution
        self._num_steps = None if num_steps is None else whole(num_steps, "num_steps", least=0)
        self._program = self._new_program()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the trace and the compiled code, which a copy makes anew."""
        make_picklable(self._trainable())  # type: ignore[arg-type]
        return {name: value for name, value in vars(self).items() if name != "_program"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._program = self._new_program()

    def _new_program(self) -> Program:
        return Program(
            self._loss_and_gradients,
            traceable=self._traceable_loss_and_gradients,
            parameters=self._trainable,
            others=self._stored,
            calls=[self.model, self.guide, *called_by(self.loss)],
            name="SVI",
            execution=self._execution,
            num_calls=self._num_steps,
        )

    @property
    def optim(self) -> Optimizer:
        """The torch optimiser."""
        if self._optim is None:
            raise ValueError(
                "'optim' is a function that makes an optimiser in the first step, which has not "
                "been taken."
            )
        return self._optim

    @property
    def how(self) -> str:
        """The mode of the steps: "plain", "traced" or "compiled".

        If it is not the requested mode, the reason follows.
        """
        if self._is_never_traced():
            return f"plain, as {type(self._innermost).__name__} always is"
        return self._program.how

    def step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Take one gradient step; the arguments go to model and guide.

        Returns:
            The loss (the negative ELBO, summed over rows) in nats, detached. As in Pyro, it is
            infinite for `TraceTailAdaptive_ELBO`, and two numbers for `ReweightedWakeSleep`.

        Raises:
            TypeError: if model or guide cannot use an argument, by its type, dtype or device.
            ValueError: if the shapes of arguments do not fit, or nothing can be trained.
            UnsoundStepError: if the loss or a gradient is not finite, or an observed value is
                outside its support. The gradients of that step are not used. On an accelerator it
                is raised up to 50 steps later.
        """
        # A parameter that has been frozen must not move on, and new gradients find free memory.
        if self._optim is not None:
            self._optim.zero_grad()
        loss, gradients = self._differentiate(*args, **kwargs)
        for parameter, gradient in zip(self._trainable(), gradients, strict=True):
            parameter.grad = gradient
        self.optim.step()
        return loss

    def backward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss as `step` does, and add its gradients to `.grad`, without a step."""
        for parameter in self._trainable():
            if parameter.is_cuda and parameter.grad is not None:
                # The next replay of a CUDA graph writes over the gradient.
                parameter.grad = parameter.grad.clone()
        loss, gradients = self._differentiate(*args, **kwargs)
        for parameter, gradient in zip(self._trainable(), gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return loss

    @torch.no_grad()
    def evaluate_loss(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss in nats, without a step."""
        self.check()
        try:
            with store_as_found():
                return torch.as_tensor(self.loss.loss(self.model, self.guide, *args, **kwargs))
        except FAILURES as error:
            raise_plainly(error, Programs(self.model, self.guide, args, kwargs))

    def check(self) -> None:
        """Wait for all steps so far.

        Raises:
            UnsoundStepError: if one of them was not sound, and no error has said so yet.
        """
        self._watch.read()

    def _guess_max_plate_nesting(self, *args: Any, **kwargs: Any) -> None:
        """Let Pyro guess the plate nesting before the first step, in every mode.

        The guess runs model and guide once, and so takes random draws.
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
        """Return the loss, and its gradients by the parameters of the optimiser.

        The step is sound as far as its signs have been read.
        """
        if not torch.is_grad_enabled():
            mode = "inference_mode" if torch.is_inference_mode_enabled() else "no_grad"
            raise ValueError(
                f"'step' must be called with gradients enabled, got a call under torch.{mode}()."
            )
        try:
            self._guess_max_plate_nesting(*args, **kwargs)
            run: Callable[..., Any] = self._program
            if self._is_never_traced() or self._optim is None:
                run = self._loss_and_gradients
            loss, signs, *gradients = run(*args, **kwargs)
        except FAILURES as error:
            raise_plainly(error, Programs(self.model, self.guide, args, kwargs))
        if loss.is_cuda:  # the next replay of a CUDA graph writes over them
            loss = loss.clone()
            signs = signs.clone()
        self._watch.note(signs)
        return loss, gradients

    def _loss_and_gradients(self, *args: Any, **kwargs: Any) -> tuple[Tensor | None, ...]:
        """Return the detached loss, the signs of the step, and the gradients, computed by Pyro."""
        if not self._is_differentiable():
            return self._loss_and_gradients_by_pyro(*args, **kwargs)
        with self._followed():
            loss = self.loss.differentiable_loss(self.model, self.guide, *args, **kwargs)
            loss = checked_loss(self._innermost, loss)
        return self._with_signs(loss, self._gradients(loss))

    def _traceable_loss_and_gradients(self, *args: Any, **kwargs: Any) -> tuple[Tensor | None, ...]:
        """Return the same as `_loss_and_gradients`, without reading values into Python."""
        with store_as_found(), self._supports:
            loss, surrogate = loss_and_surrogate(self.loss, self.model, self.guide, *args, **kwargs)
        return self._with_signs(loss, self._gradients(surrogate))

    def _loss_and_gradients_by_pyro(self, *args: Any, **kwargs: Any) -> tuple[Tensor | None, ...]:
        """Return the same for objectives that only differentiate on their own.

        `TraceGraph_ELBO` is one of them.
        """
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
        # On an accelerator, steps continue before the signs are read.
        if loss.device.type != "cpu":
            gradients = harmless(gradients, signs)
        return loss, signs, *gradients

    def _gradients(self, loss: Tensor) -> tuple[Tensor | None, ...]:
        gradients: tuple[Tensor | None, ...] = ()
        trainable = self._trainable()
        if loss.requires_grad and trainable:
            gradients = torch.autograd.grad(loss, trainable, allow_unused=True)
        if all(gradient is None for gradient in gradients):
            self._refuse_untrainable()
        if any(gradient is not None and gradient.is_sparse for gradient in gradients):
            raise ValueError(
                "'model' and 'guide' must have dense gradients, got sparse ones: leave out "
                "sparse=True of an Embedding."
            )
        return _apart(gradients)

    def _refuse_untrainable(self) -> NoReturn:
        required = "'optim' must hold trainable parameters that the loss depends on, got none"
        if self._optim is None:
            raise ValueError(f"{required}: model and guide have no trainable parameters.")
        trainable = len(self._trainable())
        if trainable:
            raise ValueError(f"{required} among the {trainable} that it holds.")
        raise ValueError(f"{required}: all parameters that it holds are frozen.")

    def _stored(self) -> list[Tensor]:
        """Return the tensors of the user's own `pyro.param` statements, which may be replaced."""
        stored = pyro.get_param_store()._params
        return [stored[name] for name in self._names if name in stored]

    @contextmanager
    def _followed(self) -> Iterator[None]:
        """Follow a run of Pyro's own objective, and give the optimiser its parameters.

        This is for an optimiser that a function makes.
        """
        observations = _Observations()
        with (
            store_as_found(),
            self._supports,
            observations,
            poutine.trace(param_only=True) as capture,
        ):
            yield
        observations.refuse_swapped()
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
        is_elbo = isinstance(loss, type) and issubclass(loss, ELBO)
        hint = f": pass {loss.__name__}()" if is_elbo else ""
        raise ValueError(f"'loss' must be a pyro.infer.ELBO, got {described(loss)}{hint}.")
    whole(loss.num_particles, "num_particles")
    nesting = loss.max_plate_nesting
    if nesting != math.inf:
        # Pyro adds the plate of the particles.
        added = int(bool(loss.vectorize_particles) and loss.num_particles > 1)
        whole(nesting - added if isinstance(nesting, int) else nesting, "max_plate_nesting", 0)


def _check_optim(optim: Any) -> None:
    made_by = optim.func if isinstance(optim, partial) else optim
    if isinstance(optim, Optimizer):
        check_optimizer(optim)
        return
    if isinstance(optim, pyro.optim.PyroOptim) or _is_of_pyro(made_by):
        name = getattr(made_by, "__name__", type(made_by).__name__)
        raise ValueError(
            "'optim' must be a torch optimiser, such as torch.optim.Adam(vae.parameters()), or a "
            f"function from parameters to one, got {name} of pyro.optim."
        )
    is_other_class = isinstance(made_by, type) and not issubclass(made_by, Optimizer)
    hint = ": are 'optim' and 'loss' swapped?" if isinstance(optim, ELBO) else "."
    if not callable(optim) or is_other_class or isinstance(optim, nn.Module | ELBO):
        raise ValueError(
            "'optim' must be a torch optimiser or a function from parameters to one, got "
            f"{described(made_by)}{hint}"
        )


def _is_of_pyro(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).startswith("pyro.optim")


class _Observations(Messenger):
    """Effect handler that notes the observed sites of the guide and of the model.

    Pyro runs the model with a replay of the guide.
    """

    def __init__(self) -> None:
        super().__init__()
        self._of_guide: dict[str, None] = {}
        self._of_model: dict[str, None] = {}

    def refuse_swapped(self) -> None:
        """Refuse a guide with observed sites for a model without any.

        Raises:
            ValueError: if they are such.
        """
        if self._of_guide and not self._of_model:
            names = ", ".join(map(repr, self._of_guide))
            raise ValueError(
                f"'guide' must have no observed sites, got {names}: are model and guide swapped?"
            )

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["is_observed"] and not (site_is_subsample(msg) or is_auxiliary(msg)):
            is_replayed = any(isinstance(handler, ReplayMessenger) for handler in _PYRO_STACK)
            (self._of_model if is_replayed else self._of_guide)[msg["name"]] = None


@contextmanager
def _grads_put_back(trainable: Callable[[], list[Tensor]]) -> Iterator[None]:
    """Let Pyro write gradients to an empty `.grad`, and restore the earlier ones afterwards."""
    held = {parameter: parameter.grad for parameter in trainable()}
    for parameter in held:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter in trainable():
            parameter.grad = held.get(parameter)


def _apart(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Return the gradients, each in its own memory.

    Clipping in place would clip shared memory twice.
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
