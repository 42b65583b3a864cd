"""A function of tensors: as written, replayed from a trace, or compiled."""

from pyro_vae.engine.program import Compile, Precision, Program
from pyro_vae.engine.tracing import NotTraceableError, trace

__all__ = [
    "Compile",
    "NotTraceableError",
    "Precision",
    "Program",
    "trace",
]
