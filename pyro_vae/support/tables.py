"""Results as a notebook shows them: a short repr, and tables in HTML."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from html import escape
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

C = TypeVar("C", bound=type)

# Elements of a sequence or mapping that are shown; of longer ones only the number.
_MOST_SHOWN = 8
# Characters of a value that are shown; of longer ones only the class.
_MOST_CHARACTERS = 400


def shown_in_short(kind: C) -> C:
    """Give a NamedTuple or dataclass a short repr, with dtype and shape in place of a tensor.

    Example:
        >>> from typing import NamedTuple
        >>> from pyro_vae.support.tables import shown_in_short
        >>> @shown_in_short
        ... class Found(NamedTuple):
        ...     scores: torch.Tensor
        >>> Found(torch.zeros(1000, 2))
        Found(scores=float32[1000, 2])
    """
    kind.__repr__ = _short_repr  # type: ignore[assignment]
    return kind


def html_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str] = (),
) -> str:
    """Return a table in HTML. All text is escaped.

    Arguments:
        title: the line above the table.
        header: the names of the columns.
        rows: the cells of each row; the first one names the row.
        notes: lines under the table.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = [f"<thead><tr>{head}</tr></thead>", "<tbody>"]
    for name, *cells in rows:
        values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f"<tr><th>{escape(name)}</th>{values}</tr>")
    lines.append("</tbody>")
    caption = f"<p>{escape(title)}</p>" if title else ""
    below = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return f"<div>{caption}<table>{''.join(lines)}</table>{below}</div>"


def _short_repr(result: Any) -> str:
    parts = ", ".join(f"{name}={_shown(value)}" for name, value in _fields(result))
    return f"{type(result).__name__}({parts})"


def _fields(result: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a NamedTuple or dataclass that its repr shows, with their values."""
    shown = [each.name for each in fields(result) if each.repr] if is_dataclass(result) else None
    return ((name, getattr(result, name)) for name in shown or result._fields)


def _shown(value: Any) -> str:
    if isinstance(value, Tensor | np.ndarray):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{dtype}[{', '.join(map(str, value.shape))}]"
    is_plain = type(value) in (list, tuple, dict)
    if is_plain and len(value) > _MOST_SHOWN:
        return f"<{type(value).__name__} of {len(value)}>"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name!r}: {_shown(each)}' for name, each in value.items())}}}"
    if is_plain:
        inner = ", ".join(map(_shown, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    text = repr(value)
    return text if len(text) <= _MOST_CHARACTERS else f"<{type(value).__name__}>"
