"""Device of a run, by its name."""

import torch

from pyro_vae.support.checks import one_line


def device(name: str) -> torch.device:
    """Return the device of this name; auto is cuda if there is one, and else cpu.

    Raises:
        ValueError: if this machine has no such device, or the device does not work.
    """
    known = _known()
    if name == "auto":
        return torch.device("cuda" if "cuda" in known else "cpu")
    try:
        found = torch.device(name)
        torch.zeros(1, device=found).item()  # the name alone does not tell if the device is there
    except (AssertionError, ImportError, RuntimeError) as error:
        if name in known:
            raise ValueError(f"'device' {name} does not work: {one_line(error)}") from error
        raise ValueError(
            f"'device' must be auto or a device of this machine ({', '.join(known)}), got '{name}'."
        ) from error
    return found


def _known() -> list[str]:
    """Return the names of the devices of this machine."""
    names = ["cpu"]
    if torch.cuda.is_available():
        names += ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names.append("mps")
    if torch.xpu.is_available():
        names.append("xpu")
    return names
