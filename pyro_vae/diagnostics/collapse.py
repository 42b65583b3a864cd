"""Posterior collapse: which latent dimensions follow x, and which only cost nats or nothing at all."""

from typing import NamedTuple

from pyro_vae.evaluation.measures import ACTIVE_VARIANCE
from pyro_vae.evaluation.results import Evaluation

# A KL below this, in nats per row, is none: twice the least at which a mean can be active under a standard normal prior.
NO_RATE = 0.01


class CollapseReport(NamedTuple):
    """The latent dimensions, counted from 0, by what q(z_d | x) does.

    Arguments:
        active: E_q[z_d | x] varies with x.
        mixed: it does not, yet q(z_d | x) differs from p(z_d): nats that tell nothing of x, as under a wrong prior, or tell
            it by the scale of q(z_d | x) alone.
        collapsed: it does not, and q(z_d | x) is the prior; without a KL by dimension also what would be mixed.
        rate: KL(q(z | x) ‖ p(z)) over all dimensions, in nats per row.
        active_share: how much of the rate lies in active dimensions; None without a KL by dimension.
    """

    active: list[int]
    mixed: list[int]
    collapsed: list[int]
    rate: float
    active_share: float | None

    def verdict(self) -> str:
        """In words: full collapse (no dimension is active), partial (fewer than half are) or none, and the dimensions."""
        num_active, num_dims = len(self.active), len(self.active) + len(self.mixed) + len(self.collapsed)
        degree = "full" if num_active == 0 else "partial" if 2 * num_active < num_dims else "no"
        share = "" if self.active_share is None else f", {100 * self.active_share:.1f} % of it in them"
        parts = [f"{num_active} of {num_dims} latent dimensions are active, the rate is {self.rate:.2f} nats{share}"]
        if self.mixed:
            parts.append(f"off the prior but not with x: {_names(self.mixed)}")
        if self.collapsed:
            constant = "no KL" if self.active_share is not None else "a constant mean, KL unknown"
            parts.append(f"{constant}: {_names(self.collapsed)}")
        return f"{degree} collapse: " + "; ".join(parts)


def collapse_report(evaluation: Evaluation) -> CollapseReport:
    """Sort the latent dimensions of an evaluated VAE into active, mixed and collapsed ones.

    A dimension is active when Var_x E_q[z_d | x] exceeds 0.01; one that is not is mixed from a KL of 0.01 nats on.

    References:
        Importance weighted autoencoders, Burda, Grosse and Salakhutdinov, 2015: active dimensions.
        Don't blame the ELBO! A linear VAE perspective on posterior collapse, Lucas et al., 2019.
        The usual suspects? Reassessing blame for VAE posterior collapse, Dai, Wang and Wipf, 2020.

    Arguments:
        evaluation: what `evaluate` returns.

    Example:
        >>> from pyro_vae.diagnostics import collapse_report
        >>> collapse_report(evaluate(vae, vae.sample(100))).verdict()
        '... collapse: ... of 2 latent dimensions are active, the rate is ...'
    """
    dims = range(len(evaluation.active_variance))
    active = [dim for dim in dims if evaluation.active_variance[dim] > ACTIVE_VARIANCE]
    rates = None if evaluation.rate_by_dim is None else [estimate.mean for estimate in evaluation.rate_by_dim]
    mixed = [] if rates is None else [dim for dim in dims if dim not in active and rates[dim] >= NO_RATE]
    return CollapseReport(
        active=active,
        mixed=mixed,
        collapsed=[dim for dim in dims if dim not in active and dim not in mixed],
        rate=evaluation.rate.mean,
        active_share=None if rates is None else _share([rates[dim] for dim in active], rates),
    )


def _share(part: list[float], whole: list[float]) -> float:
    return sum(part) / sum(whole) if sum(whole) > 0 else 0.0


def _names(dims: list[int]) -> str:
    return ", ".join(f"z_{dim + 1}" for dim in dims)
