"""Posterior collapse: latent dimensions that follow x, that only cost nats, and that do nothing."""

from typing import NamedTuple

from pyro_vae.evaluation.measures import ACTIVE_VARIANCE
from pyro_vae.evaluation.results import Evaluation
from pyro_vae.support.arguments import arguments_checked

# A smaller KL, in nats per row, counts as zero. An active mean has a KL of at least half of this
# under a standard normal prior.
NO_RATE = 0.01


class CollapseReport(NamedTuple):
    """Latent dimensions, counted from 0, sorted by q(z_d | x).

    Arguments:
        active: the dimensions in which E_q[z_d | x] varies with x.
        mixed: those in which it does not, but q(z_d | x) differs from p(z_d). Their nats tell
            nothing of x, as under a wrong prior, or only by the scale of q(z_d | x).
        collapsed: those in which it does not, and q(z_d | x) is the prior. Without a KL by
            dimension they include the mixed ones.
        rate: KL(q(z | x) ‖ p(z)) over all dimensions, in nats per row.
        active_share: the share of the rate in active dimensions; None without a KL by dimension.
    """

    active: list[int]
    mixed: list[int]
    collapsed: list[int]
    rate: float
    active_share: float | None

    def verdict(self) -> str:
        """Return the degree of collapse and the dimensions in words.

        Collapse is full if no dimension is active, and partial if fewer than half are.
        """
        num_active = len(self.active)
        num_dims = num_active + len(self.mixed) + len(self.collapsed)
        degree = "full" if num_active == 0 else "partial" if 2 * num_active < num_dims else "no"
        share = ""
        if self.active_share is not None:
            share = f", {100 * self.active_share:.1f} % of it in them"
        parts = [
            f"{num_active} of {num_dims} latent dimensions are active, the rate is "
            f"{self.rate:.2f} nats{share}"
        ]
        if self.mixed:
            parts.append(f"off the prior but not with x: {_names(self.mixed)}")
        if self.collapsed:
            constant = "no KL" if self.active_share is not None else "a constant mean, KL unknown"
            parts.append(f"{constant}: {_names(self.collapsed)}")
        return f"{degree} collapse: " + "; ".join(parts)


@arguments_checked
def collapse_report(evaluation: Evaluation) -> CollapseReport:
    """Sort the latent dimensions of an evaluated VAE into active, mixed and collapsed ones.

    A dimension is active if Var_x E_q[z_d | x] exceeds 0.01. If it is not active, it is mixed from
    a KL of 0.01 nats.

    References:
        Importance weighted autoencoders, Burda, Grosse and Salakhutdinov, 2015: active dimensions.
        Don't blame the ELBO! A linear VAE perspective on posterior collapse, Lucas et al., 2019.
        The usual suspects? Reassessing blame for VAE posterior collapse, Dai, Wang and Wipf, 2020.

    Arguments:
        evaluation: the result of `evaluate`.

    Example:
        >>> from pyro_vae.diagnostics import collapse_report
        >>> collapse_report(evaluate(vae, vae.sample(100))).verdict()
        '... collapse: ... of 2 latent dimensions are active, the rate is ...'
    """
    dims = range(len(evaluation.active_variance))
    active = [dim for dim in dims if evaluation.active_variance[dim] > ACTIVE_VARIANCE]
    mixed: list[int] = []
    active_share = None
    if evaluation.rate_by_dim is not None:
        rates = [estimate.mean for estimate in evaluation.rate_by_dim]
        mixed = [dim for dim in dims if dim not in active and rates[dim] >= NO_RATE]
        active_share = _share([rates[dim] for dim in active], rates)
    return CollapseReport(
        active=active,
        mixed=mixed,
        collapsed=[dim for dim in dims if dim not in active and dim not in mixed],
        rate=evaluation.rate.mean,
        active_share=active_share,
    )


def _share(part: list[float], whole: list[float]) -> float:
    return sum(part) / sum(whole) if sum(whole) > 0 else 0.0


def _names(dims: list[int]) -> str:
    return ", ".join(f"z_{dim + 1}" for dim in dims)
