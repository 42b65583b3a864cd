"""Numbers of a network that stay finite once a distribution takes their exponential."""

from torch import Tensor

# Numbers that a network gives for a posterior are held within this: as a loc it is far out, and its square is finite.
HIGHEST_OUTPUT = 1e6
# No optimum lies out here: exp(10) is 22,026 times the unit of what is scaled.
HIGHEST_LOG = 10.0
# Nor here, for logs of rates and of scales in the units of x: exp(30) is far beyond all counts that
# single precision can tell apart.
HIGHEST_LOG_OF_DATA = 30.0


def soft_ceiling(log: Tensor, highest: float = HIGHEST_LOG) -> Tensor:
    """Return the log as it is up to `highest`, and from there a curve that rises more and more slowly to `highest` + 1.

    With e = log − highest > 0 it is highest + 1 − 1 / (1 + e), whose slope 1 / (1 + e)² leads back: a clamp has none.
    """
    excess = (log - highest).relu()
    return log.clamp(max=highest) + (1 - 1 / (1 + excess))
