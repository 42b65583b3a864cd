"""Names of columns, classes and categories, which rows keep."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from pyro_vae.support.checks import described


class Names(NamedTuple):
    """Names of the numbers in rows; None where there are none.

    Arguments:
        columns: the name of each number of a row that is a vector.
        categories: the categories of a column of strings, by its name. Each has a number in a row
            that is 0 or 1, under the name `column=category`.
        classes: the names of the labels 0, 1, ….
        contexts: the name of each number of a context.
    """

    columns: tuple[str, ...] | None = None
    categories: Mapping[str, tuple[str, ...]] | None = None
    classes: tuple[str, ...] | None = None
    contexts: tuple[str, ...] | None = None

    def fields(self) -> dict[str, Any]:
        """Return the names that there are, for JSON."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "Names":
        """Return the names whose `fields` these are, as JSON gives them back."""
        others = dict(fields)
        categories = others.pop("categories", None)
        others = {name: tuple(value) for name, value in others.items()}
        if categories is None:
            return cls(**others)
        return cls(categories={name: tuple(each) for name, each in categories.items()}, **others)


def as_names(
    names: Sequence[str] | None, argument: str, size: int | None
) -> tuple[str, ...] | None:
    """Return names as a tuple.

    Arguments:
        names: the names; None for none.
        argument: the argument that an error names.
        size: how many there must be; None for any number.

    Raises:
        ValueError: if they are no strings, two are equal, or there are too few or too many.
    """
    if names is None:
        return None
    found = [names] if isinstance(names, str) else list(names)
    if isinstance(names, str) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"'{argument}' must be a list of strings, got {described(names)}.")
    if repeated := _repeated(found):
        raise ValueError(f"'{argument}' must hold different names, got {repeated!r} twice.")
    if size is not None and len(found) != size:
        raise ValueError(f"'{argument}' must hold {size} names, got {len(found)}.")
    return tuple(found)


def names_of_table(table: Any) -> list[str] | None:
    """Return the names of the columns of a table of pandas, or None for anything else.

    Columns that pandas has numbered, and columns of one name, have no names.
    """
    dtypes: Any = getattr(table, "dtypes", None)
    if not hasattr(dtypes, "items") or not hasattr(table, "columns"):
        return None
    columns = list(table.columns)
    has_names = all(isinstance(name, str) for name in columns) and not _repeated(columns)
    return columns if has_names else None


def as_categories(
    categories: Mapping[str, Sequence[str]] | None, columns: tuple[str, ...] | None
) -> dict[str, tuple[str, ...]] | None:
    """Return names of categories by column.

    Raises:
        ValueError: if a column is unknown, or the names of one are no different strings.
    """
    if not categories:
        return None
    found = {}
    for column, names in categories.items():
        found[column] = as_names(names, f"categories of {column}", None) or ()
        for name in group_names(column, found[column]):
            if name not in (columns or ()):
                raise ValueError(
                    f"'categories' must each have a column in 'column_names', got no {name!r}."
                )
    return found


def group_names(column: str, categories: Iterable[str]) -> list[str]:
    """Return the names of the numbers, 0 or 1, that stand for the categories of a column."""
    return [f"{column}={category}" for category in categories]


def original_columns(names: Names) -> tuple[str, ...]:
    """Return the columns that a table had, with one for all its categories."""
    groups: dict[str, str] = {}
    for column, categories in (names.categories or {}).items():
        groups |= dict.fromkeys(group_names(column, categories), column)
    return tuple(dict.fromkeys(groups.get(name, name) for name in names.columns or ()))


def check_classes(labels: Tensor | None, classes: tuple[str, ...] | None) -> None:
    """Refuse labels for which there is no name of a class.

    Raises:
        ValueError: if there is such a label.
    """
    if labels is None or classes is None or not len(labels):
        return
    is_class = labels.dim() == 1 and not labels.is_floating_point()
    is_named = is_class and int(labels.min()) >= 0 and int(labels.max()) < len(classes)
    if not is_named:
        received = f"labels up to {labels.max().item()}" if is_class else "labels that are vectors"
        raise ValueError(
            f"'class_names' must name the labels 0 ... {len(classes) - 1}, got {received}."
        )


def _repeated(names: Iterable[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)
