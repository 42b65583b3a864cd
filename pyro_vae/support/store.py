"""Pyro's param store, in which Pyro's SVI finds the parameters that it trains."""

import uuid
import warnings
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyro
from torch import nn
from torch.distributions import constraints
from torch.utils.weak import WeakTensorKeyDictionary

# The beginning of each name that this package puts into the store.
_PREFIX = "pyro_vae."
# Names of living objects.
_names: set[str] = set()
# Tensors that were put into the store for them.
_shown: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
# Names that a warning has mentioned.
_mentioned: set[str] = set()


def unique_name(owner: object) -> str:
    """Return a name prefix that no other object ever has.

    Entries of the store under this prefix are deleted when the owner dies.
    """
    name = f"{_PREFIX}{type(owner).__name__}.{uuid.uuid4().hex}"
    _names.add(name)
    weakref.finalize(owner, _forget, name).atexit = False
    return name


def show(named_parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Declare the trainable ones of these parameters to Pyro, so that SVI trains these tensors."""
    store = pyro.get_param_store()
    unused = [name for name in store if name.startswith(_PREFIX) and _owner(name) not in _names]
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        stored = store._params.get(name)
        if stored is not parameter:
            if stored is not None:
                if stored not in _shown:
                    unused.append(name)
                # The module's parameter was replaced: the store would train the old one.
                del store[name]
            _put(name, parameter)
        pyro.param(name, parameter)
    _mention(unused)


def _mention(unused: list[str]) -> None:
    """Warn once for each VAE that its values in the store have no effect."""
    new = [name for name in unused if _owner(name) not in _mentioned]
    _mentioned.update(map(_owner, new))
    if new:
        warnings.warn(
            f"Pyro's param store was given values under names of a VAE, such as {new[0]!r}, and "
            "no VAE here uses them, since such names are new in each process: instead of the "
            "store save torch.save(vae.state_dict(), file), and load it with "
            "vae.load_state_dict(torch.load(file)).",
            stacklevel=5,
        )


def _put(name: str, parameter: nn.Parameter) -> None:
    _shown[parameter] = None
    if not parameter.is_contiguous():  # the store would copy it, and train the copy
        store = pyro.get_param_store()
        store.set_state({"params": {name: parameter}, "constraints": {name: constraints.real}})


def _owner(name: str) -> str:
    """Return the first three parts of a name: the prefix, the class and the unique number."""
    return ".".join(name.split(".", 3)[:3])


def make_picklable(parameters: Iterable[nn.Parameter]) -> None:
    """Remove from parameters the weak reference that the store leaves on them."""
    for parameter in parameters:
        parameter.__dict__.pop("unconstrained", None)


@contextmanager
def store_as_found() -> Iterator[None]:
    """Delete after the block the entries that this package put into the store inside it.

    Entries of the user's own `pyro.param` statements stay.
    """
    store = pyro.get_param_store()
    before = set(store.keys())
    try:
        yield
    finally:
        for name in set(store.keys()) - before:
            if name.startswith(_PREFIX):
                del store[name]


def _forget(prefix: str) -> None:
    _names.discard(prefix)
    store = pyro.get_param_store()
    for name in [name for name in store if name.startswith(f"{prefix}.")]:
        del store[name]
