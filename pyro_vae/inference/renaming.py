"""Reuse: a model or guide as a part of another, under the names that the other gives to its sites
and plates.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message


class _RenameMessenger(Messenger):
    """Gives sample sites and plates other names, for the programs and handlers around it."""

    def __init__(self, names: Mapping[str, str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_sample(self, msg: Message) -> None:
        msg["name"] = self.names.get(str(msg["name"]), msg["name"])
        msg["cond_indep_stack"] = tuple(
            frame._replace(name=self.names.get(frame.name, frame.name))
            for frame in msg["cond_indep_stack"]
        )


def renamed(program: Callable, names: Mapping[str, str]) -> Callable[..., Any]:
    """The same Pyro program with other names for its sample sites and its plates.

    Where two VAEs stand in one model, or the guide is for a model that calls its sites otherwise: a
    prefix for all names is `pyro.contrib.autoname.scope`, but it does not rename plates. Two VAEs
    of the same rows that are to be corrected row by row need one plate: write their parts into it.

    Arguments:
        program: a model or guide, such as `vae.guide`.
        names: the new name of each site or plate, by the old one; the others keep theirs.

    Raises:
        ValueError: two names become one.

    Example:
        >>> from pyro import poutine
        >>> guide = renamed(vae.guide, {"z": "code", "data": "people"})
        >>> list(poutine.trace(guide).get_trace(vae.sample(3)).stochastic_nodes)
        ['people', 'code']
    """
    if len(set(names.values())) < len(names):
        raise ValueError(
            f"'names' must give each site and plate a name of its own, got {dict(names)}."
        )
    return _RenameMessenger(names)(program)
