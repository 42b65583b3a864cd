"""Determinism: densities that stay the same in each call and in evaluation mode."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from pyro_vae.engine.calls import noticing
from pyro_vae.inference.programs import Programs
from pyro_vae.inference.sites import log_prob
from pyro_vae.support.modules import evaluating
from pyro_vae.support.store import store_as_found
from pyro_vae.support.validation import validating

# The largest difference that counts as rounding, relative and in nats.
_TOLERANCE = 1e-4


@torch.no_grad()
def check_deterministic(programs: Programs) -> None:
    """Refuse programs whose density changes with the next call or in evaluation mode.

    Dropout and batch statistics change the density from call to call, so no posterior has it.
    This check restores the random state and the running statistics.

    Raises:
        ValueError: if the density changes.
    """
    if get_proxy_mode() is not None:
        return  # a function that is traced has run once before, untraced
    with (
        random_state_kept(),
        store_as_found(),
        validating(False),
        _watching() as in_training,
    ):
        guide_trace, model_trace = programs.unchecked_traces()
        _check_replays("guide", programs.bound_guide, guide_trace, in_training)
        _check_replays("model", programs.bound_model, model_trace, in_training)


def _check_replays(
    name: str,
    program: Callable[[], Any],
    trace: poutine.Trace,
    in_training: Collection[nn.Module],
) -> None:
    """Refuse a program that differs from its trace in the next call or in evaluation mode."""
    replay = poutine.trace(poutine.replay(program, trace=trace))
    if not _agree(trace, replay.get_trace()):
        _refuse(name)
    if in_training:
        with _evaluating(in_training):
            evaluated = replay.get_trace()
        if not _agree(trace, evaluated):
            _refuse(name)


def _refuse(name: str) -> None:
    raise ValueError(
        f"'{name}' must give the same density whenever it is asked, and in evaluation mode, but "
        "does not: is it in training mode with dropout or batch normalisation? Then call .eval() "
        "first."
    )


def _agree(trace: poutine.Trace, other: poutine.Trace) -> bool:
    first, second = _log_probs(trace), _log_probs(other)
    return first.keys() == second.keys() and all(
        first[name].shape == second[name].shape
        and torch.allclose(
            first[name], second[name], rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True
        )
        for name in first
    )


def _log_probs(trace: poutine.Trace) -> dict[str, Tensor]:
    """Log-densities by site, 0 for a site without one: a guide that only draws needs none."""
    log_probs = {}
    nodes: Any = poutine.util.prune_subsample_sites(trace).nodes
    for name, site in nodes.items():
        if site["type"] == "sample":
            try:
                log_probs[name] = log_prob(site)
            except NotImplementedError:
                log_probs[name] = torch.zeros(())
    return log_probs


@contextmanager
def _watching() -> Iterator[dict[nn.Module, list[tuple[Tensor, Tensor]]]]:
    """Collect the modules that are called in training mode, and then restore their buffers."""
    seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def notice(module: nn.Module) -> None:
        if module.training and module not in seen:
            seen[module] = [
                (buffer, buffer.clone())
                for buffer in module._buffers.values()
                if buffer is not None
            ]

    try:
        with noticing(notice):
            yield seen
    finally:
        for buffers in seen.values():
            for buffer, value in buffers:
                buffer.copy_(value)


@contextmanager
def _evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    with ExitStack() as stack:
        for module in list(modules):
            stack.enter_context(evaluating(module))
        yield


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore torch's default generators at the end of the block."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        yield
