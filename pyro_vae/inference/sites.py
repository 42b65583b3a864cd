"""Sample sites of model and guide, and the plate of their rows."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.scale_messenger import ScaleMessenger
from torch import Tensor

from pyro_vae.support.store import store_as_found

_SAMPLES = "pyro_vae.samples"
# What a Pyro trace keeps of a sample statement: its distribution "fn", its "value", "scale", "mask" and plates.
Site: TypeAlias = Any


class RowPlate(NamedTuple):
    """The one plate that all latents of a model and a guide lie in.

    Arguments:
        size: the number B of rows.
        dim: the plate's dimension, counted from the right as Pyro does.
        max_plate_nesting: how many plates deep model and guide go.
        given: observed sites outside the plate, such as globals that the model is conditioned on: no part of any row.
    """

    size: int
    dim: int
    max_plate_nesting: int
    given: tuple[str, ...] = ()

    def of_rows(self, program: Callable) -> Callable:
        """The program without the sites that are no part of any row."""
        return poutine.block(program, hide=list(self.given)) if self.given else program

    def rows_second(self, values: Tensor) -> Tensor:
        """Values of a site with draws first, `(S, plates, event)`, as `(S, B, ...)`: the rows before all other plates."""
        return values.movedim(1 + self.max_plate_nesting + self.dim, 1)

    def rows_in_place(self, values: Tensor) -> Tensor:
        """The reverse of `rows_second`."""
        return values.movedim(1, 1 + self.max_plate_nesting + self.dim)


def log_prob(site: Site) -> Tensor:
    """The log-density of a site's value, in nats."""
    return site["fn"].log_prob(site["value"])


def weighed(site: Site, term: Tensor) -> Tensor:
    """A term of a site, such as its log-density, times the site's scale, and 0 where the site is masked."""
    return scale_and_mask(term, site["scale"], site["mask"])


def log_density(
    program: Callable, latents: dict[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], plate: RowPlate
) -> Tensor:
    """The log-density of all sites of a model or guide, without scales, where its latents have given values.

    Arguments:
        program: the model or the guide.
        latents: the values of its latents by name, each `(S, plates, event)`.
        args: passed to the program.
        kwargs: passed to the program.
        plate: the plate of the rows.

    Returns:
        In nats, `(S, B)`.

    Raises:
        ValueError: a latent has no value, such as what an AutoGuide draws first.
    """
    conditioned = poutine.condition(program, data=latents)
    return given_density(conditioned, len(next(iter(latents.values()))), args, kwargs, plate)


def given_density(
    program: Callable, num_samples: int, args: tuple[Any, ...], kwargs: dict[str, Any], plate: RowPlate
) -> Tensor:
    """The same for a program that brings S values of each latent itself, in nats, `(S, B)`.

    Raises:
        ValueError: a latent has no value.
    """
    dim = -1 - plate.max_plate_nesting
    with store_as_found(), samples_plate(num_samples, plate):
        trace = poutine.trace(plate.of_rows(program)).get_trace(*args, **kwargs)
    sites = sample_sites(trace)
    for site in sites:
        if not site["is_observed"]:
            raise ValueError(
                f"'latents' must have a value for each latent of the program, but there is none for '{site['name']}'."
            )
    total = _sum_by_row(((site, log_prob(site)) for site in sites), {plate.dim, dim})
    return total.reshape(num_samples, plate.size)


@torch.no_grad()
def check_draws_apart(
    model: Callable, latents: dict[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], plate: RowPlate
) -> None:
    """Refuse a model that gives a draw another density beside other draws, as means over a batch do.

    Arguments:
        model: the model.
        latents: two draws or more of each latent, `(S, plates, event)`.
        args: passed to the model.
        kwargs: passed to the model.
        plate: the plate of the rows.

    Raises:
        ValueError: if there is such a difference.
    """
    with pyro.validation_enabled(False):
        beside = log_density(model, latents, args, kwargs, plate)[:1]
        alone = log_density(model, {name: value[:1] for name, value in latents.items()}, args, kwargs, plate)
    if not torch.allclose(alone, beside, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise ValueError(
            "'model' must give a draw the same density beside any other draws, but does not: does it take means over a "
            "batch, as batch normalisation without running statistics does?"
        )


def samples_plate(num_samples: int, plate: RowPlate) -> pyro.plate:
    """A plate of draws, outside all plates of model and guide."""
    return pyro.plate(_SAMPLES, num_samples, dim=-1 - plate.max_plate_nesting)


def row_plate(model: Callable, guide: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> RowPlate:
    """The plate of the rows, found by two runs of guide and model.

    Raises:
        ValueError: model and guide have other latents; there is not one plate that all of these lie in, with all that is
            observed of them; a plate takes other rows in each run.
    """
    (guide_trace, model_trace), (_, other_trace) = (traces(model, guide, args, kwargs) for _ in range(2))
    _check_subsamples(guide_trace, model_trace)
    latents, sites = sample_sites(guide_trace), sample_sites(model_trace)
    of_rows = _row_frames(latents + [site for site in sites if not site["is_observed"]])
    outside = [site for site in sites if site["is_observed"] and not of_rows & set(site["cond_indep_stack"])]
    given = _unmoved(outside, other_trace)
    frames = _row_frames(latents + [site for site in sites if site["name"] not in given])
    if len(frames) > 1:
        names = " and ".join(sorted(frame.name for frame in frames))
        raise ValueError(
            f"'model' and 'guide' must have all sample sites in one row plate, got all of them in {names}."
        )
    (frame,) = frames
    if frame.dim is None:
        raise ValueError(f"'model' must have a vectorised row plate, got the sequential one {frame.name}.")
    dims = [inner.dim for site in latents + sites for inner in site["cond_indep_stack"]]
    nesting = max(-dim for dim in dims if dim is not None)
    return RowPlate(frame.size, frame.dim, nesting, given)


def _unmoved(sites: list[Site], other_trace: poutine.Trace) -> tuple[str, ...]:
    """The names of sites whose density is the same in another run, with other latents: it does not depend on these."""
    others: Any = other_trace.nodes
    return tuple(site["name"] for site in sites if torch.equal(log_prob(site), log_prob(others[site["name"]])))


def traces(
    model: Callable, guide: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[poutine.Trace, poutine.Trace]:
    """A run of the guide, and of the model with its latents.

    Raises:
        ValueError: they have other latents.
    """
    with store_as_found():
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    _check_latents(sample_sites(guide_trace), sample_sites(model_trace))
    return guide_trace, model_trace


def refuse_points(latents: list[Site]) -> None:
    """Refuse latents that a guide draws from a point: it has no density, and would look like the exact posterior."""
    for site in latents:
        base = site["fn"]
        while hasattr(base, "base_dist"):
            base = base.base_dist
        if isinstance(base, Delta):
            raise ValueError(f"'guide' must have a density of the model's latents, got a point for '{site['name']}'.")


class _SharedScales(Messenger):
    """The handlers `poutine.scale` that cover every sample statement of a program, around its plates or inside."""

    def __init__(self) -> None:
        super().__init__()
        self.shared: list[ScaleMessenger] | None = None

    def of_rows(self, row_dims: set[int | None]) -> list[float | Tensor]:
        """Their scales, without those that vary inside a row."""
        return [handler.scale for handler in self.shared or [] if _varies_only_along(row_dims, handler.scale)]

    def _pyro_sample(self, message: Any) -> None:
        if not poutine.util.site_is_subsample(message):
            handlers = [handler for handler in _PYRO_STACK if isinstance(handler, ScaleMessenger)]
            known = handlers if self.shared is None else self.shared
            self.shared = [handler for handler in known if any(handler is other for other in handlers)]


def _varies_only_along(dims: set[int | None], scale: float | Tensor) -> bool:
    shape = scale.shape if isinstance(scale, Tensor) else ()
    return all(size == 1 or index - len(shape) in dims for index, size in enumerate(shape))


def _check_latents(latents: list[Site], sites: list[Site]) -> None:
    drawn = {site["name"] for site in latents}
    used = {site["name"] for site in sites}
    for site in latents:
        if site["name"] not in used and not site["infer"].get("is_auxiliary"):
            raise ValueError(f"'model' must have all latent sites of the guide, but has no '{site['name']}'.")
    for site in sites:
        if site["name"] not in drawn and not site["is_observed"]:
            raise ValueError(f"'guide' must have all latent sites of the model, but has no '{site['name']}'.")


def _check_subsamples(*traces: poutine.Trace) -> None:
    """Refuse plates that choose at random: several runs would not be of the same rows."""
    plates: list[Site] = [
        node for trace in traces for node in trace.nodes.values() if poutine.util.site_is_subsample(node)
    ]
    for plate in plates:
        count, size = plate["fn"].subsample_size, plate["fn"].size
        if count is not None and count < size:
            raise ValueError(
                f"'model' and 'guide' must take the same rows whenever they run, but '{plate['name']}' chooses {count} of "
                f"{size} at random: give it a 'subsample' instead."
            )


def _row_frames(sites: list[Site]) -> frozenset[CondIndepStackFrame]:
    frames = [frozenset(frame for frame in site["cond_indep_stack"] if frame.name != _SAMPLES) for site in sites]
    common = frozenset.intersection(*frames)
    if not common:
        found = ", ".join(
            f"'{site['name']}' in {' and '.join(sorted(frame.name for frame in own)) or 'no plate'}"
            for site, own in zip(sites, frames, strict=True)
        )
        raise ValueError(f"'model' and 'guide' must have all sample sites in one row plate, got {found}.")
    return common


def _sum_by_row(terms: Iterable[tuple[Site, Tensor]], kept: set[int | None]) -> Tensor:
    """The sum of the sites' terms, masked as the sites are, over all dimensions but these."""
    total = torch.zeros(())
    for site, term in terms:
        term = scale_and_mask(term, mask=site["mask"])
        summed = [dim for dim in range(-term.dim(), 0) if dim not in kept]
        total = total + (term.sum(summed, keepdim=True) if summed else term)
    return total


def sample_sites(trace: poutine.Trace) -> list[Site]:
    """The sample statements of a trace, in order."""
    nodes = poutine.util.prune_subsample_sites(trace).nodes.values()
    return [site for site in nodes if site["type"] == "sample"]
