"""What the command lines share: errors that are one sentence, with the nearest known name."""

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
    """A jsonargparse parser whose errors are one sentence: the setting, what it accepts, and what
    it got.

    A file of settings that lies in a run folder comes through the door of that folder.

    `swaps` holds the classes that its last command line put in the place of others, where arguments
    were dropped.

    Raises:
        ValueError: in place of printing its usage and leaving the process.
    """

    # Packages of the user's own that the settings of a run may name.
    allow: Sequence[str] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self.swaps: list[swaps.Swap] = []
        self._said: list[swaps.Said] = []

    def start_new_classes_afresh(self) -> None:
        """Let a class that takes the place of another, by an option or a file, keep none of its
        arguments.
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
        """Leave the process, once settings or help are printed; standard error says what was
        dropped.
        """
        for swap in self.swaps:
            print(swap, file=sys.stderr)
        super().exit(status, message)

    def set_nested_defaults(self, tree: dict[str, Any], prefix: str = "") -> None:
        """Defaults from a tree of settings, which help then shows."""
        known = {action.dest for action in self._actions}
        for name, value in tree.items():
            if prefix + name not in known or (
                isinstance(value, dict) and "class_path" not in value
            ):
                self.set_nested_defaults(value, f"{prefix}{name}.")
            else:
                self.set_defaults({prefix + name: value})

    def format_help(self, formatter: Any = None) -> str:
        """The help of every setting; where a class is wanted, with the names that are known."""
        for action in self._actions:
            bases = [
                base
                for base in _class_types(getattr(action, "_typehint", None))
                if base.__module__ != "typing"
            ]
            names = ", ".join(
                sorted(cls.__name__ for base in bases for cls in _known_subclasses(base))
            )
            if names and names not in (action.help or ""):
                action.help = f"{action.help} Known: {names}; or the import path of another."
        return super().format_help(formatter)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise ValueError(self._explain(one_line(message))) from ex

    def _explain(self, message: str) -> str:
        """One sentence for what jsonargparse has to say."""
        if match := re.search(r"unrecognized arguments: ([^\s=]+)", message):
            return f"'{match[1]}' is no setting{nearest(match[1], self._options())}."
        if match := re.search(
            r"^(?:Group '([\w.]+)' does not accept option|Option) '([\w.]+)'", message
        ):
            name = ".".join(filter(None, match.groups()))
            return f"'{name}' is no setting{nearest(name, [option.removeprefix('--') for option in self._options()])}."
        if match := re.search(
            r"^argument (?:--)?([\w.]+): invalid choice: '?(.*?)'? \(choose from (.*)\)$", message
        ):
            choices = [choice.strip(" '") for choice in match[3].split(",")]
            return f"'{match[1]}' accepts {' or '.join(choices)}, got {match[2]}{nearest(match[2], choices)}."
        if match := re.search(r'^Parser key "([\w.]+)": (.*)$', message):
            return self._explain_value(*match.groups())
        return message

    def _explain_value(self, key: str, reason: str) -> str:
        if match := re.search(
            r"'([\w.]+)' ((?:accepts|is no setting|must be)\b.*?)(?: Got value: Namespace.*)?$",
            reason,
        ):
            return f"'{key}.{match[1]}' {match[2]}"  # an argument of the class, already explained
        hint = next(
            (getattr(action, "_typehint", None) for action in self._actions if action.dest == key),
            None,
        )
        known = {
            cls.__name__: cls for base in _class_types(hint) for cls in _known_subclasses(base)
        }
        if match := re.search(r"Option '(\w+)' is not accepted", reason):
            parameters = [
                name for cls in known.values() for name in inspect.signature(cls).parameters
            ]
            return f"'{key}.{match[1]}' is no setting{nearest(match[1], parameters)}."
        received = re.split(r"[Vv]alue: |string: ", reason)[-1]
        if known and (" class" in reason or "import path" in reason):
            return f"'{key}' accepts {_accepted(hint, sorted(known))}, got {received}{nearest(received, known)}."
        types = re.findall(r"Expected .*?<class '([\w.]+)'>", reason)
        literals = _literals(hint)
        types = [
            name for name in types if not literals or name != "str"
        ]  # of the listed values themselves
        accepted = " or ".join(dict.fromkeys([*literals, *types])).replace("NoneType", "null")
        if not accepted:
            return f"'{key}' must be valid: {reason}"
        return f"'{key}' accepts {accepted}, got {received}{nearest(received, literals)}."

    def _options(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]


def run_parser(description: str | None) -> SentenceParser:
    """A parser for a script that reads a run: its folder, which weights, the random stream, and
    whom to trust.
    """
    parser = SentenceParser(description=description)
    parser.add_argument("run", type=str, help="the run folder")
    parser.add_argument(
        "--weights", type=Literal["best", "last"], default="best", help="which weights of the run"
    )
    parser.add_argument("--seed", type=int, default=0, help="names the random stream")
    parser.add_argument(
        "--allow", nargs="*", default=[], help="packages of your own whose classes the run may name"
    )
    return parser


@contextmanager
def _own_words() -> Iterator[None]:
    """jsonargparse warns in many lines of what it is going to refuse; here it is refused already,
    in one sentence.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a script; a user's mistake ends it with one sentence on standard error, and warnings are
    sentences too.
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
    """The classes whose subclasses a setting accepts."""
    if inspect.isclass(annotation) and getattr(annotation, "_is_protocol", False):
        annotation = get_type_hints(annotation.__call__)["return"]
    arguments = get_args(annotation)
    if arguments and isinstance(arguments[0], list):  # a Callable: what it returns
        arguments = arguments[1:]
    for argument in arguments or (annotation,):
        if argument is not annotation and getattr(argument, "_is_protocol", False):  # or null
            yield from _class_types(argument)
        elif (
            inspect.isclass(argument)
            and argument is not type(None)
            and argument.__module__ != "builtins"
        ):
            yield argument
        elif get_args(argument):
            yield from _class_types(argument)


def _literals(annotation: Any) -> list[str]:
    """The values that a setting accepts, where they are listed."""
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return [value for argument in get_args(annotation) for value in _literals(argument)]


def _accepted(hint: Any, names: list[str]) -> str:
    bases = " or ".join(base.__name__ for base in _class_types(hint))
    if get_origin(hint) is type:
        return f"the import path of a subclass of {bases}"
    return f"a subclass of {bases} ({', '.join(names)}, or an import path)"


def _known_subclasses(base: type) -> list[type]:
    """The final classes to name for a base: torch's own modules are too many, the package's
    networks will do.
    """
    packages = (
        ("pyro_vae.parts.networks",)
        if base is nn.Module
        else (base.__module__.split(".")[0] + ".", "pyro_vae.")
    )
    found = (
        cls
        for cls in _subclasses(base)
        if cls.__module__.startswith(packages) and not cls.__name__.startswith("_")
    )
    return [cls for cls in found if not inspect.isabstract(cls)]


def _subclasses(base: type[Any]) -> Iterator[type]:
    subclass: type[Any]
    for subclass in base.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
