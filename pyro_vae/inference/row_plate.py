"""The plate of the rows, and the plate of draws around it."""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import pyro
import torch
from pyro import poutine
from pyro.poutine.indep_messenger import CondIndepStackFrame
from torch import Tensor

from pyro_vae.inference.sites import Site, log_prob, sample_sites

_SAMPLES = "pyro_vae.samples"


class RowPlate(NamedTuple):
    """The one plate that all latents of a model and a guide lie in.

    Arguments:
        size: the number B of rows.
        dim: the plate's dimension, counted from the right as Pyro does.
        max_plate_nesting: the largest depth of nested plates in model and guide.
        given: observed sites outside the plate, which belong to no row, such as globals that the
            model is conditioned on.
    """

    size: int
    dim: int
    max_plate_nesting: int
    given: tuple[str, ...] = ()

    def of_rows(self, program: Callable) -> Callable:
        """Return the program without the sites that belong to no row."""
        return poutine.block(program, hide=list(self.given)) if self.given else program

    def rows_second(self, values: Tensor) -> Tensor:
        """Move the rows before all other plates: `(S, plates, event)` to `(S, B, ...)`."""
        return values.movedim(1 + self.max_plate_nesting + self.dim, 1)

    def rows_in_place(self, values: Tensor) -> Tensor:
        """Move the rows back to their plate: `(S, B, ...)` to `(S, plates, event)`."""
        return values.movedim(1, 1 + self.max_plate_nesting + self.dim)


def samples_plate(num_samples: int, max_plate_nesting: int) -> pyro.plate:
    """Return a plate of draws, outside all plates of model and guide."""
    return pyro.plate(_SAMPLES, num_samples, dim=-1 - max_plate_nesting)


def find_row_plate(
    guide_trace: poutine.Trace,
    model_trace: poutine.Trace,
    other_trace: poutine.Trace,
) -> RowPlate:
    """Find the plate of the rows.

    Arguments:
        guide_trace: a run of the guide.
        model_trace: a run of the model with the guide's latents.
        other_trace: a run of the model with other latents.

    Raises:
        ValueError: if no single plate holds all latents and all observed sites that depend on them,
            or if a plate takes different rows in each run.
    """
    _check_subsamples(guide_trace, model_trace)
    latents = sample_sites(guide_trace)
    sites = sample_sites(model_trace)
    of_rows = row_frames(latents + [site for site in sites if not site["is_observed"]])
    observed = [site for site in sites if site["is_observed"]]
    outside = [site for site in observed if not of_rows & set(site["cond_indep_stack"])]
    given = _unmoved(outside, other_trace)
    frames = row_frames(latents + [site for site in sites if site["name"] not in given])
    if len(frames) > 1:
        names = " and ".join(sorted(frame.name for frame in frames))
        _refuse_plates(f"all of them in {names}")
    (frame,) = frames
    if frame.dim is None:
        found = f"the sequential one {frame.name}"
        raise ValueError(f"'model' must have a vectorised row plate, got {found}.")
    dims = [inner.dim for site in latents + sites for inner in site["cond_indep_stack"]]
    nesting = max(-dim for dim in dims if dim is not None)
    return RowPlate(frame.size, frame.dim, nesting, given)


def row_frames(sites: list[Site]) -> frozenset[CondIndepStackFrame]:
    """Return the plates that all sites lie in, except the plate of draws.

    Raises:
        ValueError: if there is none.
    """
    if not sites:
        raise ValueError("'model' and 'guide' must have latent sites, got none.")
    frames = [_own_frames(site) for site in sites]
    common = frozenset.intersection(*frames)
    if not common:
        found = []
        for site, own in zip(sites, frames, strict=True):
            plates = " and ".join(sorted(frame.name for frame in own))
            found.append(f"'{site['name']}' in {plates or 'no plate'}")
        _refuse_plates(", ".join(dict.fromkeys(found)))
    return common


def _refuse_plates(found: str) -> NoReturn:
    required = "'model' and 'guide' must have all sample sites in one row plate"
    raise ValueError(f"{required}, got {found}.")


def _own_frames(site: Site) -> frozenset[CondIndepStackFrame]:
    return frozenset(frame for frame in site["cond_indep_stack"] if frame.name != _SAMPLES)


def _unmoved(sites: list[Site], other_trace: poutine.Trace) -> tuple[str, ...]:
    """Return the names of the sites whose density is the same in a run with other latents."""
    others: Any = other_trace.nodes
    same = [site for site in sites if torch.equal(log_prob(site), log_prob(others[site["name"]]))]
    return tuple(site["name"] for site in same)


def _check_subsamples(*traces: poutine.Trace) -> None:
    """Refuse plates that subsample at random, since each run would take other rows."""
    nodes: list[Site] = [node for trace in traces for node in trace.nodes.values()]
    for plate in nodes:
        if poutine.util.site_is_subsample(plate):
            count = plate["fn"].subsample_size
            size = plate["fn"].size
            if count is not None and count < size:
                raise ValueError(
                    "'model' and 'guide' must take the same rows whenever they run, but "
                    f"'{plate['name']}' chooses {count} of {size} at random: give it a 'subsample' "
                    "instead."
                )
