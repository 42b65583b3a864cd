"""Masks: p(x | z) of only the observed entries of x."""

from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Independent

from pyro_vae.distributions.densities import Concatenation


def masked(p_x: TorchDistribution, observed: Tensor) -> TorchDistribution:
    """Return p(x_observed | z), a distribution of x whose log-density omits missing entries.

    The mask lies under the `to_event`, on each entry. A joint event, such as a one-hot vector, is
    omitted as a whole if any part of it is missing: see `check_whole`. Before x is scored, its
    missing entries must be replaced by values inside the support: the mask alone would give NaN
    gradients.

    Arguments:
        p_x: p(x | z), with event shape `x_shape`.
        observed: the mask, `(*, *x_shape)`, True for observed entries.
    """
    if isinstance(p_x, Concatenation):
        return Concatenation([masked(part, entries) for part, entries in _by_part(p_x, observed)])
    base = _innermost(p_x)
    return base.mask(_by_event(base, observed).all(-1)).to_event(p_x.event_dim - base.event_dim)


def check_whole(p_x: TorchDistribution, observed: Tensor) -> None:
    """Refuse an x in which only a part of a joint event is missing.

    Arguments:
        p_x: p(x | z), with event shape `x_shape`.
        observed: the mask, `(*, *x_shape)`, True for observed entries.

    Raises:
        ValueError: if an event is partly missing.
    """
    if isinstance(p_x, Concatenation):
        for part, entries in _by_part(p_x, observed):
            check_whole(part, entries)
        return
    base = _innermost(p_x)
    events = _by_event(base, observed)
    if (events.any(-1) & ~events.all(-1)).any():
        raise ValueError(
            "'x' must be missing as a whole or not at all in each event of "
            f"{type(base).__name__}, which has {events.shape[-1]} numbers, got NaN in some of "
            "them."
        )


def _by_part(p_x: Concatenation, observed: Tensor) -> list[tuple[TorchDistribution, Tensor]]:
    """Pair each part with its own numbers of the last axis."""
    sizes = [part.event_shape[0] for part in p_x.parts]
    return list(zip(p_x.parts, observed.split(sizes, dim=-1), strict=True))


def _innermost(p_x: TorchDistribution) -> TorchDistribution:
    """Return the base distribution inside all `to_event`s."""
    while isinstance(p_x, Independent):
        p_x = p_x.base_dist
    return p_x


def _by_event(base: TorchDistribution, observed: Tensor) -> Tensor:
    """Return the mask with the numbers of one event along the last axis."""
    if base.event_dim == 0:
        return observed.unsqueeze(-1)
    return observed.flatten(observed.dim() - base.event_dim)
