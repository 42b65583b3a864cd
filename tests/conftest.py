import gc
import os

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import infer, poutine

from pyro_vae.engine import precision

# Tests run side by side, in processes that would stand in each other's way with a thread for each core.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
# New objects before a search for garbage: at Python's 700 the searches take a twentieth of all time.
_ALLOCATIONS = 50_000


def pytest_collection_finish():
    """Whatever is imported stays: to look for garbage in it after each test takes longer than most tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, 10, 10)


def global_state():
    flags = (
        dist.is_validation_enabled(),
        infer.is_validation_enabled(),
        poutine.is_validation_enabled(),
    )
    store = set(pyro.get_param_store().keys())
    return flags, store, torch.get_default_dtype(), torch.is_grad_enabled(), pyro.settings.get()


@pytest.fixture(autouse=True)
def _global_state_is_left_as_found(request):
    before = global_state()
    yield
    request.node.funcargs.clear()  # pytest would keep the VAEs of fixtures alive
    for generation in range(3):
        if global_state() != before:
            gc.collect(generation)  # what a VAE showed to the param store goes with the VAE
    assert global_state() == before


# Without a GPU `torch.manual_seed` notes a whole traceback each time, for a GPU that might come.
manual_seed = (
    torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed
)


@pytest.fixture(autouse=True)
def _seeded():
    manual_seed(0)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def every_product_counts(monkeypatch):
    """The products of small networks are rounded too."""
    monkeypatch.setattr(precision, "_PAYS_FROM", 0)
