"""Swapped classes: a class that replaces another in the settings starts from its own defaults.

Command lines and files of settings may both swap a class.
"""

from collections.abc import Callable, Iterator, Sequence
from pydoc import locate
from typing import Any, NamedTuple, TypeAlias

import yaml
from jsonargparse import ArgumentParser, Namespace
from jsonargparse._actions import ActionConfigFile, _ActionConfigLoad
from jsonargparse._typehints import ActionTypeHint

from pyro_vae.runs.formats import with_public_paths
from pyro_vae.runs.reading import settings_text

# The place of a setting in the tree, without the levels between a class and its arguments.
Place: TypeAlias = tuple[str, ...]
_LEVELS = ("class_path", "init_args", "dict_kwargs")


class Said(NamedTuple):
    """One option of a command line, not yet applied.

    Arguments:
        apply: sets the option's values in a namespace.
        places: the settings that it sets.
        classes: those of them whose value may be the name of a class.
    """

    apply: Callable[[Namespace], Any]
    places: frozenset[Place]
    classes: frozenset[Place]


class Swap(NamedTuple):
    """A class that replaced another, and the arguments that were given for the old one.

    Arguments:
        setting: the name of the setting.
        new: the import path of the new class.
        old: the import path of the old class.
        dropped: the arguments of the old class by their names.
    """

    setting: str
    new: str
    old: str
    dropped: dict[str, Any]

    def __str__(self) -> str:
        *most, last = [f"{name} = {_text(value)}" for name, value in self.dropped.items()]
        names = f"{', '.join(most)} and {last}" if most else last
        verb = "are" if most else "is"
        dropped = f"{names} of {_name(self.old)} {verb} dropped"
        return f"'{self.setting}' is {_name(self.new)} now: {dropped}."


def record(parser: ArgumentParser, said: list[Said]) -> None:
    """Make a parser append each option to `said`, and not apply it at once."""
    for action in parser._actions:
        if type(action) in _RECORDED:
            action.__class__ = _RECORDED[type(action)]
            action.said = said  # type: ignore[attr-defined]


def apply(parser: ArgumentParser, said: Sequence[Said], namespace: Namespace) -> list[Swap]:
    """Apply options to a namespace of defaults; a new class keeps no argument of the old one.

    An argument that comes before any class of its setting belongs to the class that is named next.
    An argument that comes after a class is dropped when another class is named. Naming the same
    class again keeps its arguments.

    Arguments:
        parser: the parser of the options. Its defaults tell which arguments were given for a
            default class.
        said: the options in their order.
        namespace: the defaults as the parser completes them; changed in place.

    Returns:
        The swaps in which something was dropped.
    """
    if not said:
        return []
    for action in parser._actions:
        if isinstance(action, ActionTypeHint) and action.dest in namespace:
            namespace[action.dest] = _said_part(namespace[action.dest], action.default)
    swaps: list[Swap] = []
    for option in _classes_first(said):
        trial = namespace.clone()
        option.apply(trial)  # keeps arguments of the old class that the new one would take
        found = list(_swaps(namespace, trial))
        for swap, old in found:
            old.pop("init_args", None)
            old.pop("dict_kwargs", None)
            if swap.dropped:
                swaps.append(swap)
        if found:
            option.apply(namespace)
        else:
            vars(namespace).update(vars(trial))
    return swaps


def _recorded(kind: Any) -> Any:
    """Return a subclass of a kind of option whose call only records the option."""

    class Recorded(kind):  # type: ignore[misc]
        said: list[Said]

        def __call__(self, parser: Any, namespace: Namespace, value: Any, option: str) -> None:
            call = super().__call__
            name = option.lstrip("-").rstrip("+")
            tree = _loaded(value, name, kind)
            if kind is _ActionConfigLoad:  # the parser reads the file of a group without our words
                value = with_public_paths(settings_text(value, name))
            place = _place(name)
            places = dict(_places(tree, () if issubclass(kind, ActionConfigFile) else place))
            classes = frozenset(place for place, is_name in places.items() if is_name)

            def apply_to(target: Namespace) -> None:
                call(parser, target, value, option)

            self.said.append(Said(apply_to, frozenset(places), classes))

    return Recorded


_RECORDED: dict[type, Any] = {
    kind: _recorded(kind) for kind in (ActionTypeHint, ActionConfigFile, _ActionConfigLoad)
}


def _loaded(value: str, name: str, kind: type) -> Any:
    """Return the tree in the value of an option.

    It is None if a value is no YAML, which the parser will report.
    """
    if not issubclass(kind, ActionTypeHint):
        return yaml.safe_load(settings_text(value, name))
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return None


def _place(name: str) -> Place:
    return tuple(part for part in name.split(".") if part not in _LEVELS)


def _places(tree: Any, place: Place) -> Iterator[tuple[Place, bool]]:
    """Yield the settings in a tree, each with True if its value may be the name of a class."""
    if not isinstance(tree, dict):
        yield place, isinstance(tree, str)
        return
    for name, value in tree.items():
        yield from _places(value, (*place, *_place(str(name))))


def _classes_first(said: Sequence[Said]) -> list[Said]:
    """Return the options in order; one that names a class also comes before its arguments."""
    ordered: list[Said] = []
    named: frozenset[Place] = frozenset()
    for option in said:
        new = option.classes - named
        early = [number for number, earlier in enumerate(ordered) if _is_about(earlier, new)]
        if early:
            ordered.insert(early[0], option)
        ordered.append(option)  # also in its own place, since later options win
        named |= option.classes
    return ordered


def _is_about(option: Said, classes: frozenset[Place]) -> bool:
    """Return True if an option sets an argument of one of these classes."""
    for place in option.places:
        if any(place[:length] in classes for length in range(len(place))):
            return True
    return False


def _said_part(tree: Any, said: Any) -> Any:
    """Return the part of a tree of settings that was given, without defaults of its classes."""
    if isinstance(tree, list) and isinstance(said, list) and len(tree) == len(said):
        return [_said_part(*pair) for pair in zip(tree, said, strict=True)]
    if not isinstance(tree, Namespace):
        return tree
    known = {"class_path": said} if isinstance(said, str) else _branches(said)
    part: dict[str, Any] = {}
    for name, value in vars(tree).items():
        if name in known:
            part[name] = _said_part(value, known[name])
    return Namespace(**part)


def _swaps(old: Any, new: Any, place: Place = ()) -> Iterator[tuple[Swap, dict[str, Any]]]:
    """Yield each class that differs between two trees, with its branch of the old tree."""
    if isinstance(old, list) and isinstance(new, list):
        for before, after in zip(old, new, strict=False):
            yield from _swaps(before, after, place)
    before, after = _branches(old), _branches(new)
    if "class_path" in before and "class_path" in after:
        old_class = before["class_path"]
        new_class = after["class_path"]
        if not _is_same(old_class, new_class):
            dropped = _branches(before.get("init_args")) | _branches(before.get("dict_kwargs"))
            yield Swap(".".join(place), new_class, old_class, dict(dropped)), before
            return
    for name in before:
        if name in after:
            yield from _swaps(before[name], after[name], (*place, *_place(name)))


def _is_same(class_path: str, other: str) -> bool:
    """Return True if two import paths, both of which the parser has found, lead to one class."""
    return class_path == other or locate(class_path) is locate(other) is not None


def _branches(tree: Any) -> dict[str, Any]:
    """Return the branches of a tree, not a copy; an empty dict for anything else."""
    if isinstance(tree, Namespace):
        return vars(tree)
    return tree if isinstance(tree, dict) else {}


def _text(value: Any) -> str:
    """Return a value as a sentence shows it; a class by its name, with its given arguments."""
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, type):
        return value.__name__
    branches = _branches(value)
    if "class_path" not in branches:
        return str(value)
    arguments = _branches(branches.get("init_args"))
    shown = ", ".join(f"{name}={_text(argument)}" for name, argument in arguments.items())
    return _name(branches["class_path"]) + (f"({shown})" if shown else "")


def _name(class_path: str) -> str:
    return class_path.rpartition(".")[2]
