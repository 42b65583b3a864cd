"""The names that a command line chooses among known ones."""

from collections.abc import Sequence

from pyro_vae.support.checks import nearest


def chosen(names: Sequence[str], option: str, known: Sequence[str], of_all: Sequence[str]) -> list:
    """Return the names in order, each once; "all" stands for several.

    Arguments:
        names: the names as they are given.
        option: the name of the argument in errors.
        known: the names that there are.
        of_all: those that "all" stands for; none if "all" is no name.

    Raises:
        ValueError: if a name is not known.
    """
    found: list[str] = []
    for name in names:
        if name == "all" and of_all:
            found += of_all
        elif name in known:
            found.append(name)
        else:
            accepted = f"{', '.join(known)}{', or all' if of_all else ''}"
            near = nearest(name, known)
            raise ValueError(f"'{option}' must be of {accepted}, got {name or repr(name)}{near}.")
    return list(dict.fromkeys(found))
