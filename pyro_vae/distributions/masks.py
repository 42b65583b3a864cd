"""Masks: p(x | z) of the observed entries of x alone."""

from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Independent

from pyro_vae.distributions.densities import Concatenation


def masked(p_x: TorchDistribution, observed: Tensor) -> TorchDistribution:
    """p(x_observed | z), as a distribution of x whose log-density leaves out all entries that are not observed.

    The mask lies under the `to_event`, on each entry. What has a joint distribution, such as a one-hot vector, is left out
    as a whole where any of it is missing: see `check_whole`. A value inside the support must stand in place of a missing
    entry before it is scored: the mask alone would give NaN gradients.

    Arguments:
        p_x: p(x | z), with event shape `x_shape`.
        observed: True where x is observed; `(*, *x_shape)`.
    """
    if isinstance(p_x, Concatenation):
        return Concatenation([masked(part, entries) for part, entries in _by_part(p_x, observed)])
    base = _innermost(p_x)
    return base.mask(_by_event(base, observed).all(-1)).to_event(p_x.event_dim - base.event_dim)


def check_whole(p_x: TorchDistribution, observed: Tensor) -> None:
    """Refuse an x in which a part of what has a joint distribution is missing, and a part is not.

    Raises:
        ValueError: there is one.
    """
    if isinstance(p_x, Concatenation):
        for part, entries in _by_part(p_x, observed):
            check_whole(part, entries)
        return
    base = _innermost(p_x)
    events = _by_event(base, observed)
    if (events.any(-1) & ~events.all(-1)).any():
        raise ValueError(
            f"'x' must be missing as a whole or not at all in each event of {type(base).__name__}, which has "
            f"{events.shape[-1]} numbers, got NaN in some of them."
        )


def _by_part(p_x: Concatenation, observed: Tensor) -> list[tuple[TorchDistribution, Tensor]]:
    """Each part with its own numbers of the last axis."""
    sizes = [part.event_shape[0] for part in p_x.parts]
    return list(zip(p_x.parts, observed.split(sizes, dim=-1), strict=True))


def _innermost(p_x: TorchDistribution) -> TorchDistribution:
    """What the distribution is a product of."""
    while isinstance(p_x, Independent):
        p_x = p_x.base_dist
    return p_x


def _by_event(base: TorchDistribution, observed: Tensor) -> Tensor:
    """The mask with the numbers of one event along the last axis."""
    return observed.unsqueeze(-1) if base.event_dim == 0 else observed.flatten(observed.dim() - base.event_dim)
