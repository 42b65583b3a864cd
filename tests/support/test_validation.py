"""Validation that is switched for a block, with the flags of torch and Pyro apart."""

import pyro
import pytest
import torch
from torch.distributions import Distribution

from pyro_vae.engine import trace
from pyro_vae.support.validation import validating


@pytest.fixture
def only_torch_is_off():
    Distribution.set_default_validate_args(False)
    yield
    Distribution.set_default_validate_args(True)


@pytest.mark.usefixtures("only_torch_is_off")
@pytest.mark.parametrize("is_on", [True, False])
def test_both_flags_are_restored_even_if_they_differ(is_on):
    with validating(is_on):
        assert Distribution._validate_args is pyro.poutine.is_validation_enabled() is is_on
    assert Distribution._validate_args is False
    assert pyro.poutine.is_validation_enabled()


@pytest.mark.usefixtures("only_torch_is_off")
def test_a_trace_leaves_the_flag_of_torch():
    trace(lambda x: (x.sin(),), [torch.zeros(2)])
    assert Distribution._validate_args is False
