"""Elements of a latent that count in an objective, hidden by no `poutine.mask` and no `.mask`."""

from typing import Any, TypeAlias

from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import Independent

from pyro_vae.inference.sites import Site

# True for each element that counts, in a shape that broadcasts with the value's; or one Boolean for
# all of them.
Kept: TypeAlias = Tensor | bool


def kept_elements(site: Site) -> Kept:
    """Return True for the elements of the site's value that count.

    Raises:
        ValueError: if a mask lies where it hides no elements, such as below a change of variables.
    """
    base, kept = without_masks(site["fn"])
    while hasattr(base, "base_dist"):
        base = base.base_dist
        if isinstance(base, MaskedDistribution):
            raise ValueError(
                f"'{site['name']}' must be masked by poutine.mask, or by .mask of the distribution "
                f"or of its independent elements, got a mask inside {type(site['fn']).__name__}."
            )
    return kept if site["mask"] is None else by_element(site["mask"], site["fn"].event_dim) & kept


def without_masks(distribution: Any) -> tuple[Any, Kept]:
    """Return the distribution without its masks, and the elements that these keep."""
    if isinstance(distribution, MaskedDistribution):
        base, kept = without_masks(distribution.base_dist)
        return base, by_element(distribution._mask, distribution.event_dim) & kept
    if isinstance(distribution, Independent):
        base, kept = without_masks(distribution.base_dist)
        if kept is True:
            return distribution, kept
        return base.to_event(distribution.reinterpreted_batch_ndims), kept
    return distribution, True


def by_element(value: Any, event_dim: int) -> Any:
    """Reshape one number for each event, so that it broadcasts with the elements of the events."""
    return value.reshape(value.shape + (1,) * event_dim) if isinstance(value, Tensor) else value
