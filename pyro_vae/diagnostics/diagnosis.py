"""A diagnosis of a VAE: all checks of its posterior on given rows, with a verdict in words."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.data.batch import Batch
from pyro_vae.data.rows import Data
from pyro_vae.diagnostics.calibration import LEAST_ROWS, Calibration, calibrate
from pyro_vae.diagnostics.collapse import CollapseReport, collapse_report
from pyro_vae.diagnostics.gaps import Gaps, inference_gaps, with_free_outputs
from pyro_vae.evaluation.measures import evaluate
from pyro_vae.evaluation.results import Estimate, Evaluation
from pyro_vae.evaluation.vae_rows import BLOCK_ROWS, rows_for
from pyro_vae.inference.annealing import Sandwich, sandwich
from pyro_vae.inference.importance import importance_sample
from pyro_vae.inference.psis import GOOD_KHAT, LEAST_DRAWS, TRUSTED_KHAT
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import whole
from pyro_vae.support.modules import evaluating, tensor_like
from pyro_vae.support.streams import stream
from pyro_vae.support.tables import shown_in_short
from pyro_vae.vae import VAE

# Numbers of the random streams of the parts; `evaluate` and `calibrate` number theirs by blocks.
_KHAT_STREAM = 10**9
_SIMULATED_STREAM = 10**9 + 1
_REAL_STREAM = 10**9 + 2
_GAPS_STREAM = 10**9 + 3


@shown_in_short
class RowWeights(NamedTuple):
    """Quality of q(z | x) as a proposal for p(z | x) in each row, `(N,)`.

    Arguments:
        khat: Pareto k̂ of the importance weights.
        ess: the effective sample size.
        log_marginal: log p(x) by importance sampling, in nats.
        num_samples: the number of draws of z for each row.
    """

    khat: Tensor
    ess: Tensor
    log_marginal: Tensor
    num_samples: int

    def verdict(self) -> str:
        """Return the result in words."""
        good = (self.khat <= GOOD_KHAT).double().mean().item()
        trusted = (self.khat <= TRUSTED_KHAT).double().mean().item()
        return (
            f"importance weights can be trusted (k-hat up to {TRUSTED_KHAT}) in {trusted:.0%} of "
            f"{len(self.khat)} rows, and have a variance (up to {GOOD_KHAT}) in {good:.0%}; the "
            f"median k-hat is {self.khat.median():.2f}, the median effective sample size "
            f"{self.ess.median():.0f} of {self.num_samples}"
        )


class Diagnosis(NamedTuple):
    """Results of `diagnose`.

    Arguments:
        evaluation: −ELBO, rate and log p(x) of the rows.
        collapse: the latent dimensions that are in use, and those that are not.
        weights: k̂ and ESS of each row.
        calibration: the ranks of simulated z among draws of q(z | x).
        simulated: bounds on log p(x) from both sides, for simulated rows.
        simulated_bound: log p(x) of these rows by importance sampling, in nats.
        real: a lower bound on log p(x) by annealing, for the first of the given rows.
        gaps: the approximation and amortisation gaps of q(z | x) in these first rows.
        x: the rows, `(N, *x_shape)`, as one draw of a random transform.
        y: their context.
        seconds: the time of each part, in seconds.
    """

    evaluation: Evaluation
    collapse: CollapseReport
    weights: RowWeights
    calibration: Calibration
    simulated: Sandwich
    simulated_bound: Tensor
    real: Sandwich
    gaps: Gaps
    x: Tensor
    y: Tensor | None
    seconds: dict[str, float]

    def verdict(self) -> list[str]:
        """Return sentences on the use of z, calibration, weights of rows, bounds and gaps."""
        inference = self.gaps.approximation + self.gaps.amortisation
        return [
            f"Use of z: {self.collapse.verdict()}.",
            f"Calibration of q(z | x) on simulated rows: {self.calibration.verdict()}.",
            f"Row by row: {self.weights.verdict()}.",
            "Bounds on log p(x) of simulated rows: the upper less the lower one is "
            f"{_mean(self.simulated.width)} nats; importance sampling from q(z | x) less the "
            f"lower one {_mean(self.simulated_bound - self.simulated.lower)}.",
            f"Gaps: q(z | x) loses {_mean(inference)} nats of log p(x), "
            f"{_mean(self.gaps.approximation)} by its family and {_mean(self.gaps.amortisation)} "
            "by one network for all rows.",
        ]

    def advice(self) -> str:
        """Return advice on draws from q(z | x): use them, weight them, or start MCMC from them."""
        trusted = (self.weights.khat <= TRUSTED_KHAT).double().mean().item()
        if self.calibration.is_calibrated and trusted > 0.95:
            return "Draws from q(z | x) can stand for the posterior as they are."
        if trusted > 0.95:
            return (
                "Draws from q(z | x) are off, but weights mend them: use importance_sample, and "
                "look at k-hat by row."
            )
        return (
            "Draws from q(z | x) are off, and weights mend them only in rows with a low k-hat: "
            "use importance_sample there, and hmc, which starts at q(z | x), in the others."
        )

    def __repr__(self) -> str:
        return "\n".join([*self.verdict(), self.advice()])

    def to_json(self) -> str:
        """Return the verdict and its numbers as JSON; k̂ and ESS of rows as quantiles."""
        fields = {
            "verdict": [*self.verdict(), self.advice()],
            "evaluation": json.loads(self.evaluation.to_json()),
            "collapse": self.collapse._asdict(),
            "khat": _quantiles(self.weights.khat),
            "ess": _quantiles(self.weights.ess),
            "num_samples": self.weights.num_samples,
            "calibration": _calibration(self.calibration),
            "simulated": _bounds(self.simulated) | {"importance": _moments(self.simulated_bound)},
            "real": _bounds(self.real),
            "gaps": {name: _moments(values) for name, values in self.gaps._asdict().items()},
            "seconds": self.seconds,
        }
        return json.dumps(fields, indent=2)


@arguments_checked
def diagnose(
    vae: VAE,
    data: Data,
    *,
    num_rows: int = 1000,
    num_samples: int = 1000,
    num_annealed: int = 100,
    num_temperatures: int = 200,
    seed: int = 0,
) -> Diagnosis:
    """Run all checks of a trained VAE's posterior.

    Arguments:
        vae: the VAE, which is not changed; used in evaluation mode.
        data: rows that it was not trained on, `(N, *x_shape)`; for a conditional VAE a pair (x, y),
            or rows with labels. If entries are missing, calibration and the bounds from both sides
            are still those of complete, simulated rows.
        num_rows: the number of rows that are simulated for calibration, 200 or more; at most as
            many of the given rows are used.
        num_samples: the number of draws of z for the k̂ of each row.
        num_annealed: the number of rows that are annealed, of the simulated and of the given ones.
        num_temperatures: the number of steps of annealing.
        seed: names the random streams.

    Raises:
        ValueError: if rows have another shape or lie outside the likelihood's support, a count is
            too small, or `inference_gaps` refuses the posterior.

    Example:
        >>> from pyro_vae.diagnostics import diagnose
        >>> counts = {"num_samples": 25, "num_annealed": 5, "num_temperatures": 3}
        >>> found = diagnose(vae, vae.sample(50), num_rows=200, **counts)
        >>> len(found.verdict())
        5
    """
    _check_counts(num_rows, num_samples, num_annealed, num_temperatures)
    rows = rows_for(vae, data).take(slice(num_rows)).checked()
    clock = _Clock()
    with evaluating(vae):
        with stream(seed, device=tensor_like(vae).device):
            batch = rows.batch(slice(None))  # one draw of a random transform
        x = batch.x
        y = batch.y
        few = batch.take(slice(num_annealed))
        # The gaps come last, after minutes: refuse an unfit posterior now.
        with_free_outputs(vae, *batch.take(slice(1)))
        with clock("evaluation"):
            evaluation = evaluate(vae, x if y is None else (x, y), seed=seed)
        with clock("k-hat"):
            weights = _row_weights(vae, batch, num_samples, seed)
        with clock("calibration"):
            context = None if y is None else y.repeat(-(-num_rows // len(y)), 1)[:num_rows]
            calibration = calibrate(vae, num_rows=num_rows, y=context, seed=seed)
        with clock("sandwich of simulated rows"), stream(seed, _SIMULATED_STREAM, device=x.device):
            simulated, simulated_bound = _simulated(
                vae, few.num_rows, few.y, num_temperatures, num_samples
            )
        with clock("annealing of real rows"), stream(seed, _REAL_STREAM, device=x.device):
            real = sandwich(vae.model, vae.guide, *few, num_temperatures=num_temperatures)
        with clock("gaps"), stream(seed, _GAPS_STREAM, device=x.device):
            gaps = inference_gaps(vae, *few, log_marginal=real.lower)
    return Diagnosis(
        evaluation=evaluation,
        collapse=collapse_report(evaluation),
        weights=weights,
        calibration=calibration,
        simulated=simulated,
        simulated_bound=simulated_bound,
        real=real,
        gaps=gaps,
        x=x,
        y=y,
        seconds=clock.seconds,
    )


def _check_counts(
    num_rows: int, num_samples: int, num_annealed: int, num_temperatures: int
) -> None:
    whole(num_rows, "num_rows")
    whole(num_samples, "num_samples")
    whole(num_annealed, "num_annealed")
    whole(num_temperatures, "num_temperatures")
    if num_samples < LEAST_DRAWS:
        raise ValueError(
            f"'num_samples' must be {LEAST_DRAWS} or more for a k-hat, got {num_samples}."
        )
    if num_rows < LEAST_ROWS:
        raise ValueError(f"'num_rows' must be {LEAST_ROWS} or more, to calibrate, got {num_rows}.")


class _Clock:
    """Stopwatch that keeps the seconds of each part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def _row_weights(vae: VAE, batch: Batch, num_samples: int, seed: int) -> RowWeights:
    """Return the importance weights; each block of rows has a random stream of its own."""
    parts = []
    for start in range(0, batch.num_rows, BLOCK_ROWS):
        with stream(seed, _KHAT_STREAM, start, device=batch.x.device):
            block = batch.take(slice(start, start + BLOCK_ROWS))
            parts.append(importance_sample(vae.model, vae.guide, *block, num_samples=num_samples))
    return RowWeights(
        khat=torch.cat([part.khat for part in parts]).cpu(),
        ess=torch.cat([part.ess for part in parts]).cpu(),
        log_marginal=torch.cat([part.log_marginal for part in parts]).cpu(),
        num_samples=num_samples,
    )


@torch.no_grad()
def _simulated(
    vae: VAE, num_rows: int, y: Tensor | None, num_temperatures: int, num_samples: int
) -> tuple[Sandwich, Tensor]:
    """Return bounds on log p(x) of simulated rows: from both sides, and by importance sampling."""
    z = vae.p_z(y).expand(torch.Size([num_rows])).sample()
    x = vae.decode(z, y).sample()
    bounds = sandwich(vae.model, vae.guide, x, y, exact={"z": z}, num_temperatures=num_temperatures)
    weighted = importance_sample(vae.model, vae.guide, x, y, num_samples=num_samples)
    return bounds, weighted.log_marginal


def _moments(values: Tensor) -> dict[str, float | None]:
    """Return the mean over rows with its standard error, which is None for one row."""
    found = Estimate.over_rows(values.double())
    return {"mean": found.mean, "row_error": found.row_error, "num_rows": found.num_rows}


def _mean(values: Tensor) -> str:
    found = Estimate.over_rows(values.double())
    error = "" if found.row_error is None else f" ± {found.row_error:.2f}"
    return f"{found.mean:.2f}{error}"


def _quantiles(values: Tensor) -> dict[str, float | None]:
    """Return quantiles over rows; an infinite k-hat is None, since JSON has no number for it."""
    quantiles = {}
    for level in (0.05, 0.25, 0.5, 0.75, 0.95):
        value = values.quantile(level, interpolation="nearest").item()
        quantiles[f"{level:g}"] = value if math.isfinite(value) else None
    return quantiles


def _calibration(calibration: Calibration) -> dict[str, Any]:
    p_values = zip(calibration.names, calibration.p_values.tolist(), strict=True)
    return {
        "is_calibrated": calibration.is_calibrated,
        "failure_rate": calibration.failure_rate,
        "p_values": dict(p_values),
        "coverage": [coverage._asdict() for coverage in calibration.coverage()],
    }


def _bounds(bounds: Sandwich) -> dict[str, Any]:
    found: dict[str, Any] = {
        "lower": _moments(bounds.lower),
        "acceptance": bounds.acceptance.mean().item(),
    }
    if bounds.upper is not None:
        found["upper"] = _moments(bounds.upper)
        found["width"] = _moments(bounds.width)
    return found
