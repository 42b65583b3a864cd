"""A function of tensors: as written, replayed from a trace, or compiled."""

from pyro_vae.engine.execution import Compile, Execution, Precision
from pyro_vae.engine.program import Program
from pyro_vae.engine.tracing import NotTraceableError, trace

__all__ = [
    "Compile",
    "Execution",
    "NotTraceableError",
    "Precision",
    "Program",
    "trace",
]
