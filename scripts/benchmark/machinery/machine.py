"""Facts of the machine and the versions behind the numbers."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "torchvision", "pyro-ppl", "numpyro", "jax", "numpy", "pyro_vae")


def machine_facts(threads: int) -> dict[str, Any]:
    """Return the processor, its cores, the threads of a contestant, and versions."""
    versions = {name: found for name in _PACKAGES if (found := installed(name))}
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def processor() -> str:
    """Return the processor's name, as far as the system tells."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def installed(name: str) -> str | None:
    """Return the version of a package, if it is there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
