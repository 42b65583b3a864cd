"""Validation of distributions and programs, switched for a block."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
from torch.distributions import Distribution


@contextmanager
def validating(is_on: bool) -> Iterator[None]:
    """Switch the validation of torch and Pyro for a block, and restore both afterwards.

    Pyro itself would set the flag of torch to its own, and the caller may have set only one.
    """
    of_torch = Distribution._validate_args
    try:
        with pyro.validation_enabled(is_on):
            yield
    finally:
        Distribution.set_default_validate_args(of_torch)
