"""Reuse of a model or guide inside another one, with other names for its sites and plates."""

from collections.abc import Callable, Mapping
from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message

from pyro_vae.support.checks import described


class _RenameMessenger(Messenger):
    """Renames sample sites and plates for the programs and handlers around it."""

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
    """Rename the sample sites and the plates of a Pyro program.

    Use it to put two VAEs into one model, or to use a guide for a model with other site names.
    `pyro.contrib.autoname.scope` puts a prefix before all site names, but does not rename plates.
    If two VAEs share rows and each row is to be corrected, write their parts into one plate.

    Arguments:
        program: a model or guide, such as `vae.guide`.
        names: the new name of each site or plate by its old name; the others keep theirs.

    Raises:
        ValueError: if two names become one.

    Example:
        >>> from pyro import poutine
        >>> guide = renamed(vae.guide, {"z": "code", "data": "people"})
        >>> list(poutine.trace(guide).get_trace(vae.sample(3)).stochastic_nodes)
        ['people', 'code']
    """
    if not callable(program):
        raise ValueError(f"'program' must be a model or a guide, got {described(program)}.")
    if not isinstance(names, Mapping) or not all(isinstance(n, str) for n in names.values()):
        raise ValueError(
            "'names' must be a dict of new names by old ones, such as {'z': 'code'}, got "
            f"{names!r}."
        )
    if len(set(names.values())) < len(names):
        raise ValueError(
            f"'names' must give each site and plate a name of its own, got {dict(names)}."
        )
    return _RenameMessenger(names)(program)
