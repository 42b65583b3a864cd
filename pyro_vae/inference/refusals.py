"""Numbers that a distribution refuses: the site, and the first such number with its place."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pyro import poutine
from torch import Tensor
from torch.distributions import Distribution, constraints

from pyro_vae.engine.failures import first_line, users_line, walk_tracebacks
from pyro_vae.inference.sites import Site, sample_sites
from pyro_vae.inference.soundness import scored

# The names under which Pyro and this package hold the site whose density they compute.
_SITES = ("site", "model_site", "guide_site", "msg")
# The beginnings of the names of plates that Pyro and this package add.
_PLATES = ("_", "pyro_vae.")
# The longest support that is repeated; its bounds may be tensors.
_LONGEST = 50


def check_observed(trace: poutine.Trace) -> None:
    """Refuse observed numbers outside a support that does not depend on the latents.

    Distributions without validation, and masked ones, accept all numbers.

    Raises:
        ValueError: if a distribution refuses a number.
    """
    for site in sample_sites(trace):
        if site["is_observed"]:
            for fn, value, mask in scored(site["fn"], site["value"], site["mask"]):
                if fn._validate_args and mask is None and _has_constant_support(fn):
                    fn.log_prob(value)


def failing_site(error: BaseException) -> Site | None:
    """Return the site whose density an error came through, or None."""
    return next((site for site, of in _sites(error) if "log_prob" in of or of == _CHECK), None)


def site_without_distribution(error: BaseException) -> Site | None:
    """Return a site with another object in place of a distribution, or None."""
    sites = (site for site, _ in _sites(error))
    return next((site for site in sites if not hasattr(site["fn"], "log_prob")), None)


def _sites(error: BaseException) -> Iterator[tuple[Site, str]]:
    """Yield the sites in the calls that an error came through, each with the called function."""
    for call in reversed(list(walk_tracebacks(error))):
        for name in _SITES:
            site = call.tb_frame.f_locals.get(name)
            if isinstance(site, dict) and site.get("type") == "sample":
                yield site, call.tb_frame.f_code.co_name


def what_fails(error: BaseException) -> str:
    """Return the failure of an operation in one line.

    It names the site whose density is computed, or else the user's line. Of the numbers that a
    distribution refuses it shows the first.
    """
    site = failing_site(error)
    refused = _refused(error)
    what = first_line(error) if refused is None else refused.sentence(site)
    lines = map(str.strip, str(error).splitlines())
    shapes = [line for line in lines if line.startswith("Expected [")]
    if shapes:  # Pyro's check of a log-density
        what += f" ({shapes[0]}): put it into a plate or add .to_event"
    if site is None:
        return f"{what}{users_line(error)}"
    return f"Error while computing log_prob at site '{site['name']}': {what}"


class _Refused(NamedTuple):
    """Numbers that a distribution refuses, and its sentence on them.

    Arguments:
        said: the sentence of torch on a parameter, or of this module on a value.
        accepted: the constraint.
        numbers: the parameter or value.
        is_valid: True for each number, or vector of numbers, that is accepted.
    """

    said: str
    accepted: Any
    numbers: Tensor
    is_valid: Tensor

    def sentence(self, site: Site | None) -> str:
        """Return the sentence with the first refused number and its place."""
        index = tuple((~self.is_valid).nonzero()[0].tolist())
        event = self.numbers.shape[self.numbers.dim() - self.accepted.event_dim :]
        first = self.numbers.expand(self.is_valid.shape + event)[index]
        shown = "a vector outside" if event else f"{first.item():g}"
        return f"{self.said} {shown}{_place(index, self.accepted.event_dim, site)}"


def _refused(error: BaseException) -> _Refused | None:
    """Return the numbers that torch's validation refused, or None for another error."""
    calls = list(walk_tracebacks(error))
    found: dict[str, Any] = calls[-1].tb_frame.f_locals if calls else {}
    fn = found.get("self")
    numbers: Any = found.get("value")
    is_valid = found.get("valid")
    if not isinstance(fn, Distribution) or not isinstance(is_valid, Tensor) or is_valid.all():
        return None
    if "constraint" in found:
        return _Refused(f"{first_line(error)}, first", found["constraint"], numbers, is_valid)
    support = found["support"]
    bounds = repr(support)
    is_short = len(bounds) < _LONGEST and "tensor" not in bounds
    accepted = f" {bounds}" if is_short else ""
    said = f"its values must lie in the support{accepted} of {type(fn).__name__}, got"
    return _Refused(said, support, numbers, is_valid)


def _place(index: tuple[int, ...], event_dim: int, site: Site | None) -> str:
    """Return the place of a number: its index in each plate, or else in the tensor."""
    if not index:
        return ""
    if site is not None:
        in_batch = index[: len(index) - (site["fn"].event_dim - event_dim)]
        frames = [frame for frame in site["cond_indep_stack"] if frame.dim is not None]
        places = [
            f"index {in_batch[frame.dim]} of '{frame.name}'"
            for frame in frames
            if -frame.dim <= len(in_batch) and not frame.name.startswith(_PLATES)
        ]
        if places:
            return f" at {' and '.join(places)}"
    return f" at index {', '.join(map(str, index))}"


def _has_constant_support(fn: Any) -> bool:
    """Return True if all distributions of this class have the same support."""
    support = getattr(type(fn), "support", None)
    return isinstance(support, constraints.Constraint) and not constraints.is_dependent(support)


_CHECK = check_observed.__name__
