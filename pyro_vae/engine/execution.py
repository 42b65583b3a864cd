"""Execution: plain, traced or compiled, and the precision of matrix products."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pyro_vae.support.arguments import arguments_checked

Compile: TypeAlias = bool | Literal["auto"]
Precision: TypeAlias = Literal["float32", "bfloat16"]


@arguments_checked
@dataclass(frozen=True)
class Execution:
    """Settings for running a function of tensors: as written, replayed from a trace, or compiled.

    Arguments:
        trace: record the function once and replay it, with the same results; False runs it as
            written.
        compile: compile the trace at once, for the first signature of the arguments (True), never
            (False), or if it pays ("auto": in runs that save more time than it takes). Compiled
            code gives the same results up to rounding. A run that is resumed for more steps may be
            compiled even if it was not before. Without a C++ compiler the trace is replayed.
        precision: the precision of the matrix products in the trace; "bfloat16" rounds the factors
            of large ones.

    Raises:
        ValueError: if a setting is unknown, or needs a trace and `trace` is False.

    Example:
        >>> Execution(precision="bfloat16")
        Execution(trace=True, compile='auto', precision='bfloat16')
    """

    trace: bool = True
    compile: Compile = "auto"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.trace:
            return
        if self.compile is True:
            raise ValueError("'trace' must be True for compile=True, got False.")
        if self.precision != "float32":
            raise ValueError(f"'trace' must be True for precision={self.precision!r}, got False.")


def check_execution(execution: Any) -> None:
    """Refuse settings that are no `Execution`.

    Raises:
        ValueError: if they are something else.
    """
    if not isinstance(execution, Execution):
        raise ValueError(
            "'execution' must be an Execution, such as Execution(compile=False), got "
            f"{execution!r}."
        )
