"""A Pyro model and guide with the arguments that both are called with."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple

from pyro import poutine
from torch import Tensor

from pyro_vae.inference.draws import Draws
from pyro_vae.inference.row_plate import RowPlate, find_row_plate, row_frames, samples_plate
from pyro_vae.inference.shared_scales import SharedScales
from pyro_vae.inference.sites import Site, is_auxiliary, sample_sites
from pyro_vae.support.checks import nearest
from pyro_vae.support.store import store_as_found


class Programs(NamedTuple):
    """A model and a guide with their arguments, as weights, chains and bounds run them.

    Each run leaves Pyro's param store as it was found.

    Arguments:
        model: the Pyro model.
        guide: the Pyro guide.
        args: passed to both.
        kwargs: passed to both.
    """

    model: Callable
    guide: Callable
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def bound_model(self) -> Callable[[], Any]:
        """The model as a function without arguments."""
        return partial(self.model, *self.args, **self.kwargs)

    @property
    def bound_guide(self) -> Callable[[], Any]:
        """The guide as a function without arguments."""
        return partial(self.guide, *self.args, **self.kwargs)

    def traces(self) -> tuple[poutine.Trace, poutine.Trace]:
        """Run the guide, and the model with the guide's latents, and return both traces.

        Raises:
            ValueError: if model and guide have different latents.
        """
        guide_trace, model_trace = self.unchecked_traces()
        _check_latents(sample_sites(guide_trace), sample_sites(model_trace))
        return guide_trace, model_trace

    def unchecked_traces(self) -> tuple[poutine.Trace, poutine.Trace]:
        """Return the same traces as `traces`, even if model and guide have different latents."""
        with store_as_found():
            guide_trace = poutine.trace(self.bound_guide).get_trace()
            replayed = poutine.replay(self.bound_model, trace=guide_trace)
            model_trace = poutine.trace(replayed).get_trace()
        return guide_trace, model_trace

    def guide_sites(self) -> list[Site]:
        """Return the sample sites of a run of the guide."""
        with store_as_found():
            return sample_sites(poutine.trace(self.bound_guide).get_trace())

    def guide_latents(self) -> dict[str, Tensor]:
        """Draw all latents of the model once from the guide, and return them by name."""
        sites = self.guide_sites()
        return {site["name"]: site["value"] for site in sites if not is_auxiliary(site)}

    def row_plate(self) -> RowPlate:
        """Find the plate of the rows, by two runs of guide and model.

        Raises:
            ValueError: if model and guide have different latents. If no single plate holds all
                latents and all observed sites that depend on them. If a plate takes different rows
                in each run.
        """
        guide_trace, model_trace = self.traces()
        _, other_model_trace = self.traces()
        return find_row_plate(guide_trace, model_trace, other_model_trace)

    def of_rows(self, plate: RowPlate) -> "Programs":
        """Return the programs without the model's sites that belong to no row."""
        return self._replace(model=plate.of_rows(self.model))

    def draw(self, num_samples: int, max_plate_nesting: int = 1) -> Draws:
        """Draw all latents from the guide many times at once, and run the model with them.

        Arguments:
            num_samples: the number S of draws.
            max_plate_nesting: the largest depth of nested plates in model and guide.

        Raises:
            ValueError: if model and guide have different latents, or if no plate holds all their
                sites.
        """
        scales = SharedScales()
        with samples_plate(num_samples, max_plate_nesting):
            guide_trace, model_trace = self._replace(model=scales(self.model)).traces()
        frames = row_frames(sample_sites(guide_trace) + sample_sites(model_trace))
        shares = [(frame.full_size or frame.size) / frame.size for frame in frames]
        weight: float | Tensor = prod(shares)
        for scale in scales.of_rows({frame.dim for frame in frames}):
            weight = weight * scale
        return Draws(guide_trace, model_trace, frames, -1 - max_plate_nesting, weight)


def _check_latents(latents: list[Site], sites: list[Site]) -> None:
    drawn = [site["name"] for site in latents]
    used = [site["name"] for site in sites]
    for site in latents:
        name = site["name"]
        if name in used or is_auxiliary(site):
            continue
        if site["is_observed"]:
            required = "'guide' must have no observed sites of its own"
            raise ValueError(f"{required}, got '{name}': are model and guide swapped?")
        required = "'model' must have all latent sites of the guide"
        raise ValueError(f"{required}, but has no '{name}'{_others(name, used)}.")
    for site in sites:
        name = site["name"]
        if name not in drawn and not site["is_observed"]:
            required = "'guide' must have all latent sites of the model"
            raise ValueError(f"{required}, but has no '{name}'{_others(name, drawn)}.")


def _others(name: str, known: list[str]) -> str:
    """Return the site that a missing one may be, or all that are there."""
    sites = ", ".join(map(repr, known))
    return nearest(name, known) or (f", only {sites}" if known else "")
