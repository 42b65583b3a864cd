"""Arguments of model and guide: failures of the two on them, said in one sentence."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pyro_vae.engine.containers import is_object
from pyro_vae.engine.failures import is_raised_by, walk_tracebacks
from pyro_vae.inference.programs import Programs
from pyro_vae.inference.refusals import failing_site, site_without_distribution, what_fails
from pyro_vae.support.checks import as_int, described, nearest

# The errors that wrong arguments can cause.
FAILURES = (AttributeError, TypeError, ValueError, RuntimeError, IndexError)
# Words of torch for a tensor of a kind that an operation does not take, and for one of a shape.
_KIND = re.compile(
    "dtype|scalar type|should be the same|not implemented for|Could not run|device|meta tensor|"
    "[Ss]parse|[Cc]omplex"
)
_SHAPE = re.compile(
    "shape|size|dimension|dim |broadcast|channels|too many indices|out of range|out of bounds"
)

P = ParamSpec("P")
R = TypeVar("R")


def takes_programs(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function of model, guide and their arguments say in a sentence if the two fail.

    The arguments are handed on untouched.
    """
    parameters = inspect.signature(function).parameters.values()
    by_name = [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    own = [parameter.name for parameter in by_name]
    required = [parameter.name for parameter in by_name if parameter.default is parameter.empty]

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, program in zip(("model", "guide"), args, strict=False):
            check_program(program, name)
        absent = [name for name in required if name not in kwargs]
        if absent and len(args) >= 2:
            raise TypeError(
                f"'{absent[0]}' must be given by its name, as in {function.__name__}(model, guide, "
                f"..., {absent[0]}=100)."
            )
        try:
            return function(*args, **kwargs)
        except FAILURES as error:
            given: Any = args
            if len(given) < 2:
                raise
            passed = {name: value for name, value in kwargs.items() if name not in own}
            raise_plainly(error, Programs(given[0], given[1], given[2:], passed), own)

    return run


def check_program(program: Any, name: str) -> None:
    """Refuse what cannot be a model or a guide.

    Raises:
        ValueError: if it cannot be called with data.
    """
    is_unfinished = isinstance(program, nn.Module) and _never_returns(type(program).forward)
    if callable(program) and not isinstance(program, type) and not is_unfinished:
        return
    method = getattr(program, name, None)
    hint = f": pass its method '{name}'" if callable(method) else ""
    if isinstance(program, type):
        hint = ": pass an object of it"
    raise ValueError(
        f"'{name}' must be a Pyro program, a function of the data, got {described(program)}{hint}."
    )


def _never_returns(forward: Callable) -> bool:
    """Return True for the `forward` of a module that cannot be called itself."""
    return forward is nn.Module.forward or forward.__annotations__.get("return") is NoReturn


def check_tensor(value: Any, name: str) -> None:
    """Refuse what is no tensor.

    Raises:
        ValueError: if it is something else.
    """
    if not isinstance(value, Tensor):
        raise ValueError(f"'{name}' must be a tensor, got {described(value)}.")


def raise_plainly(error: Exception, programs: Programs, own: list[str] | None = None) -> NoReturn:
    """Raise an error of a program, in one sentence if its arguments are to blame.

    Any other error is raised as it is, without the table that Pyro appends to it.

    Arguments:
        error: the error.
        programs: model and guide with their arguments.
        own: names of keywords that do not reach the programs.
    """
    root = _before_tables(error)
    if is_raised_by(root, "pyro_vae"):
        plain = None
    else:
        plain = (
            _of_signature(root, programs, own or [])
            or _of_site(root)
            or _of_type(root, programs)
            or _of_kind(root, programs)
            or _of_shape(root, programs)
            or _of_distribution(root)
        )
    if plain is not None:
        raise plain from root
    if root is error:
        raise error
    raise root from None


def _before_tables(error: BaseException) -> BaseException:
    """Return the error to which Pyro appended tables of shapes."""
    while isinstance(error.__cause__, type(error)) and "Trace Shapes:" in str(error):
        error = error.__cause__
    return error


def _of_signature(error: BaseException, programs: Programs, own: list[str]) -> Exception | None:
    """Return the sentence for arguments that a program has no parameters for."""
    if not isinstance(error, TypeError):
        return None
    for name in ("guide", "model"):
        program = getattr(programs, name)
        try:
            signature = inspect.signature(program)
        except (TypeError, ValueError):  # it has none
            continue
        try:
            signature.bind(*programs.args, **programs.kwargs)
        except TypeError as reason:
            unknown = [key for key in programs.kwargs if key not in signature.parameters]
            close = nearest(unknown[0], [*signature.parameters, *own]) if unknown else ""
            if own and "too many positional" in str(reason) and as_int(programs.args[-1]):
                close = f": give {' or '.join(own)} by name"
            return TypeError(f"'{name}' cannot take the arguments that it gets: {reason}{close}.")
    return None


def _of_site(error: BaseException) -> Exception | None:
    """Return the sentence for a site with another object in place of a distribution."""
    site = site_without_distribution(error) if isinstance(error, AttributeError) else None
    if site is None:
        return None
    return TypeError(
        f"The site '{site['name']}' must have a distribution, got {described(site['fn'])}."
    )


def _of_type(error: BaseException, programs: Programs) -> Exception | None:
    """Return the sentence for an argument that lacks what the program asks of it.

    A tensor, an object of the user's own class and the kind of a default are what it asks for.
    """
    if not isinstance(error, TypeError | AttributeError):
        return None
    asked = getattr(error, "obj", None)
    words = set(re.findall(r"\w+", str(error)))
    defaults = _kinds_of_defaults(programs)
    for name, value in _named(programs):
        if isinstance(value, Tensor | defaults.get(name, Tensor)) or _is_own(value):
            continue
        is_named = asked is None and type(value).__name__ in words
        if is_named or (asked is not None and value is asked):
            return TypeError(
                f"'{name}' must be a value that model and guide can use, such as a tensor, got "
                f"{described(value)}: {what_fails(error)}."
            )
    return None


def _of_kind(error: BaseException, programs: Programs) -> Exception | None:
    """Return the sentence for tensors of another dtype, device or layout than the weights."""
    message = str(error)
    if not isinstance(error, RuntimeError):
        return None
    if "nference tensor" in message:
        return _of_inference_mode(error, programs)
    if "does not have a grad_fn" in message and torch.is_inference_mode_enabled():
        return RuntimeError(
            "The densities must have gradients, which torch.inference_mode() takes away: make the "
            "call outside of it."
        )
    if not _KIND.search(message):
        return None
    like = _weight(error)
    of = "" if like is None else " of the weights"
    like = torch.empty(0) if like is None else like
    for name, value in _named(programs):
        for tensor in _tensors(value):
            if tensor.layout != torch.strided:
                return TypeError(f"'{name}' must be a dense tensor, got {tensor.layout}.")
            if tensor.device != like.device:
                return TypeError(
                    f"'{name}' must be on the device {like.device}{of}, got {tensor.device}."
                )
            if tensor.dtype != like.dtype and _type_name(tensor) in message.lower():
                return TypeError(
                    f"'{name}' must have the dtype {like.dtype}{of}, got {tensor.dtype}: "
                    f"{what_fails(error)}."
                )
    return None


def _of_inference_mode(error: BaseException, programs: Programs) -> Exception:
    for name, value in _named(programs):
        if any(tensor.is_inference() for tensor in _tensors(value)):
            return TypeError(
                f"'{name}' must allow gradients, got a tensor made under torch.inference_mode(): "
                f"pass {name}.clone()."
            )
    return TypeError(
        "'model' and 'guide' must have parameters that allow gradients, got some made under "
        "torch.inference_mode(): make them outside."
    )


def _of_shape(error: BaseException, programs: Programs) -> Exception | None:
    """Return the sentence for shapes that do not fit."""
    if not isinstance(error, RuntimeError | IndexError) or not _SHAPE.search(str(error)):
        return None
    shapes = [
        f"{name} {tuple(tensor.shape)}"
        for name, value in _named(programs)
        for tensor in _tensors(value)
    ]
    if not shapes:
        return None
    return ValueError(
        "'model' and 'guide' must fit the shapes of their arguments, got "
        f"{', '.join(shapes)}: {what_fails(error)}."
    )


def _of_distribution(error: BaseException) -> Exception | None:
    """Return the sentence for an error of a library that names a site or goes over many lines."""
    is_long = "\n" in str(error) or failing_site(error) is not None
    if not is_long or not is_raised_by(error, "torch", "pyro"):
        return None
    kind = ValueError if isinstance(error, ValueError) else RuntimeError
    return kind(f"{what_fails(error)}.")


def _type_name(tensor: Tensor) -> str:
    """Return torch's other name of a dtype, such as "double" for float64."""
    return tensor.type().rpartition(".")[2].removesuffix("Tensor").lower()


def _named(programs: Programs) -> Iterator[tuple[str, Any]]:
    """Yield the arguments with the names that the guide or the model gives them."""
    for program in (programs.guide, programs.model):
        try:
            bound = inspect.signature(program).bind(*programs.args, **programs.kwargs)
        except (TypeError, ValueError):
            continue
        for name, value in bound.arguments.items():
            kind = bound.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                yield from ((f"{name}[{place}]", part) for place, part in enumerate(value))
            elif kind is inspect.Parameter.VAR_KEYWORD:
                yield from value.items()
            else:
                yield name, value
        return


def _kinds_of_defaults(programs: Programs) -> dict[str, type]:
    """Return the types of the defaults that the parameters of guide and model have, by name."""
    kinds = {}
    for program in (programs.guide, programs.model):
        try:
            parameters = inspect.signature(program).parameters.values()
        except (TypeError, ValueError):
            continue
        for each in parameters:
            if each.default is not each.empty:
                kinds[each.name] = type(each.default)
    return kinds


def _is_own(value: Any) -> bool:
    """Return True for an object of a class that the user wrote, outside installed packages."""
    module = sys.modules.get(type(value).__module__)
    file = getattr(module, "__file__", None) or ""
    return is_object(value) and "-packages" not in file


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def _weight(error: BaseException) -> Tensor | None:
    """Return a parameter of the innermost module with parameters that the error came through."""
    for call in reversed(list(walk_tracebacks(error))):
        module = call.tb_frame.f_locals.get("self")
        if isinstance(module, nn.Module):
            for parameter in module._parameters.values():
                if parameter is not None:
                    return parameter
    return None
