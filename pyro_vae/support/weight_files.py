"""Files with the weights of a module, which only a module of the same architecture reads."""

import hashlib
import warnings
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.support.checks import described, with_article
from pyro_vae.support.files import as_path, read_tensors, writable_file, write_atomically
from pyro_vae.support.modules import not_finite, state_difference

# Increase the number if a change makes older code misread a file.
_FORMAT = "weights of pyro_vae, format 1"
_KEYS = {"format", "repr", "classes", "architecture", "weights", "digest"}


def save_weights(module: nn.Module, path: str | PathLike) -> None:
    """Write the weights of a module, its repr and a hash of its architecture to a file.

    An existing file is replaced only if this function wrote it.

    Arguments:
        module: the module.
        path: the file; folders on the way to it are made.

    Raises:
        ValueError: if weights are NaN or infinite, or the file cannot be written; nothing is
            written then.
    """
    weights = module.state_dict()
    bad = not_finite(module, weights)
    if bad is not None:
        name = type(module).__name__
        raise ValueError(f"This {name} must have finite weights, got NaN or infinity in '{bad}'.")
    file = writable_file(_plain(path), "path", _is_own)
    classes = _classes(module)
    content: dict[str, Any] = {
        "format": _FORMAT,
        "repr": repr(module),
        "classes": classes,
        "architecture": architecture(module),
        "weights": dict(weights),
    }
    content["digest"] = _digest(_all_bytes(content))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda opened: torch.save(content, opened))


def load_weights(module: nn.Module, path: str | PathLike) -> None:
    """Give a module the weights in a file of `save_weights`, without running code of the file.

    It warns if the file comes from a module with the same architecture and other arguments.

    Arguments:
        module: a module of the same architecture; after an error it is as it was.
        path: the file.

    Raises:
        ValueError: if the file is missing, damaged or of another kind; if the architecture differs;
            if weights are NaN or infinite.
    """
    file = as_path(_plain(path), "path", "file")
    content = _read(file)
    weights = content["weights"]
    difference = _difference(module, content)
    if difference is not None:
        raise ValueError(
            f"{file} must hold the weights of this {type(module).__name__}, but {difference}"
        )
    bad = not_finite(module, weights)
    if bad is not None:
        raise ValueError(f"{file} must hold finite weights, got NaN or infinity in '{bad}'.")
    module.load_state_dict(weights)
    differing = _first_other_line(content["repr"], repr(module))  # buffers may be part of the repr
    if differing is not None:
        then, now = differing
        warnings.warn(
            f"{file} was saved from a {type(module).__name__} with other arguments: {then!r} there "
            f"is {now!r} here.",
            stacklevel=4,
        )


def architecture(module: nn.Module) -> str:
    """Return a hash of the names and classes of all submodules, and names and shapes of weights.

    Modules with the same hash can read each other's weights.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in _tensors(module.state_dict())}
    return _digest([repr(sorted(_classes(module).items())).encode(), repr(shapes).encode()])


def _read(file: Path) -> dict[str, Any]:
    """Return the content of a file, if it is whole and `save_weights` wrote it."""
    if file.is_dir():
        is_run = (file / "run.json").is_file()
        advice = f": use pyro_vae.load({str(file)!r})" if is_run else ""
        raise ValueError(f"'path' must be a file of weights, got the folder {file}{advice}.")
    if not file.is_file():
        raise ValueError(f"'path' must be a file of weights, got {file}, which does not exist.")
    content: Any = read_tensors(file)
    if isinstance(content, dict) and str(content.get("format")).startswith(_FORMAT[:-1]):
        if content["format"] != _FORMAT:
            raise ValueError(
                f"{file} must be {_FORMAT}, got {content['format']}: a newer pyro_vae wrote it."
            )
        if content.keys() == _KEYS and content["digest"] == _digest(_all_bytes(content)):
            return content
        raise ValueError(f"{file} must be as save wrote it, but is damaged: its hash is another.")
    raise ValueError(f"{file} must be written by save, got {_foreign(file, content)}.")


def _foreign(file: Path, content: Any) -> str:
    """Return another kind of content in words, with a way to read it."""
    if file.with_name("run.json").is_file():
        return f"a file of a run folder: use pyro_vae.load({str(file.parent)!r})"
    is_state = isinstance(content, dict) and all(map(torch.is_tensor, content.values()))
    if is_state and content:
        return "a state dict: use load_state_dict(torch.load(path))"
    return described(content)


def _is_own(file: Path) -> bool:
    """Return True if a file may be replaced: it is empty, or `save_weights` wrote it."""
    if not file.stat().st_size:
        return True
    try:
        content: Any = read_tensors(file)
    except ValueError:
        return False
    return isinstance(content, dict) and content.keys() == _KEYS


def _difference(module: nn.Module, content: dict[str, Any]) -> str | None:
    """Return the first difference between a file's architecture and that of a module, in words."""
    if content["architecture"] == architecture(module):
        return None
    here = _classes(module)
    there = content["classes"]
    for name, kind in here.items():
        if there.get(name, kind) != kind:
            place = f"'{name}'" if name else "it"
            return f"{place} is {with_article(kind)} here, and {with_article(there[name])} there."
    difference = state_difference(module, content["weights"])
    if difference is not None:
        return difference
    missing = [name for name in here if name not in there]
    further = [name for name in there if name not in here]
    if missing:
        return f"it lacks '{missing[0]}'."
    return f"it has '{further[0]}', which this module has not."


def _first_other_line(there: str, here: str) -> tuple[str, str] | None:
    """Return the first line of two texts that differs."""
    pairs = zip(there.splitlines(), here.splitlines(), strict=False)
    return next(((a.strip(), b.strip()) for a, b in pairs if a != b), None)


def _classes(module: nn.Module) -> dict[str, str]:
    """Return the name of the class of each submodule; a class may move to another file."""
    return {name: type(part).__name__ for name, part in module.named_modules()}


def _tensors(weights: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in weights.items() if isinstance(value, Tensor))


def _all_bytes(content: dict[str, Any]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of all that a file holds, except its hash."""
    weights = content["weights"]
    yield repr([content[name] for name in ("format", "repr", "classes", "architecture")]).encode()
    for name, tensor in _tensors(weights):
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _digest(parts: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _plain(path: str | PathLike) -> str | Path:
    return path if isinstance(path, str) else Path(path)
