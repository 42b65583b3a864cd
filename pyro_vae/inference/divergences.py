"""Latents whose KL divergence has no closed form."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine

from pyro_vae.distributions.kl import closed_kl
from pyro_vae.inference.arguments import takes_programs
from pyro_vae.inference.programs import Programs


@takes_programs
@torch.no_grad()
def monte_carlo_sites(model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> list[str]:
    """Return the names of the latent sites whose KL has no closed form.

    `TraceMeanField_ELBO` estimates the KL of these sites from draws, as `Trace_ELBO` does.

    Arguments:
        model: the Pyro model.
        guide: the Pyro guide.
        *args: passed to both.
        **kwargs: passed to both.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        guide_trace, model_trace = Programs(model, guide, args, kwargs).unchecked_traces()
    names = poutine.util.prune_subsample_sites(guide_trace).stochastic_nodes
    # The model lacks the auxiliary sites of the guide.
    pairs: list[tuple[Any, Any]] = [
        (guide_trace.nodes[name], model_trace.nodes[name]) for name in names if name in model_trace
    ]
    return [q_z["name"] for q_z, p_z in pairs if closed_kl(q_z["fn"], p_z["fn"]) is None]
