"""Sources of data, and the rows for training, validation and test that come from one."""

import warnings
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import NamedTuple

import torch

from pyro_vae.data.arrays import observed
from pyro_vae.data.rows import Rows
from pyro_vae.data.storage import distinct
from pyro_vae.data.transforms import Transform
from pyro_vae.support.checks import described, instance, real
from pyro_vae.support.methods_of_users import called, returned, wrong_result
from pyro_vae.support.streams import stream_seed
from pyro_vae.support.tables import shown_in_short


@shown_in_short
class Splits(NamedTuple):
    """Rows for training, for validation (stopping and choosing, if any) and for the test."""

    train: Rows
    validation: Rows | None
    test: Rows


class Source(ABC):
    """Source of data.

    A subclass defines `read`. A setting that names a file must be called `path`, since run folders
    allow no other file names.

    Attributes:
        max_level: the highest level of a file of further rows; None to infer it.
        channels_last: the setting of `Rows` for such a file.
        labels_are_contexts: True if labels are there only to be contexts, so that a warning tells
            when they are not used.
    """

    max_level: float | None = None
    channels_last: bool | None = None
    labels_are_contexts: bool = False

    @abstractmethod
    def read(self) -> tuple[Rows, Rows]:
        """Return the training rows and the test rows, as they are stored."""


def read_source(source: Source) -> tuple[Rows, Rows]:
    """Return the training rows and the test rows of a source.

    Raises:
        ValueError: if its `read` returns something else, or rows of two shapes.
    """
    accepted = "the training rows and the test rows, two Rows"
    parts = called(source, "read")
    if not isinstance(parts, tuple | list) or len(parts) != 2:
        raise wrong_result(source, "read", accepted, described(parts))
    train, test = (returned(rows, Rows, source, "read", accepted) for rows in parts)
    if train.x_shape != test.x_shape:
        received = f"{tuple(train.x_shape)} and {tuple(test.x_shape)}"
        raise wrong_result(source, "read", "training and test rows of one shape", received)
    return train, test


def limited(rows: Rows, max_level: float | None) -> Rows:
    """Return the rows with another highest level; None keeps it.

    Raises:
        ValueError: if a level exceeds it.
    """
    if max_level is None:
        return rows
    highest = max(observed(part).max().item() for part in distinct(rows.levels))
    if highest > max_level:
        raise ValueError(
            f"'max_level' must be at least the highest level of the data, {highest:g}, got "
            f"{max_level:g}."
        )
    return replace(rows, max_level=max_level)


def warn_of_unused_labels(source: Source, rows: Rows, context_dim: int) -> None:
    """Warn of contexts in a file of the user that no part of a VAE takes.

    Arguments:
        source: the source of the rows.
        rows: the rows.
        context_dim: the size of the context that the VAE takes.
    """
    name = "y" if source.labels_are_contexts and rows.labels is not None else None
    if rows.contexts is not None:
        name = "context"
    if name is not None and not context_dim:
        place = getattr(source, "path", type(source).__name__)
        warnings.warn(
            f"'{name}' in {place} is not used, since no network takes a context: set "
            "'context_dim' of the networks to use it.",
            stacklevel=2,
        )


def split(rows: Rows, fraction: float, seed: int, name: str) -> tuple[Rows, Rows]:
    """Split rows at random into two parts.

    Arguments:
        rows: the rows.
        fraction: the share of the second part.
        seed: names the random stream.
        name: the argument that an error names.

    Raises:
        ValueError: if a part would be empty.
    """
    if len(rows) == 1:
        raise ValueError(f"'data' must have at least 2 rows for a split by '{name}', got 1.")
    share = real(fraction, name)
    if not 0 < share < 1:
        raise ValueError(f"'{name}' must be a share of the rows between 0 and 1, got {fraction}.")
    second = round(len(rows) * share)
    if not 0 < second < len(rows):
        raise ValueError(
            f"'{name}' must leave rows on both sides of a split of {len(rows)}, got {fraction}."
        )
    generator = torch.Generator().manual_seed(stream_seed(seed))
    order = torch.randperm(len(rows), generator=generator)
    return rows.take(order[second:]), rows.take(order[:second])


def load_splits(
    source: Source,
    transform: Transform,
    validation_fraction: float = 0.0,
    seed: int = 0,
    max_level: float | None = None,
) -> Splits:
    """Read a source, split validation rows from the training rows, and add the transform.

    Arguments:
        source: the source of the data.
        transform: makes x from the stored levels.
        validation_fraction: the share of the training rows for validation; 0 for none.
        seed: names the random stream that chooses these rows.
        max_level: the highest possible level; that of the source when omitted.

    Raises:
        ValueError: if the data cannot be used, a level exceeds `max_level`, or a part would be
            empty.
    """
    instance(source, Source, "source", "Digits() or ArrayFile(path)")
    instance(transform, Transform, "transform", "Identity()")
    train, test = (limited(rows, max_level) for rows in read_source(source))
    return split_rows(train, test, transform, validation_fraction, seed)


def split_rows(
    train: Rows, test: Rows, transform: Transform, validation_fraction: float, seed: int
) -> Splits:
    """Return rows that are already read as `load_splits` does.

    Raises:
        ValueError: if all training rows are equal, or a part would be empty.
    """
    train.check_varied()
    validation = None
    if validation_fraction != 0:
        train, validation = split(train, validation_fraction, seed, "validation_fraction")
    held_out = None if validation is None else transformed(validation, transform, 1)
    return Splits(transformed(train, transform, 0), held_out, transformed(test, transform, 2))


def transformed(rows: Rows, transform: Transform, part: int) -> Rows:
    """Return rows with a transform; `part` is 0 for training, 1 for validation, 2 for test rows."""
    return replace(rows, transform=transform, part=part)
