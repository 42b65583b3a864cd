"""Distributions that refuse their parameters, with one sentence on the network that made them."""

import math
import re
from collections.abc import Callable

from torch import Tensor, nn

from pyro_vae.support.checks import with_article

# The error of torch and Pyro: a sentence, and all numbers of the parameter below it.
_REFUSED = re.compile(
    r"Expected parameter (?P<parameter>\w+) .* of distribution (?P<family>\w+)\(.*"
    r"to satisfy the constraint (?P<constraint>.*), but found invalid values:\s*"
    r"(tensor\((?P<values>[\[\]\s\d.,e+\-naif]*))?",
    re.DOTALL,
)
_NUMBER = re.compile(r"-?(?:inf|nan|\d+\.?\d*(?:e[+-]?\d+)?)")
# The constraints of torch in words, and a function that returns True for an accepted number.
_CONSTRAINTS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "GreaterThan(lower_bound=0.0)": ("be above 0", lambda number: number > 0),
    "GreaterThanEq(lower_bound=0.0)": ("be 0 or more", lambda number: number >= 0),
    "Interval(lower_bound=0.0, upper_bound=1.0)": (
        "lie from 0 to 1",
        lambda number: 0 <= number <= 1,
    ),
}
_FINITE = ("be finite", math.isfinite)
# Inputs beyond this can make a network overflow.
_LARGE = 1e3


class InvalidParameterError(ValueError):
    """Raised if a part makes no distribution, since its network gives NaN or infinity.

    It keeps only the first line of its message: Pyro makes the error again, with a table of shapes
    below.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.partition("\n")[0])


def sentence_on_parameters(
    part: nn.Module, role: str, given: str, inputs: Tensor | None, error: ValueError
) -> str | None:
    """Return a sentence on the numbers that a distribution refused; None for another error.

    It names what is not finite first: the weights, the inputs, or only what the network made of
    them.

    Arguments:
        part: the part that made the distribution.
        role: its name in a VAE.
        given: the name of its inputs.
        inputs: the inputs, if it has any.
        error: the error of the distribution.
    """
    refused = _REFUSED.search(str(error))
    if refused is None:
        return None
    title = f"'{role}', {with_article(type(part).__name__)},"
    weights = [name for name, weight in part.named_parameters() if not weight.isfinite().all()]
    if weights:
        return (
            f"{title} makes no distribution, because its weights are NaN or infinite, first "
            f"'{weights[0]}': load or train others."
        )
    rule, holds = _CONSTRAINTS.get(refused["constraint"], _FINITE)
    if holds is math.isfinite and "Real" not in refused["constraint"]:
        rule = f"satisfy {refused['constraint']}"
    numbers = map(float, _NUMBER.findall(refused["values"] or ""))
    wrong = next((number for number in numbers if not holds(number)), None)
    received = "" if wrong is None else f", got {_in_words(wrong)}"
    fault = f"'{refused['parameter']}' of its {refused['family']} must {rule}{received}."
    if not isinstance(inputs, Tensor):
        return f"{title} makes no distribution: {fault}"
    finite = inputs[inputs.isfinite()]
    if given != "x" and finite.numel() < inputs.numel():
        return f"'{given}' must be finite for '{role}', got NaN or infinity."
    span = f" of {given} from {finite.min():g} to {finite.max():g}" if finite.numel() else ""
    may_overflow = wrong is None or not math.isfinite(wrong)
    is_large = finite.numel() and finite.abs().max() > _LARGE
    advice = f" {_ADVICE[given]}" if may_overflow and is_large else ""
    return f"{title} makes no distribution{span}: {fault}{advice}"


def _in_words(number: float) -> str:
    return "NaN" if math.isnan(number) else f"{number:g}"


_ADVICE = {
    "x": "Bring x to a scale near 1, by Standardized in front of the network.",
    "y": "Bring y to a scale near 1.",
    "z": "Look at the x that gave such a z.",
}
