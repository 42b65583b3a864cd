"""The user's own data on the command line: `--data PATH`, and a likelihood that suits them."""

import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields

from jsonargparse import Namespace

from pyro_vae.data import FileSource, Rows, source_for, types_found
from pyro_vae.runs import DataSettings, argument_named, is_yaml, proposed_likelihood

# The preset for such data.
OWN = "own"
_LIKELIHOOD = "--vae.likelihood"
# The word for a likelihood that suits the data.
_AUTO = "auto"
# Settings of all data, which are no arguments of a source.
_OF_ALL = {field.name for field in fields(DataSettings)}
# Arguments of sources that are lists of columns.
_LISTS = ("context", "ignored")


def with_source(arguments: Sequence[str], path: str | None) -> list[str]:
    """Return the arguments with a source in place of `--data PATH`.

    `--data.label` and the like stand for the arguments of the source. A list of columns may be
    written with commas.

    Arguments:
        arguments: the arguments.
        path: the value of `--data`, which may also be YAML, or a file of it.

    Raises:
        ValueError: if no reader knows the data.
    """
    if not path or is_yaml(path):
        return list(arguments)
    with argument_named("path", "data"):
        kind = type(source_for(path))
    return list(_with_source(iter(arguments), path, kind))


def _with_source(arguments: Iterator[str], path: str, kind: type[FileSource]) -> Iterator[str]:
    names = set(inspect.signature(kind).parameters) - _OF_ALL
    for argument in arguments:
        option, equals, value = argument.partition("=")
        name = option.removeprefix("--data.")
        if option == "--data":
            if not equals:
                next(arguments, None)
            yield from (f"--data.source={kind.__name__}", f"--data.source.path={path}")
        elif option.startswith("--data.") and name in names:
            text = value if equals else next(arguments, "")
            is_list = name in _LISTS and not text.startswith("[")
            yield f"--data.source.{name}={json.dumps(text.split(',')) if is_list else text}"
        else:
            yield argument


def without_auto(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without `--vae.likelihood auto`."""
    found: list[str] = []
    for argument in arguments:
        if argument == _AUTO and found and found[-1] == _LIKELIHOOD:
            found.pop()
        elif argument != f"{_LIKELIHOOD}={_AUTO}":
            found.append(argument)
    return found


def names_likelihood(arguments: Sequence[str]) -> bool:
    """Return True if arguments name a likelihood."""
    return any(argument.partition("=")[0] == _LIKELIHOOD for argument in arguments)


def names_context(arguments: Sequence[str]) -> bool:
    """Return True if arguments name columns of a context."""
    return any(argument.startswith("--data.source.context=") for argument in arguments)


def of_context(rows: Rows, options: Namespace) -> list[str]:
    """Return the arguments that give the context of rows to each network that takes one.

    Arguments:
        rows: the rows to train on.
        options: the settings; a network that has been told the size of a context keeps it.
    """
    if rows.contexts is None:
        return []
    size = rows.contexts.shape[1]
    places = [f"vae.{network}.init_args.context_dim" for network in ("encoder", "decoder")]
    open_places = [place for place in places if options.get(place) == 0]
    return [f"--{place.replace('.init_args', '')}={size}" for place in open_places]


def of_likelihood(rows: Rows) -> list[str]:
    """Return the arguments of a likelihood that suits rows, and say what was found in them.

    Arguments:
        rows: the rows to train on, as they are stored.
    """
    likelihood = proposed_likelihood(rows)
    name = likelihood["class_path"]
    columns = likelihood.get("init_args", {}).get("columns", ())
    parts = ", ".join(f"{column['likelihood']} of {column['size']}" for column in columns)
    print(f"{types_found(rows)}. The likelihood is {name}{f' ({parts})' if parts else ''}.")
    arguments = [f"{_LIKELIHOOD}={json.dumps(likelihood)}"]
    if rows.has_missing:
        arguments += ["--vae.missing=nan", "--vae.encoder_sees_mask=true"]
    return arguments
