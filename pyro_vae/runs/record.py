"""Record of a run's data, which tells whether other data are the same."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.data.arrays import dtype_name
from pyro_vae.data.names import Names
from pyro_vae.data.rows import Rows
from pyro_vae.data.storage import Levels


class DataRecord(NamedTuple):
    """Record of the rows that a run was trained and tested on, as their source gave them.

    Arguments:
        num_train: the number of training rows.
        num_validation: the number of validation rows, which were set apart from the training rows.
        num_test: the number of test rows.
        max_level: the highest possible level, before a transform changes the levels.
        dtype: the dtype of the levels.
        shape: the shape of the levels of one row.
        digest: a BLAKE2b hash of the levels, labels, contexts and names of all rows.
        names: the names of columns, categories, classes and contexts; None if there are none.
    """

    num_train: int
    num_validation: int
    num_test: int
    max_level: float
    dtype: str
    shape: tuple[int, ...]
    digest: str
    names: Names | None = None

    def fields(self) -> dict[str, Any]:
        """Return the record for JSON, without names if there are none."""
        fields = self._asdict()
        names = fields.pop("names")
        return fields if names is None else fields | {"names": names.fields()}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "DataRecord":
        """Return the record whose `fields` these are, as JSON gives them back."""
        read: dict[str, Any] = {"shape": tuple(fields["shape"])}
        if "names" in fields:
            read["names"] = Names.from_fields(fields["names"])
        return cls(**fields | read)

    def __str__(self) -> str:
        return (
            f"{self.num_train} training, {self.num_validation} validation and {self.num_test} test "
            f"rows of {self.dtype} with shape {self.shape}, highest level {self.max_level:g}, hash "
            f"{self.digest[:8]}"
        )


def data_record(train: Rows, test: Rows, num_validation: int = 0) -> DataRecord:
    """Return the record of a source's data.

    Arguments:
        train: the training rows, with the validation rows among them.
        test: the test rows.
        num_validation: how many of the training rows are set apart for validation.
    """
    return DataRecord(
        num_train=len(train) - num_validation,
        num_validation=num_validation,
        num_test=len(test),
        max_level=float(train.max_level),
        dtype=dtype_name(train.levels),
        shape=tuple(train.x_shape),
        digest=_digest(train, test),
        names=train.names if train.names.fields() else None,
    )


def _digest(*parts: Rows) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in _bytes(*parts):
        digest.update(part)
    return digest.hexdigest()


def _bytes(*parts: Rows) -> Iterator[bytes | memoryview]:
    """Yield the dtype, the shape and the numbers of the levels and labels of each part.

    Contexts and names follow if there are any.
    """
    for rows in parts:
        yield from _numbers(rows, rows.levels)
        yield from _numbers(rows, rows.labels)
        if rows.contexts is not None:
            yield from _numbers(rows, rows.contexts)
        if rows.names.fields():
            yield json.dumps(rows.names.fields()).encode()


def _numbers(rows: Rows, values: Levels | None) -> Iterator[bytes | memoryview]:
    """Yield the dtype, the shape and the numbers of the rows; "none" if there are none."""
    if values is None:
        yield b"none"
        return
    yield f"{values.dtype} {tuple(values.shape)}".encode()
    for block in rows.blocks():
        yield _one_pattern(values[block]).cpu().contiguous().view(torch.uint8).numpy().data


def _one_pattern(values: Tensor) -> Tensor:
    """Return the numbers with one bit pattern for NaN, which has many."""
    return torch.where(values.isnan(), torch.nan, values) if values.is_floating_point() else values
