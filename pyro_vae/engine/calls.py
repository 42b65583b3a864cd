"""Calls of modules while a program runs."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook


@contextmanager
def noticing(notice: Callable[[nn.Module], None]) -> Iterator[None]:
    """Call `notice` with each module before its own call inside the block.

    Of a module that `torch.compile` has made, the modules inside are noticed with it.
    """

    def hook(module: nn.Module, inputs: Any) -> None:
        # The code that torch.compile makes must not contain this hook.
        if not torch.compiler.is_compiling():
            for part in module.modules() if is_compiled(module) else (module,):
                notice(part)

    handle = register_module_forward_pre_hook(hook)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using `torch.compile.module.` when there are global")
            yield
    finally:
        handle.remove()


def is_compiled(module: nn.Module) -> bool:
    """Return True for a module that `torch.compile` has made, or that `.compile()` has changed."""
    return "_orig_mod" in module._modules or vars(module).get("_compiled_call_impl") is not None
