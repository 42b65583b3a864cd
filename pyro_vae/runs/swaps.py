"""Classes that are swapped on a command line or in a file of settings: each starts from its own
defaults.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any, NamedTuple, TypeAlias

import yaml
from jsonargparse import ArgumentParser, Namespace
from jsonargparse._actions import ActionConfigFile, _ActionConfigLoad
from jsonargparse._typehints import ActionTypeHint

from pyro_vae.runs.formats import with_public_paths

# The place of a setting in the tree, without the levels that stand between a class and its
# arguments.
Place: TypeAlias = tuple[str, ...]
_LEVELS = ("class_path", "init_args", "dict_kwargs")


class Said(NamedTuple):
    """One option of a command line, not yet applied.

    Arguments:
        apply: lays the option over a namespace.
        places: the settings that it says.
        classes: those of them that it may give a class.
    """

    apply: Callable[[Namespace], Any]
    places: frozenset[Place]
    classes: frozenset[Place]


class Swap(NamedTuple):
    """A class that took the place of another, and the arguments that were said of the old one.

    Arguments:
        setting: the name of the setting.
        new: the import path of the new class.
        old: that of the old class.
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
        return f"'{self.setting}' is {_name(self.new)} now: {names} of {_name(self.old)} {verb} dropped."


def record(parser: ArgumentParser, said: list[Said]) -> None:
    """Note the options of settings in `said`, in place of applying each when it is met."""
    for action in parser._actions:
        if type(action) in _RECORDED:
            action.__class__ = _RECORDED[type(action)]
            action.said = said  # type: ignore[attr-defined]


def apply(parser: ArgumentParser, said: Sequence[Said], namespace: Namespace) -> list[Swap]:
    """Lay options over a namespace of defaults, so that a class that is swapped keeps nothing of
    the old one.

    What is said of a setting before its class is named holds for the class named next; what is said
    after a class was named goes when another is named. Naming the same class again keeps its
    arguments.

    Arguments:
        parser: what has read the options; its defaults tell which arguments of a default's class
            were said.
        said: the options in their order.
        namespace: the defaults as the parser completes them; changed in place.

    Returns:
        The swaps in which something was dropped.
    """
    for action in parser._actions if said else ():
        if isinstance(action, ActionTypeHint) and action.dest in namespace:
            namespace[action.dest] = _said_part(namespace[action.dest], action.default)
    swaps: list[Swap] = []
    for option in _classes_first(said):
        trial = namespace.clone()
        option.apply(trial)  # the parser keeps of an old class what the new one would take
        found = list(_swaps(namespace, trial))
        for swap, old in found:
            old.pop("init_args", None)
            old.pop("dict_kwargs", None)
            swaps += [swap] if swap.dropped else []
        if found:
            option.apply(namespace)
        else:
            vars(namespace).update(vars(trial))
    return swaps


def _recorded(kind: Any) -> Any:
    """A kind of option, with a call that notes what was said."""

    class Recorded(kind):  # type: ignore[misc]
        said: list[Said]

        def __call__(self, parser: Any, namespace: Namespace, value: Any, option: str) -> None:
            call = super().__call__
            if kind is _ActionConfigLoad:  # the file of a group, which the parser reads by itself
                value = with_public_paths(_contents(value))
            tree = _loaded(value, kind)
            place = _place(option.lstrip("-").rstrip("+"))
            places = dict(_places(tree, () if issubclass(kind, ActionConfigFile) else place))
            classes = frozenset(place for place, is_name in places.items() if is_name)
            self.said.append(
                Said(lambda target: call(parser, target, value, option), frozenset(places), classes)
            )

    return Recorded


_RECORDED: dict[type, Any] = {
    kind: _recorded(kind) for kind in (ActionTypeHint, ActionConfigFile, _ActionConfigLoad)
}


def _loaded(value: str, kind: type) -> Any:
    """The tree behind an option's value; None where it cannot be read, which the parser then says."""
    try:
        return yaml.safe_load(value if issubclass(kind, ActionTypeHint) else _contents(value))
    except yaml.YAMLError:
        return None


def _contents(value: str) -> str:
    """The text of a file of settings; the value itself where it is the settings."""
    try:
        return Path(value).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return value


def _place(name: str) -> Place:
    return tuple(part for part in name.split(".") if part not in _LEVELS)


def _places(tree: Any, place: Place) -> Iterator[tuple[Place, bool]]:
    """The settings that a tree says, each with whether it may be the name of a class."""
    if not isinstance(tree, dict):
        yield place, isinstance(tree, str)
        return
    for name, value in tree.items():
        yield from _places(value, (*place, *_place(str(name))))


def _classes_first(said: Sequence[Said]) -> list[Said]:
    """The options in their order; one that names a class comes before what was said of it too."""
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
    """Return true for an option that says an argument of one of these classes."""
    above = {place[:length] for place in option.places for length in range(len(place))}
    return not above.isdisjoint(classes)


def _said_part(tree: Any, said: Any) -> Any:
    """The part of a tree of settings that was said; the rest are defaults of its classes."""
    if isinstance(tree, list) and isinstance(said, list) and len(tree) == len(said):
        return [_said_part(*pair) for pair in zip(tree, said, strict=True)]
    if not isinstance(tree, Namespace):
        return tree
    known = {"class_path": said} if isinstance(said, str) else _branches(said)
    return Namespace(
        **{
            name: _said_part(value, known[name])
            for name, value in vars(tree).items()
            if name in known
        }
    )


def _swaps(old: Any, new: Any, place: Place = ()) -> Iterator[tuple[Swap, dict[str, Any]]]:
    """The classes that are others in a new tree than in the old one, each with its branch of the
    old tree.
    """
    if isinstance(old, list) and isinstance(new, list):
        for before, after in zip(old, new, strict=False):
            yield from _swaps(before, after, place)
    before, after = _branches(old), _branches(new)
    if (
        "class_path" in before
        and "class_path" in after
        and not _is_same(before["class_path"], after["class_path"])
    ):
        dropped = _branches(before.get("init_args")) | _branches(before.get("dict_kwargs"))
        yield (
            Swap(".".join(place), after["class_path"], before["class_path"], dict(dropped)),
            before,
        )
        return
    for name in before:
        if name in after:
            yield from _swaps(before[name], after[name], (*place, *_place(name)))


def _is_same(class_path: str, other: str) -> bool:
    """Return true for two import paths of one class; the parser has found both."""
    return class_path == other or locate(class_path) is locate(other) is not None


def _branches(tree: Any) -> dict[str, Any]:
    """The branches of a tree, and changes to them are the tree's; none of anything else."""
    return vars(tree) if isinstance(tree, Namespace) else tree if isinstance(tree, dict) else {}


def _text(value: Any) -> str:
    """A value as a sentence shows it: a class by its name, with the arguments that were said of it."""
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
