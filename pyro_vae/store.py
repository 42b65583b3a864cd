"""Pyro's param store, where Pyro's own SVI looks for what to train: shown to it, and left as found."""

import uuid
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyro
from torch import nn

# Every name that this package puts into the store begins with this.
_PREFIX = "pyro_vae."


def unique_name(owner: object) -> str:
    """A prefix that no other object has or will have; what stands under it leaves the store when the owner dies."""
    name = f"{_PREFIX}{type(owner).__name__}.{uuid.uuid4().hex}"
    weakref.finalize(owner, _forget, name).atexit = False
    return name


def show(named_parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Declare parameters to Pyro under their names, the trainable ones only, so that its SVI trains these very tensors."""
    store = pyro.get_param_store()
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            if name in store and store.param_name(parameter) != name:
                del store[name]  # the module's parameter was replaced: the store would train the old one
            pyro.param(name, parameter)


def make_picklable(parameters: Iterable[nn.Parameter]) -> None:
    """Take from parameters the weak reference that the store leaves on them."""
    for parameter in parameters:
        parameter.__dict__.pop("unconstrained", None)


@contextmanager
def store_as_found() -> Iterator[None]:
    """What this package shows to Pyro for a while leaves the store again; the user's own `pyro.param` statements stay."""
    store = pyro.get_param_store()
    before = set(store.keys())
    try:
        yield
    finally:
        for name in set(store.keys()) - before:
            if name.startswith(_PREFIX):
                del store[name]


def _forget(prefix: str) -> None:
    store = pyro.get_param_store()
    for name in [name for name in store if name.startswith(prefix)]:
        del store[name]
