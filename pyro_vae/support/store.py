"""Pyro's param store, where Pyro's own SVI looks for what to train: shown to it, and left as found."""

import uuid
import warnings
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyro
from torch import nn
from torch.distributions import constraints
from torch.utils.weak import WeakTensorKeyDictionary

# Every name that this package puts into the store begins with this.
_PREFIX = "pyro_vae."
# The names that living objects have, and the tensors that were put into the store for them.
_names: set[str] = set()
_shown: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
# The names that a warning has spoken of.
_mentioned: set[str] = set()


def unique_name(owner: object) -> str:
    """A prefix that no other object has or will have; what stands under it leaves the store when the owner dies."""
    name = f"{_PREFIX}{type(owner).__name__}.{uuid.uuid4().hex}"
    _names.add(name)
    weakref.finalize(owner, _forget, name).atexit = False
    return name


def show(named_parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Declare parameters to Pyro under their names, the trainable ones only, so that its SVI trains these very tensors."""
    store = pyro.get_param_store()
    unused = [name for name in store if name.startswith(_PREFIX) and _owner(name) not in _names]
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            held = store._params.get(name)
            if held is not parameter:
                if held is not None:
                    if held not in _shown:
                        unused.append(name)
                    del store[name]  # the module's parameter was replaced: the store would train the old one
                _put(name, parameter)
            pyro.param(name, parameter)
    _mention(unused)


def _mention(unused: list[str]) -> None:
    """Say once for each VAE that its values in the store have no effect."""
    new = [name for name in unused if _owner(name) not in _mentioned]
    _mentioned.update(map(_owner, new))
    if new:
        warnings.warn(
            f"Pyro's param store was given values under names of a VAE, such as {new[0]!r}, and no VAE here uses them, "
            "since such names are new in each process: instead of the store save torch.save(vae.state_dict(), file), and "
            "load it with vae.load_state_dict(torch.load(file)).",
            stacklevel=5,
        )


def _put(name: str, parameter: nn.Parameter) -> None:
    _shown[parameter] = None
    if not parameter.is_contiguous():  # of which the store would make a copy, and train that
        pyro.get_param_store().set_state({"params": {name: parameter}, "constraints": {name: constraints.real}})


def _owner(name: str) -> str:
    """The first three parts of a name: the prefix, the class and what is unique."""
    return ".".join(name.split(".", 3)[:3])


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
    _names.discard(prefix)
    store = pyro.get_param_store()
    for name in [name for name in store if name.startswith(f"{prefix}.")]:
        del store[name]
