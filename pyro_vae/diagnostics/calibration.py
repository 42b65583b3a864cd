"""Simulation-based calibration: a test that draws from q(z | x) are draws from p(z | x)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from pyro_vae.data.arrays import Array
from pyro_vae.data.batch import rows_of
from pyro_vae.evaluation.vae_rows import BLOCK_ROWS
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import described, real, whole
from pyro_vae.support.chunks import chunk_size
from pyro_vae.support.modules import evaluating, tensor_like
from pyro_vae.support.progress import tracked
from pyro_vae.support.streams import stream
from pyro_vae.support.tables import shown_in_short
from pyro_vae.vae import VAE

# A function from x, `(B, *x_shape)`, y, `(B, Y)` or None, and the number L of draws to draws of z,
# `(L, B, D)`.
Draw: TypeAlias = Callable[[Tensor, Tensor | None, int], Tensor]

# Draws times rows that pass through the decoder at once, to bound the memory.
_CHUNK = 5_000
# Mean rows per bin; with fewer, the chi-squared approximation fails in the tail that Bonferroni
# uses.
_ROWS_PER_BIN = 40
# Fewer bins show no shape; more bins dilute the few that differ.
_MIN_BINS = 5
_MAX_BINS = 20
LEAST_ROWS = _MIN_BINS * _ROWS_PER_BIN
# A mean or variance of ranks this many standard errors off gives the fault its name.
_NAMED_FROM = 3.0
# Most names that a verdict lists for one fault.
_LISTED = 8


class Coverage(NamedTuple):
    """Share of rows in which a central interval of the draws holds the z* that made x.

    Arguments:
        level: the requested level.
        nominal: the level of an exact posterior. The interval from the a-th smallest to the a-th
            largest of L draws holds z* with probability (L + 1 − 2a) / (L + 1). The whole number a
            makes this nearest to `level`.
        mean: the share of rows and latent dimensions whose interval holds z*.
        standard_error: the standard error of `mean`. It takes rows as independent, but not the
            dimensions of a row.
        by_dim: the share of rows for each latent dimension.
    """

    level: float
    nominal: float
    mean: float
    standard_error: float
    by_dim: list[float]


@shown_in_short
class Calibration(NamedTuple):
    """Ranks of z* and of log p(x, z*) among draws from q(z | x), with a test of uniformity.

    The ranks are uniform if q(z | x) is the posterior p(z | x).

    Arguments:
        ranks: the number of draws lower than the truth, 0 to L, `(N, D + 1)`, log p(x, z) last.
        num_draws: the number L of draws for each row.
        failure_rate: an upper bound on the probability that an exact posterior is rejected.
        p_values: the p-value of each column of `ranks` by itself, `(D + 1,)`.
    """

    ranks: Tensor
    num_draws: int
    failure_rate: float
    p_values: Tensor

    @classmethod
    @arguments_checked
    def from_ranks(cls, ranks: Tensor, num_draws: int, failure_rate: float = 0.01) -> "Calibration":
        """Test ranks from elsewhere, `(N, D + 1)` whole numbers from 0 to `num_draws`.

        Raises:
            ValueError: if there are too few rows or draws, or the ranks are not such numbers.
        """
        _check_sizes(len(ranks), num_draws, failure_rate)
        is_table = ranks.dim() == 2 and not ranks.is_floating_point()
        if not ranks.numel():
            raise ValueError(f"'ranks' must not be empty, got the shape {tuple(ranks.shape)}.")
        if not is_table or ranks.min() < 0 or ranks.max() > num_draws:
            raise ValueError(
                f"'ranks' must be whole numbers from 0 to {num_draws} of the shape ({len(ranks)}, "
                f"D + 1), got {ranks.dtype} from {ranks.min()} to {ranks.max()} of the shape "
                f"{tuple(ranks.shape)}."
            )
        return cls(ranks, num_draws, failure_rate, _p_values(ranks, num_draws))

    @property
    def names(self) -> list[str]:
        """Names of the columns of `ranks`."""
        return [f"z_{dim + 1}" for dim in range(self.ranks.shape[1] - 1)] + ["log p(x, z)"]

    @property
    def is_rejected(self) -> Tensor:
        """Mask of columns that are not uniform, `(D + 1,)`, at the failure rate.

        A column is rejected for p ≤ failure_rate / (D + 1), after Bonferroni.
        """
        return self.p_values <= self.failure_rate / len(self.p_values)

    @property
    def is_calibrated(self) -> bool:
        """True if no column is rejected."""
        return not bool(self.is_rejected.any())

    def histogram(self) -> Tensor:
        """Return the number of rows with ranks in each of equal bins of 0 to L, `(D + 1, bins)`."""
        return _histogram(self.ranks, self.num_draws)

    @arguments_checked
    def coverage(self, levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95)) -> list[Coverage]:
        """Return the coverage of z* by central intervals of these levels.

        Raises:
            ValueError: if there are too few draws for a level.
        """
        return [self._coverage(level) for level in levels]

    def verdict(self) -> str:
        """Return the result in words: uniform, or the quantities that are not, and their faults.

        If draws of log p(x, z) are too high, the draws of z lie too near the mode. If they are too
        low, the draws of z miss correlations, for instance.
        """
        level = f"{100 * self.failure_rate:g} %"
        if self.is_calibrated:
            return f"uniform: none of {len(self.names)} quantities is rejected at {level}"
        faults: dict[str, list[str]] = {}
        contrasts = _contrasts(self.ranks, self.num_draws).unbind(1)
        columns = zip(self.names, contrasts, self.is_rejected, strict=True)
        for name, contrast, is_rejected in columns:
            if is_rejected:
                faults.setdefault(_fault(contrast), []).append(name)
        found = [f"{fault} in {_listed(names)}" for fault, names in faults.items()]
        return f"rejected at {level}: " + "; ".join(found)

    def _coverage(self, level: float) -> Coverage:
        num_places = self.num_draws + 1
        outside = round(num_places * (1 - level) / 2) if 0 < level < 1 else 0
        if not 1 <= outside <= self.num_draws // 2:
            raise ValueError(
                "'levels' must leave a draw on either side of the interval and one inside, which "
                f"{self.num_draws} draws do from {1 / num_places:.3g} to "
                f"{1 - 1 / num_places:.3g}, got {level}."
            )
        ranks = self.ranks[:, :-1]
        is_inside = ((ranks >= outside) & (ranks <= self.num_draws - outside)).double()
        row_share = is_inside.mean(1)
        return Coverage(
            level=level,
            nominal=(num_places - 2 * outside) / num_places,
            mean=row_share.mean().item(),
            standard_error=row_share.std().item() / len(row_share) ** 0.5,
            by_dim=is_inside.mean(0).tolist(),
        )


@arguments_checked
@torch.no_grad()
def calibrate(
    vae: VAE,
    *,
    num_rows: int = 1000,
    num_draws: int = 99,
    failure_rate: float = 0.01,
    y: Tensor | None = None,
    draw: Draw | None = None,
    seed: int = 0,
) -> Calibration:
    """Rank z* among draws from q(z | x), for simulated rows: z* ~ p(z), x ~ p(x | z*).

    With q(z | x) = p(z | x) the rank of each z*_d, and of log p(x, z*), is uniform on 0 to L. The
    coordinates show wrong locations and scales; log p(x, z) also shows wrong correlations. The test
    of uniformity is chi-squared on equal bins of the ranks, and on their mean and variance. It says
    nothing about data that the VAE does not simulate.

    References:
        Validation of software for Bayesian models using posterior quantiles, Cook, Gelman and
            Rubin, 2006.
        Validating Bayesian inference algorithms with simulation-based calibration, Talts et al.,
            2018.
        Simulation-based calibration checking for Bayesian computation: the choice of test
            quantities shapes sensitivity, Modrák et al., 2023.
        "Smooth test" for goodness of fit, Neyman, 1937: for the mean and variance.

    Arguments:
        vae: the VAE, used in evaluation mode.
        num_rows: the number N of simulated rows.
        num_draws: the number L of draws for each row; L + 1 must be divisible by a number of bins.
        failure_rate: an upper bound on the probability that an exact posterior is rejected.
        y: the context of each row of a conditional VAE, `(num_rows, Y)`.
        draw: the draws of another posterior to test, a function from x, y and L to `(L, B, D)`;
            called without gradients.
        seed: names the random stream of z*, x and all other draws from torch's default generators.

    Raises:
        ValueError: if `vae` is no VAE, there are too few rows or draws, or y does not fit; if draws
            are not finite or have another shape.

    Example:
        >>> from pyro_vae.diagnostics import calibrate
        >>> calibrate(vae, num_rows=400).ranks.shape
        torch.Size([400, 3])
    """
    _check_sizes(num_rows, num_draws, failure_rate)
    reference = tensor_like(vae)
    device = reference.device
    y = _context(vae, y, num_rows)
    draw = draw or (lambda x, y, count: vae.encode(x, y).sample(torch.Size([count])))
    blocks = []
    with evaluating(vae):
        parts = torch.arange(num_rows, device=device).split(BLOCK_ROWS)
        for number, rows in enumerate(tracked(parts, "calibration")):
            with stream(seed, number, device=device):
                ranks = _rank_block(vae, draw, len(rows), num_draws, rows_of(y, rows))
                blocks.append(ranks.cpu())
    return Calibration.from_ranks(torch.cat(blocks), num_draws, failure_rate)


def _check_sizes(num_rows: int, num_draws: int, failure_rate: float) -> None:
    whole(num_rows, "num_rows")
    whole(num_draws, "num_draws")
    if num_rows < LEAST_ROWS:
        raise ValueError(
            f"'num_rows' must be at least {LEAST_ROWS}, {_MIN_BINS} bins of {_ROWS_PER_BIN}, got "
            f"{num_rows}."
        )
    if _num_bins(num_rows, num_draws) < _MIN_BINS:
        raise ValueError(
            f"'num_draws' plus 1 must be divisible by a number from {_MIN_BINS} to "
            f"{_most_bins(num_rows)}, as 99 + 1 is, for {num_rows} rows, got {num_draws}."
        )
    real(
        failure_rate,
        "failure_rate",
        holds=lambda rate: 0 < rate < 1,
        accepted="lie in (0, 1)",
    )


def _context(vae: VAE, y: Array | None, num_rows: int) -> Tensor | None:
    """Return the context of each simulated row, offsets of the likelihood included."""
    context = vae.read_context(y)
    if vae.context_dim and (context is None or tuple(context.shape[:-1]) != (num_rows,)):
        expected = (num_rows, vae.context_dim)
        received = "none" if context is None else tuple(context.shape)
        raise ValueError(
            f"'y' must have the shape {expected} for this conditional VAE, got {received}."
        )
    context = vae.with_offsets(None, context)
    return None if context is None else context.expand(num_rows, -1)


def _rank_block(vae: VAE, draw: Draw, num_rows: int, num_draws: int, y: Tensor | None) -> Tensor:
    """Simulate rows and return the ranks of z* and of log p(x, z*), `(B, D + 1)`."""
    truth = vae.p_z(y).expand(torch.Size([num_rows])).sample()
    x = vae.decode(truth, y).sample()
    draws = draw(x, y, num_draws)
    expected = (num_draws, *truth.shape)
    if not isinstance(draws, Tensor):
        raise ValueError(f"'draw' must give a tensor of draws, got {described(draws)}.")
    if draws.shape != expected:
        raise ValueError(
            f"'draw' must give draws of the shape {expected}, got {tuple(draws.shape)}."
        )
    if not draws.isfinite().all():
        raise ValueError("'draw' must give finite draws, got NaN or infinity.")
    z = torch.cat([truth.unsqueeze(0), draws.to(truth)])
    quantities = torch.cat([z, _log_joint(vae, z, x, y).unsqueeze(-1)], dim=-1)
    return _rank(quantities[0], quantities[1:])


def _log_joint(vae: VAE, z: Tensor, x: Tensor, y: Tensor | None) -> Tensor:
    """Return log p(x, z) in nats, `(S, B)`.

    All z of a row share one pass, so that equal z have equal values.
    """
    size = chunk_size(_CHUNK, len(z))
    columns = []
    for rows in torch.arange(len(x), device=x.device).split(size):
        z_rows = z[:, rows]
        y_rows = rows_of(y, rows)
        log_prior = vae.p_z(y_rows).log_prob(z_rows)
        columns.append(log_prior + vae.decode(z_rows, y_rows).log_prob(x[rows]))
    return torch.cat(columns, dim=1)


def _rank(truth: Tensor, draws: Tensor) -> Tensor:
    """Return the rank of the truth, `(*)`, among draws, `(L, *)`, from 0 to L; ties are random."""
    num_lower = (draws < truth).sum(0)
    num_equal = (draws == truth).sum(0)
    uniform = torch.rand(truth.shape, device=truth.device)
    return num_lower + (uniform * (num_equal + 1)).long()


def _most_bins(num_rows: int) -> int:
    return min(_MAX_BINS, num_rows // _ROWS_PER_BIN)


def _num_bins(num_rows: int, num_draws: int) -> int:
    """Return the largest number of equal bins of the ranks 0 to L with enough rows in each."""
    counts = range(1, _most_bins(num_rows) + 1)
    return max(count for count in counts if (num_draws + 1) % count == 0)


def _histogram(ranks: Tensor, num_draws: int) -> Tensor:
    num_bins = _num_bins(len(ranks), num_draws)
    bins = ranks * num_bins // (num_draws + 1)
    return torch.stack([column.bincount(minlength=num_bins) for column in bins.unbind(1)])


def _contrasts(ranks: Tensor, num_draws: int) -> Tensor:
    """Return mean and variance about L / 2 of the ranks as standard scores, `(2, D + 1)`.

    A score is the difference from the value of uniform ranks, in standard errors. For an exact
    posterior both scores are standard normal and uncorrelated.
    """
    places = torch.arange(num_draws + 1, dtype=torch.float64) - num_draws / 2
    centred = ranks.double() - num_draws / 2
    square = (places**2).mean()
    location = centred.mean(0) / square.sqrt()
    spread = ((centred**2).mean(0) - square) / (places**2).std(correction=0)
    return torch.stack([location, spread]) * len(ranks) ** 0.5


def _p_values(ranks: Tensor, num_draws: int) -> Tensor:
    """Return twice the smaller of two p-values: of the histogram, and of the mean and variance."""
    counts = _histogram(ranks, num_draws).double()
    expected = len(ranks) / counts.shape[1]
    by_bin = _chi_squared_tail(((counts - expected) ** 2 / expected).sum(1), counts.shape[1] - 1)
    smooth = _chi_squared_tail((_contrasts(ranks, num_draws) ** 2).sum(0), 2)
    return (2 * torch.minimum(by_bin, smooth)).clamp(max=1)


def _chi_squared_tail(statistic: Tensor, degrees: int) -> Tensor:
    return torch.special.gammaincc(torch.full_like(statistic, degrees / 2), statistic / 2)


def _fault(contrast: Tensor) -> str:
    """Return the fault of draws whose ranks have these scores of mean and variance, `(2,)`.

    The larger score decides.
    """
    location, spread = contrast.tolist()
    if max(abs(location), abs(spread)) < _NAMED_FROM:
        return "ranks not uniform"
    if abs(location) > abs(spread):
        return "shifted (draws too low)" if location > 0 else "shifted (draws too high)"
    if spread > 0:
        return "intervals too narrow (U-shaped ranks)"
    return "intervals too wide (hump-shaped ranks)"


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _LISTED
    more = f" and {rest} more" if rest > 0 else ""
    return ", ".join(names[:_LISTED]) + more
