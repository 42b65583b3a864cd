"""Parser of the command lines: each error is one sentence, with the nearest known name."""

import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser
from torch import nn

from pyro_vae.runs import swaps
from pyro_vae.runs.folder import settings_of_run
from pyro_vae.runs.formats import with_public_paths
from pyro_vae.support.checks import nearest, one_line


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

    def start_new_classes_afresh(self) -> None:
        """Make each class that replaces another keep none of the other's arguments.

        Both an option and a file may replace a class.
        """
        swaps.record(self, self._said)

    def parse_args(self, args: Any = None, *more: Any, **kwargs: Any) -> Any:
        arguments = sys.argv[1:] if args is None else args
        with _own_words():
            return super().parse_args(list(map(with_public_paths, arguments)), *more, **kwargs)

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Any:
        return super().parse_string(with_public_paths(content), *args, **kwargs)

    def parse_object(self, *args: Any, **kwargs: Any) -> Any:
        with _own_words():
            return super().parse_object(*args, **kwargs)

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Any:
        stored = settings_of_run(str(cfg_path), self.allow)
        if stored is None:
            return super().parse_path(cfg_path, *args, **kwargs)
        return self.parse_string(yaml.safe_dump(stored), *args, **kwargs)

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

    def format_help(self, formatter: Any = None) -> str:
        """Return the help of every setting, with the known names for a setting that is a class."""
        for action in self._actions:
            known: list[str] = []
            for base in _class_types(getattr(action, "_typehint", None)):
                if base.__module__ != "typing":
                    known += [cls.__name__ for cls in _known_subclasses(base)]
            names = ", ".join(sorted(known))
            if names and names not in (action.help or ""):
                action.help = f"{action.help} Known: {names}; or the import path of another."
        return super().format_help(formatter)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise ValueError(self._explain(one_line(message))) from ex

    def _explain(self, message: str) -> str:
        """Return one sentence for a message of jsonargparse."""
        if match := re.search(r"unrecognized arguments: ([^\s=]+)", message):
            return f"'{match[1]}' is no setting{nearest(match[1], self._options())}."
        if match := re.search(
            r"^(?:Group '([\w.]+)' does not accept option|Option) '([\w.]+)'", message
        ):
            name = ".".join(filter(None, match.groups()))
            options = [option.removeprefix("--") for option in self._options()]
            return f"'{name}' is no setting{nearest(name, options)}."
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
        if match := re.search(
            r"'([\w.]+)' ((?:accepts|is no setting|must be)\b.*?)(?: Got value: Namespace.*)?$",
            reason,
        ):
            return f"'{key}.{match[1]}' {match[2]}"  # an argument of the class, already explained
        hint = self._hint(key)
        known: dict[str, type] = {}
        for base in _class_types(hint):
            known |= {cls.__name__: cls for cls in _known_subclasses(base)}
        if match := re.search(r"Option '(\w+)' is not accepted", reason):
            parameters: list[str] = []
            for cls in known.values():
                parameters += inspect.signature(cls).parameters
            return f"'{key}.{match[1]}' is no setting{nearest(match[1], parameters)}."
        received = re.split(r"[Vv]alue: |string: ", reason)[-1]
        if known and (" class" in reason or "import path" in reason):
            accepted = _accepted(hint, sorted(known))
            return f"'{key}' accepts {accepted}, got {received}{nearest(received, known)}."
        types = re.findall(r"Expected .*?<class '([\w.]+)'>", reason)
        literals = _literals(hint)
        if literals:  # jsonargparse also names their type
            types = [name for name in types if name != "str"]
        accepted = " or ".join(dict.fromkeys([*literals, *types])).replace("NoneType", "null")
        if not accepted:
            return f"'{key}' must be valid: {reason}"
        return f"'{key}' accepts {accepted}, got {received}{nearest(received, literals)}."

    def _hint(self, key: str) -> Any:
        """Return the type of a setting, or None if it has none."""
        for action in self._actions:
            if action.dest == key:
                return getattr(action, "_typehint", None)
        return None

    def _options(self) -> list[str]:
        options: list[str] = []
        for action in self._actions:
            options += action.option_strings
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
    parser.add_argument("--seed", type=int, default=0, help="the seed of the random draws")
    parser.add_argument(
        "--allow", nargs="*", default=[], help="packages of your own whose classes the run may name"
    )
    return parser


@contextmanager
def _own_words() -> Iterator[None]:
    """Silence jsonargparse's long warnings inside the block; errors of the parser replace them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a script, and exit with its code; 2 after a user's mistake, and 130 after Ctrl-C.

    Standard error shows a mistake, and each warning, as one sentence.
    """
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(
            f"warning: {one_line(message)}", file=sys.stderr
        )
        try:
            sys.exit(main() or 0)
        except (ValueError, OSError) as error:
            print(f"error: {one_line(error)}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)


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
        elif inspect.isclass(argument) and argument.__module__ != "builtins":
            yield argument
        elif get_args(argument):
            yield from _class_types(argument)


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
    return f"a subclass of {bases} ({', '.join(names)}, or an import path)"


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
