"""Read files of settings: YAML in UTF-8, on every machine."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from pyro_vae.support.checks import described, one_line

# The groups of settings. The device is the only setting outside them.
GROUPS = ("vae", "data", "training", "logging")
# What YAML says of an object: its class, and its arguments by name.
_CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")
# Values of a tree of settings; aliases inside aliases could make a few lines endless.
_MOST_VALUES = 100_000
# Endings of files of data, and of YAML.
_DATA = (".npy", ".npz")
_YAML = (".yaml", ".yml")


def read_text(path: str | Path) -> str:
    """Return the text of a file.

    Raises:
        ValueError: if there is no such file, it cannot be read, or is not in UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} must be text in UTF-8, got other bytes.") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"{path} must be a file that can be read: {reason}.") from error


def read_yaml(text: str, name: str) -> dict[str, Any]:
    """Return the tree of settings in a string of YAML.

    Arguments:
        text: the YAML.
        name: its name in errors.

    Raises:
        ValueError: if it is damaged, endless, names a setting twice, or holds something else.
    """
    try:
        tree = yaml.load(text, _OnceLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"{name} must be YAML, but is damaged: {_problem(error)}.") from error
    if not isinstance(tree, dict):
        received = "nothing" if tree is None else type(tree).__name__
        raise ValueError(f"{name} must hold a tree of settings, got {received}.")
    if _num_values(tree, {}) > _MOST_VALUES:
        raise ValueError(
            f"{name} must hold at most {_MOST_VALUES} values, got more by its aliases."
        )
    try:
        _check_classes(tree, name)
    except RecursionError:
        raise ValueError(
            f"{name} must hold a tree of settings, got one that holds itself."
        ) from None
    return tree


def _num_values(branch: Any, known: dict[int, int]) -> int:
    """Return the number of values in a branch; those of an alias count wherever it stands.

    Arguments:
        branch: the branch.
        known: the numbers of the branches that were counted, by their id.
    """
    if not isinstance(branch, dict | list):
        return 1
    if id(branch) not in known:
        known[id(branch)] = 0  # for a branch that holds itself
        inner = branch.values() if isinstance(branch, dict) else branch
        known[id(branch)] = 1 + sum(_num_values(value, known) for value in inner)
    return known[id(branch)]


def _check_classes(branch: Any, name: str, place: str = "") -> None:
    """Refuse a class whose arguments do not lie under `init_args`."""
    if isinstance(branch, list):
        for number, value in enumerate(branch):
            _check_classes(value, name, f"{place}[{number}]")
    if not isinstance(branch, dict):
        return
    others = [str(key) for key in branch if key not in _CLASS_KEYS]
    has_arguments = isinstance(branch.get("init_args") or {}, dict)
    if "class_path" in branch and (others or not has_arguments):
        received = (
            f"{', '.join(others)} beside class_path" if others else described(branch["init_args"])
        )
        raise ValueError(
            f"'{place}' in {name} must hold the arguments of its class by name under init_args, "
            f"got {received}."
        )
    for key, value in branch.items():
        is_named = key not in _CLASS_KEYS
        _check_classes(value, name, f"{place}.{key}".lstrip(".") if is_named else place)


def settings_text(value: str, option: str) -> str:
    """Return the settings in a file as YAML, or the value itself if that is YAML.

    Arguments:
        value: the name of a file, or YAML.
        option: the option that the value was given for: `config`, or a group of settings.

    Raises:
        ValueError: if it is neither, or the YAML is no tree of settings.
    """
    is_named = _exists(value)
    if is_file(value):
        check_kind(value)
    text = read_text(value) if is_named else value
    name = value if is_named else f"'{option}'"
    if not is_named and not _has_signs(value):
        received = f"{value}, which is no file" if value else "an empty string"
        raise ValueError(f"'{option}' accepts a YAML file or YAML itself, got {received}.")
    tree = read_yaml(text, name)
    if option == "config":
        check_groups(tree, name)
    return text


def is_yaml(value: str) -> bool:
    """Return True for YAML itself, and for the name of a YAML file."""
    return value.endswith(_YAML) or (_has_signs(value) and not _exists(value))


def check_kind(file: str | Path) -> None:
    """Refuse a file that cannot hold settings: one of data, of weights or of results.

    Raises:
        ValueError: if it is one.
    """
    suffix = Path(file).suffix.lower()
    if suffix in _DATA:
        raise ValueError(
            f"Settings must come from a preset or a YAML file, got {file}, which holds data: name "
            f"data by --data.source ArrayFile --data.source.path {file}."
        )
    is_of_run = Path(file).with_name("run.json").is_file()
    if is_of_run and suffix not in _YAML:
        raise ValueError(
            f"Settings must come from a preset or a YAML file, got {file}: those of this run are "
            f"in {Path(file).with_name('settings.yaml')}."
        )


def check_groups(tree: dict[str, Any], name: str) -> None:
    """Refuse a tree in which something else stands in place of a group of settings.

    Arguments:
        tree: all settings.
        name: its name in errors.
    """
    for group in GROUPS:
        if group in tree and not isinstance(tree[group], dict):
            received = type(tree[group]).__name__
            raise ValueError(f"'{group}' in {name} must be a group of settings, got {received}.")


def is_file(value: str) -> bool:
    """Return True if a value that may also be YAML itself is the name of a file."""
    return _exists(value) and Path(value).is_file()


def _has_signs(value: str) -> bool:
    return any(sign in value for sign in ":{[\n")


def _exists(value: str) -> bool:
    try:
        return Path(value).exists() and bool(value)
    except (OSError, ValueError):  # YAML itself may be too long for the name of a file
        return False


def _problem(error: Exception) -> str:
    """Return the problem that a parser of YAML found, with its line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return one_line(error).rstrip(".")
    mark = error.problem_mark
    return f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}"


class _OnceLoader(yaml.SafeLoader):
    """Loader that refuses a name which stands twice in one mapping."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for number, (key, _) in enumerate(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value in names[:number]:
                problem = f"'{key.value}' stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)
