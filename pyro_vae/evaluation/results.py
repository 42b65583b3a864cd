"""Results of an evaluation: estimates with their errors, as a table and as JSON."""

import json
from typing import NamedTuple

from torch import Tensor

from pyro_vae.inference.psis import TRUSTED_KHAT
from pyro_vae.support.tables import html_table

_WAYS_OUT = (
    "try more epochs, a learned scale of the likelihood, a KL weight that rises (kl_schedule "
    "LinearWarmup), or fewer latent dimensions"
)

# The lines of the table, in order.
_TITLES = {
    "negative_elbo": "-ELBO (nats)",
    "rate": "rate, KL (nats)",
    "distortion": "distortion (nats)",
    "log_marginal": "log p(x) (nats)",
    "bits_per_dim": "-log p(x) (bits/dim)",
    "without_latent": "without z (nats)",
}
_HEADER = ("mean", "MC error", "row error", "samples", "rows")


class Estimate(NamedTuple):
    """Mean over rows with two errors, in nats per row unless its name says another unit.

    Arguments:
        mean: the estimate.
        monte_carlo_error: its standard error from the draws of z; None if the draws cannot give
            it, such as one draw for each row.
        row_error: its standard error from the choice of rows; None for a single row.
        num_samples: the number of draws of z for each row; 0 if the value is exact.
        num_rows: the number of rows.
    """

    mean: float
    monte_carlo_error: float | None
    row_error: float | None
    num_samples: int
    num_rows: int

    @staticmethod
    def over_rows(
        values: Tensor,
        num_samples: int = 0,
        monte_carlo_error: float | None = 0.0,
    ) -> "Estimate":
        """Return the mean of one value for each row, `(N,)`."""
        num_rows = len(values)
        row_error = None if num_rows == 1 else (values.std() / num_rows**0.5).item()
        return Estimate(
            values.mean().item(),
            monte_carlo_error,
            row_error,
            num_samples,
            num_rows,
        )

    def scaled(self, factor: float) -> "Estimate":
        """Return the estimate in another unit."""

        def rescaled(error: float | None) -> float | None:
            return None if error is None else error * abs(factor)

        return self._replace(
            mean=self.mean * factor,
            monte_carlo_error=rescaled(self.monte_carlo_error),
            row_error=rescaled(self.row_error),
        )


class Evaluation(NamedTuple):
    """Results of `evaluate`; a lower −ELBO and a higher log p(x) are better.

    Arguments:
        negative_elbo: −ELBO = rate + distortion.
        rate: KL(q(z | x) ‖ p(z)).
        distortion: −E_q[log p(x | z)].
        log_marginal: log p(x) by importance sampling; a lower bound in expectation, tight for many
            samples.
        bits_per_dim: −log p(x) in bits, divided by the number of elements of x; None if x is not
            discrete.
        rate_by_dim: KL of each latent dimension; None unless posterior and prior factorise.
        active_variance: Var_x E_q[z_d | x] for each latent dimension.
        active_units: the number of dimensions in which this variance exceeds 0.01.
        transform: the transform from stored levels to x, including binarisation.
        high_khat_share: the share of rows whose importance weights have a k̂ above 0.7. Their
            log p(x) is too low, and the reported error does not include this bias. None for fewer
            than 25 draws.
        without_latent: −log p(x) under the best model in which x does not depend on z, fitted to
            some of the same rows; a useful VAE has a lower −ELBO. None if no such model can be
            fitted, as for a likelihood with a context.
    """

    negative_elbo: Estimate
    rate: Estimate
    distortion: Estimate
    log_marginal: Estimate | None
    bits_per_dim: Estimate | None
    rate_by_dim: list[Estimate] | None
    active_variance: list[float]
    active_units: int
    transform: str
    high_khat_share: float | None = None
    without_latent: Estimate | None = None

    def to_json(self) -> str:
        """Return all results as JSON, with their errors and counts."""
        fields = self._asdict()
        for name, value in fields.items():
            if isinstance(value, Estimate):
                fields[name] = value._asdict()
        if self.rate_by_dim is not None:
            fields["rate_by_dim"] = [estimate._asdict() for estimate in self.rate_by_dim]
        return json.dumps(fields, indent=2)

    def table(self) -> str:
        """Return a table of the estimates with their errors, one on each line."""
        lines = []
        for title, mean, error, row_error, samples, rows in [("", *_HEADER), *self._cells()]:
            estimate = f"{mean:>12}{error:>12}{row_error:>12}"
            lines.append(f"{title:<22}{estimate}{samples:>9}{rows:>8}")
        return "\n".join([*lines, *self._notes()])

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return html_table("", ["", *_HEADER], self._cells(), self._notes())

    def _cells(self) -> list[tuple[str, ...]]:
        """Return the rows of the table: title, mean, errors and counts of each known estimate."""
        estimates = ((title, getattr(self, name)) for name, title in _TITLES.items())
        return [(title, *_columns(found)) for title, found in estimates if found is not None]

    def _notes(self) -> list[str]:
        """Return the sentences under the table."""
        notes = []
        if self.high_khat_share is not None:
            notes.append(
                f"k-hat exceeds {TRUSTED_KHAT} in {self.high_khat_share:.1%} of rows: their log "
                "p(x) is a lower bound that no error bar repairs"
            )
        notes.append(
            f"{self.active_units} of {len(self.active_variance)} latent dimensions are active; "
            f"data: {self.transform}"
        )
        return [*notes, *self.remarks()]

    def remarks(self) -> list[str]:
        """Return one sentence with a remedy if z is of no use, and an empty list if not."""
        if self.active_units == 0:
            return [f"No latent dimension is active, so that z tells nothing of x: {_WAYS_OUT}."]
        if self.without_latent is not None and self.negative_elbo.mean >= self.without_latent.mean:
            return [
                f"-ELBO is no better than the {self.without_latent.mean:.4f} nats of the best "
                f"model without z: {_WAYS_OUT}."
            ]
        return []


def _columns(estimate: Estimate) -> tuple[str, ...]:
    """Return mean, errors and counts as columns of a table."""
    errors = (estimate.monte_carlo_error, estimate.row_error)
    shown = ("-" if error is None else f"{error:.4f}" for error in errors)
    samples = str(estimate.num_samples or "exact")
    return (f"{estimate.mean:.4f}", *shown, samples, str(estimate.num_rows))
