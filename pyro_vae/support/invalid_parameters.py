"""Distributions that refuse their parameters, with one sentence on the network that made them."""

import re

from torch import Tensor, nn

# The error of torch and Pyro: a sentence, and all numbers of the parameter below it.
_REFUSED = re.compile(
    r"Expected parameter (?P<parameter>\w+) .* of distribution (?P<family>\w+)\(.*"
    r"but found invalid values",
    re.DOTALL,
)


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
    title = f"'{role}', a {type(part).__name__},"
    weights = [name for name, weight in part.named_parameters() if not weight.isfinite().all()]
    if weights:
        return (
            f"{title} makes no distribution, because its weights are NaN or infinite, first "
            f"'{weights[0]}': load or train others."
        )
    fault = f"'{refused['parameter']}' of its {refused['family']} is NaN or out of range"
    if not isinstance(inputs, Tensor):
        return f"{title} makes no distribution: {fault}."
    finite = inputs[inputs.isfinite()]
    if given != "x" and finite.numel() < inputs.numel():
        return f"'{given}' must be finite for '{role}', got NaN or infinity."
    span = f" from {finite.min():g} to {finite.max():g}" if finite.numel() else ""
    return (
        f"{title} makes no distribution of {given}{span}: {fault}, as the network's outputs "
        f"overflow or are no such numbers. {_ADVICE[given]}"
    )


_ADVICE = {
    "x": "Bring x to a scale near 1, by Standardized in front of the network or in the data.",
    "y": "Bring y to a scale near 1.",
    "z": "Look at the x that gave such a z, and at the scale of x.",
}
