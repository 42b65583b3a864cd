"""Devices: one that this machine lacks is refused in a sentence that names those it has."""

import pytest
import torch

from pyro_vae.runs import device


@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_a_device_that_is_there_is_returned(name):
    assert torch.zeros(1, device=device(name)).item() == 0


@pytest.mark.parametrize(
    "name", ["meta", "cuda:99", "hpu", "xla", "vulkan", "gpu", "CPU", "0", "", "cuda:-1", "a b"]
)
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(
        ValueError, match=r"'device' must be auto or a device of this .*\(cpu"
    ) as caught:
        device(name)
    assert str(caught.value).endswith(f"got '{name}'.")
    assert len(str(caught.value)) < 200


def test_a_device_that_does_not_work_is_told_from_one_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("hot")))
    with pytest.raises(ValueError, match="'device' cpu does not work: hot"):
        device("cpu")
