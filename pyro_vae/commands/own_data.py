"""The option `--data PATH`, which names the user's own data."""

from collections.abc import Iterator, Sequence

from pyro_vae.runs import is_yaml

# The option, which also takes YAML with the settings of the data.
_OPTION = "--data"


def with_source(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with a source in place of `--data PATH`."""
    return list(_with_source(iter(arguments)))


def _with_source(arguments: Iterator[str]) -> Iterator[str]:
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if option != _OPTION:
            yield argument
            continue
        if not equals:
            value = next(arguments, "")
        if not value or is_yaml(value):
            yield from (option, value)
        else:
            yield from (f"{option}.source", "ArrayFile", f"{option}.source.path", value)
