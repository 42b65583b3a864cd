"""Parser of the command lines: each error is one sentence, with the nearest known name."""

import inspect
import re
import sys
import warnings
from argparse import SUPPRESS
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import (
    NonNegativeInt,
    OpenUnitInterval,
    PositiveInt,
    restricted_number_type,
)
from torch import nn

from pyro_vae.runs import swaps
from pyro_vae.runs.folder import settings_of_run
from pyro_vae.runs.formats import with_public_paths
from pyro_vae.runs.reading import is_file, settings_text
from pyro_vae.runs.suggestions import suggestion
from pyro_vae.support.checks import nearest, one_line

# Modules of classes whose objects are values, not parts with settings of their own.
_VALUES = ("builtins", "collections.abc", "torch")
# Number that torch takes as a seed.
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**63)])
_NUMBERS = {
    PositiveInt: "a whole number of at least 1",
    NonNegativeInt: "a whole number of at least 0",
    OpenUnitInterval: "a number between 0 and 1",
    Seed: "a whole number of at least 0 and below 2^63",
}
# Options that ask the parser for something, and set nothing.
_ASKING = ("help", "print_config", "print_shtab")
# Messages of an import that fails.
_UNIMPORTABLE = re.compile(r"No module named '[\w.]+'|\w+ '[\w.]+' has no attribute '\w+'")
# Words for types of Python.
_IN_WORDS = {
    "NoneType": "null",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "collections.abc.Iterable": "a list such as [5, 10]",
    "collections.abc.Sequence": "a list",
    "list": "a list",
    "tuple": "a list",
}
# More classes than this are no help.
_MOST_OWNERS = 3
# More names than this are no help.
_MOST_KNOWN = 16


class SentenceParser(ArgumentParser):
    """A jsonargparse parser whose errors are one sentence.

    The sentence names the setting, what it accepts, and what it got. A file of settings in a run
    folder is read by `RunFolder.settings`, which checks the names in it.

    `swaps` lists the classes that the last command line replaced, if arguments were dropped.

    Raises:
        ValueError: if the arguments are wrong; jsonargparse would print its usage and exit.
    """

    # Packages of the user's own that the settings of a run may name.
    allow: Sequence[str] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self.swaps: list[swaps.Swap] = []
        self._said: list[swaps.Said] = []
        self._arguments: list[str] = []

    def start_new_classes_afresh(self) -> None:
        """Make each class that replaces another keep none of the other's arguments.

        Both an option and a file may replace a class.
        """
        swaps.record(self, self._said)

    def parse_args(self, args: Any = None, *more: Any, **kwargs: Any) -> Any:
        arguments = sys.argv[1:] if args is None else args
        self._arguments = list(map(with_public_paths, arguments))
        with _own_words():
            return super().parse_args(self._arguments, *more, **kwargs)

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Any:
        return super().parse_string(with_public_paths(content), *args, **kwargs)

    def parse_object(self, *args: Any, **kwargs: Any) -> Any:
        with _own_words():
            return super().parse_object(*args, **kwargs)

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Any:
        stored = settings_of_run(str(cfg_path), self.allow)
        is_stored = stored is not None
        text = yaml.safe_dump(stored) if is_stored else settings_text(str(cfg_path), "config")
        try:
            return self.parse_string(text, *args, **kwargs)
        except ValueError as error:
            raise ValueError(f"{str(error).rstrip('.')} (in {cfg_path}).") from error

    def _parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        self._said.clear()
        self.swaps = []
        parsed: Any = super()._parse_known_args(*args, **kwargs)
        self.swaps = swaps.apply(self, self._said, namespace=parsed[0])
        return parsed

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Exit after settings or help are printed, with dropped arguments on standard error."""
        for swap in self.swaps:
            print(swap, file=sys.stderr)
        super().exit(status, message)

    def set_nested_defaults(self, tree: dict[str, Any], prefix: str = "") -> None:
        """Set defaults from a tree of settings; the help shows them."""
        known = {action.dest for action in self._actions}
        for name, value in tree.items():
            is_group = isinstance(value, dict) and "class_path" not in value
            if is_group or prefix + name not in known:
                self.set_nested_defaults(value, f"{prefix}{name}.")
            else:
                self.set_defaults({prefix + name: value})
                self._action(prefix + name).required = False

    def format_help(self, formatter: Any = None) -> str:
        """Return the help of every setting, with the known names for a setting that is a class."""
        self._name_known_classes()
        return super().format_help(formatter)

    def format_group_help(self, group: str) -> str:
        """Return the help of a group of settings, such as `vae`. All other help is lost."""
        for action in self._actions:
            is_setting = action.dest.startswith(f"{group}.") and not action.dest.endswith(".help")
            if not is_setting:
                action.help = SUPPRESS
        return self.format_help()

    def _name_known_classes(self) -> None:
        for action in self._actions:
            known: list[str] = []
            for base in _class_types(getattr(action, "_typehint", None)):
                if base.__module__ != "typing":
                    known += [cls.__name__ for cls in _known_subclasses(base)]
            names = ", ".join(sorted(known))
            if names and action.help != SUPPRESS and names not in (action.help or ""):
                action.help = f"{action.help} Known: {names}; or the import path of another."

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise ValueError(self._explain(one_line(message))) from ex

    def _explain(self, message: str) -> str:
        """Return one sentence for a message of jsonargparse."""
        if match := re.search(r"unrecognized arguments: ?([^\s=]*)", message):
            return self._unknown(match[1])
        if match := re.search(
            r"^(?:Group '([\w.]+)' does not accept option|Option) '([\w.]+)'", message
        ):
            name = ".".join(filter(None, match.groups()))
            return self._unknown(name).replace("'--", "'").rstrip(".") + f"{self._in_file()}."
        if match := re.search(r"^argument (-[\w.-]+): expected one argument$", message):
            return f"'{match[1]}' needs a value, got none{self._dashed(match[1])}."
        if match := re.search(r"^argument (-[\w.-]+): ignored explicit argument (.*)$", message):
            return f"'{match[1]}' takes no value, got {match[2]}."
        if match := re.search(r"^the following arguments are required: (.*)$", message):
            return f"{_quoted(match[1])} must be given, got none."
        if match := re.search(r'^Spaces not allowed in keys: "(.*)"', message):
            return f"A setting must have a name without spaces, got '{match[1]}'."
        if match := re.search(r"^--([\w.]+)\.help: .*[:'] ?([^:']+)'?$", message):
            return f"'{match[1]}' has no class {match[2]} to explain."
        if match := re.search(
            r"^argument (?:--)?([\w.]+): invalid choice: '?(.*?)'? \(choose from (.*)\)$", message
        ):
            choices = [choice.strip(" '") for choice in match[3].split(",")]
            accepted = " or ".join(choices)
            return f"'{match[1]}' accepts {accepted}, got {match[2]}{nearest(match[2], choices)}."
        if match := re.search(r'^Parser key "([\w.]+)": (.*)$', message):
            return self._explain_value(*match.groups())
        return message

    def _explain_value(self, key: str, reason: str) -> str:
        """Return one sentence for a value that a setting does not accept."""
        if key == "config" and reason.startswith("'"):
            return reason
        if match := re.search(r"Parameter '(\w+)' from '([\w.]+)\.__init__' does not spec", reason):
            name = match[2].rpartition(".")[2]
            return (
                f"'{key}' cannot be {name} in settings, since its argument '{match[1]}' has no "
                f"type: make the {name} in Python."
            )
        if match := re.search(r"((?:'\w+' and )*'\w+') must be given", reason):
            names = match[1].replace("'", "").replace(" and ", ", ")
            return f"{_quoted(names, f'{key}.')} must be given, got none."
        if match := re.search(
            r"'([\w.]+)' ((?:accepts|is no setting|must be|names)\b.*?)"
            r"(?: - Expected .*| Got value: Namespace.*)?$",
            reason,
        ):
            # an argument of the class, already explained
            return f"'{key}.{match[1]}' {match[2]}" + self._owners(key, match[1], match[2])
        if match := re.search(r"arguments are required: ([\w, ]+?)(?: must be| - |$)", reason):
            return f"{_quoted(match[1], f'{key}.')} must be given, got none."
        hint = self._hint(key)
        known = _known_classes(hint)
        received = _received(reason)
        if known and received and Path(received).is_file():
            accepted = _accepted(hint, sorted(known))
            return f"'{key}' accepts {accepted}, got the file {received}."
        if match := _UNIMPORTABLE.search(reason):
            name = "" if "Namespace(" in reason else f", got {received}"
            return f"'{key}' must name a class that can be imported{name}: {match[0]}."
        if known and (" class" in reason or "import path" in reason.lower()):
            accepted = _accepted(hint, sorted(known))
            return f"'{key}' accepts {accepted}, got {received}{nearest(received, known)}."
        for number in (hint, *get_args(hint)):
            if number in _NUMBERS:
                return f"'{key}' must be {_NUMBERS[number]}, got {received}."
        types = re.findall(r"Expected an? <class '([\w.]+)'>", reason)
        literals = _literals(hint)
        if literals:  # jsonargparse also names their type
            types = [name for name in types if name != "str"]
        names = [_IN_WORDS.get(name, name) for name in types]
        if _takes_function(hint):
            names.insert(0, "the import path of a class whose objects can be called")
        accepted = " or ".join(dict.fromkeys([*literals, *names]))
        if not accepted:
            return f"'{key}' must be valid: {reason}"
        return f"'{key}' accepts {accepted}, got {received}{nearest(received, literals)}."

    def _owners(self, key: str, name: str, words: str) -> str:
        """Return the classes of a setting that have an argument which the chosen class lacks."""
        if not words.startswith("is no setting") or "; the nearest" in words:
            return ""
        owners: list[str] = []
        for cls in _known_classes(self._hint(key)).values():
            if name in inspect.signature(cls).parameters:
                owners.append(cls.__name__)
        if not owners or len(owners) > _MOST_OWNERS:
            return ""
        return f" It belongs to {' and '.join(sorted(owners))}."

    def _unknown(self, name: str) -> str:
        """Return one sentence for a name that is no setting."""
        if self._arguments and not name.startswith("-") and name in self._arguments:
            return f"'{name}' is one argument too many."
        group = name.lstrip("-").rpartition(".")[0]
        options = [option for option in self._options() if option != f"--{group}"]
        near = suggestion(name, options)
        if near:
            return f"'{name}' is no setting{near}."
        known: list[str] = []
        for option in options:
            before, _, last = option.lstrip("-").rpartition(".")
            is_setting = option.startswith("--") and not option.endswith("+")
            if is_setting and before == group and last not in _ASKING:
                known.append(last)
        if not known or len(known) > _MOST_KNOWN:
            return f"'{name}' is no setting."
        return f"'{name}' is no setting; known are {', '.join(known)}."

    def _dashed(self, option: str) -> str:
        """Return a hint if a value with a dash follows an option, as it reads like an option."""
        following = self._arguments[1:]
        for word, value in zip(self._arguments, following, strict=False):
            is_setting = value.partition("=")[0] in self._options()
            if word == option and value.startswith("-") and not is_setting:
                return f" before {value}: join a value that begins with a dash as {option}={value}"
        return ""

    def _in_file(self) -> str:
        """Return the only file of settings on the command line, in words, or nothing."""
        following = self._arguments[1:]
        files: list[str] = []
        for word, value in zip(self._arguments, following, strict=False):
            if word == "--config" and is_file(value):
                files.append(value)
        return f" (in {files[0]})" if len(files) == 1 else ""

    def _hint(self, key: str) -> Any:
        """Return the type of a setting, or None if it has none."""
        return getattr(self._action(key), "_typehint", None)

    def _action(self, key: str) -> Any:
        """Return the argument that sets a key, or None."""
        return next((action for action in self._actions if action.dest == key), None)

    def values_by_option(self) -> dict[str, list[str]]:
        """Return all options, each with the values that its type lists: classes or literals."""
        found: dict[str, list[str]] = {option: [] for option in self._options()}
        for action in self._actions:
            hint = getattr(action, "_typehint", None)
            for option in action.option_strings:
                is_help = option.endswith(".help")
                found[option] = [] if is_help else [*_known_classes(hint), *_literals(hint)]
        return found

    def _options(self) -> list[str]:
        """Return the options, and the arguments of the default classes."""
        options: list[str] = []
        for action in self._actions:
            options += action.option_strings
        for name in vars(self.get_defaults(skip_validation=True).as_flat()):
            option = "--" + ".".join(part for part in name.split(".") if part != "init_args")
            if option not in options and not option.endswith("class_path"):
                options.append(option)
        return options


def run_parser(description: str | None) -> SentenceParser:
    """Return a parser for a script that reads a run.

    Its arguments are the run folder, the weights, the seed, and the packages to trust.
    """
    parser = SentenceParser(description=description)
    parser.add_argument("run", type=str, help="the run folder")
    parser.add_argument(
        "--weights", type=Literal["best", "last"], default="best", help="the weights of the run"
    )
    parser.add_argument("--seed", type=Seed, default=0, help="the seed of the random draws")
    parser.add_argument(
        "--device",
        type=str,
        default="auto",
        help="cpu, cuda, or auto, which is cuda if there is one",
    )
    parser.add_argument(
        "--progress",
        type=bool,
        default=sys.stderr.isatty(),
        help="show progress bars, as on every terminal",
    )
    parser.add_argument(
        "--allow", nargs="*", default=[], help="packages of your own whose classes the run may name"
    )
    return parser


def run_options(parser: SentenceParser) -> Namespace:
    """Return the options of a command line whose parser is from `run_parser`.

    The packages that are allowed may be in the current folder.
    """
    options = parser.parse_args(sys.argv[1:])
    if options.allow:
        sys.path.append("")
    return options


@contextmanager
def _own_words() -> Iterator[None]:
    """Silence jsonargparse's long warnings inside the block; errors of the parser replace them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _received(reason: str) -> str:
    """Return the value in a message of jsonargparse, in words."""
    if match := re.search(r"given class_path '(.*?)'", reason):
        return match[1]
    if match := re.search(r"Not of type \w+: (?:invalid .*: '(.*)'$|(\S+) does not)", reason):
        return match[1] or match[2] or "an empty string"
    received = re.split(r"[Vv]alue: ?|string: ?|format: ?", reason)[-1]
    received = received.split(" Subclass types expect")[0]
    if named := re.match(r"Namespace\(class_path='([\w.]+)'", received):
        return named[1]
    return {"": "an empty string", "None": "null"}.get(received, received)


def _quoted(names: str, prefix: str = "") -> str:
    return " and ".join(f"'{prefix}{name.strip()}'" for name in names.split(","))


def _known_classes(hint: Any) -> dict[str, type]:
    """Return the classes that a setting of this type accepts by their names."""
    known: dict[str, type] = {}
    for base in _class_types(hint):
        known |= {cls.__name__: cls for cls in _known_subclasses(base)}
    return known


def _class_types(annotation: Any) -> Iterator[type]:
    """Yield the classes whose subclasses a setting accepts."""
    if inspect.isclass(annotation) and getattr(annotation, "_is_protocol", False):
        annotation = get_type_hints(annotation.__call__)["return"]
    arguments = get_args(annotation)
    if arguments and isinstance(arguments[0], list):  # a Callable: what it returns
        arguments = arguments[1:]
    for argument in arguments or (annotation,):
        if argument is not annotation and getattr(argument, "_is_protocol", False):  # or null
            yield from _class_types(argument)
        elif inspect.isclass(argument) and argument.__module__ not in _VALUES:
            yield argument
        elif get_args(argument):
            yield from _class_types(argument)


def _takes_function(hint: Any) -> bool:
    """Return True if a setting of this type accepts a function that makes no part."""
    is_function = get_origin(hint) is Callable and not list(_class_types(hint))
    return is_function or any(map(_takes_function, get_args(hint)))


def _literals(annotation: Any) -> list[str]:
    """Return the values that a setting accepts if its type lists them."""
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    values: list[str] = []
    for argument in get_args(annotation):
        values += _literals(argument)
    return values


def _accepted(hint: Any, names: list[str]) -> str:
    bases = " or ".join(base.__name__ for base in _class_types(hint))
    if get_origin(hint) is type:
        return f"the import path of a subclass of {bases}"
    or_null = " or null" if type(None) in get_args(hint) else ""
    return f"a subclass of {bases} ({', '.join(names)}, or an import path){or_null}"


def _known_subclasses(base: type) -> list[type]:
    """Return the public final subclasses of a base, from its package and this one.

    For `nn.Module` these are the networks of this package alone, since torch has too many modules.
    """
    packages: tuple[str, ...] = (base.__module__.split(".")[0] + ".", "pyro_vae.")
    if base is nn.Module:
        packages = ("pyro_vae.parts.networks",)
    known: list[type] = []
    for cls in _subclasses(base):
        is_public = cls.__module__.startswith(packages) and not cls.__name__.startswith("_")
        if is_public and not inspect.isabstract(cls):
            known.append(cls)
    return known


def _subclasses(base: type[Any]) -> Iterator[type]:
    subclass: type[Any]
    for subclass in base.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
