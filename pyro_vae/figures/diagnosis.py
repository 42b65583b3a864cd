"""Figures of the diagnostics: functions from results to a matplotlib `Figure`.

They save and show nothing.
"""

import math
from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyro_vae.diagnostics.calibration import Calibration
from pyro_vae.figures.images import image_grid
from pyro_vae.figures.notebook import NotebookFigure
from pyro_vae.inference.psis import GOOD_KHAT, TRUSTED_KHAT
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import check_sizes

# Width of a bin of k-hat; both thresholds are edges.
_KHAT_STEP = 0.05
_MAX_KHAT_BINS = 100
_MAX_PANELS = 12
_MAX_PANEL_COLUMNS = 4
_MAX_LEVELS = 50
# Share of bins of uniform ranks inside the band of a rank histogram.
_BAND = 0.99


@arguments_checked
def khat_histogram(khat: Tensor, title: str) -> Figure:
    """Draw a histogram of Pareto k-hat over rows: good (≤ 0.5), usable (≤ 0.7) and the others.

    Rows without a k-hat have infinity or NaN, since their draws in the tail are too few. They are
    counted but not drawn.

    References:
        Pareto smoothed importance sampling, Vehtari et al., 2024.

    Arguments:
        khat: k-hat of each row, `(B,)`.
        title: the title.
    """
    khat = khat.detach().cpu().double()
    known = khat[khat.isfinite()]
    good = known[known <= GOOD_KHAT]
    usable = known[(known > GOOD_KHAT) & (known <= TRUSTED_KHAT)]
    others = known[known > TRUSTED_KHAT]
    groups = {
        f"$\\hat{{k}} \\leq {GOOD_KHAT}$": (good, "0.82"),
        f"${GOOD_KHAT} < \\hat{{k}} \\leq {TRUSTED_KHAT}$": (usable, "0.55"),
        f"$\\hat{{k}} > {TRUSTED_KHAT}$": (others, "0.15"),
    }
    figure = NotebookFigure(figsize=(6.4, 4), layout="constrained")
    axis = figure.subplots()
    edges = _khat_edges(known)
    for name, (rows, color) in groups.items():
        label = f"{name}: {_share(len(rows), len(khat))}"
        axis.hist(rows.numpy(), bins=edges, color=color, label=label)
    for value, style in ((GOOD_KHAT, "--"), (TRUSTED_KHAT, ":")):
        axis.axvline(value, color="black", linewidth=1, linestyle=style)
    if len(known) < len(khat):
        share = _share(len(khat) - len(known), len(khat))
        axis.plot([], [], " ", label=f"no $\\hat{{k}}$, too few tail draws: {share}")
    axis.set(title=title, xlabel="Pareto $\\hat{k}$ of a row", ylabel="rows")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@arguments_checked
def worst_rows(
    images: Tensor,
    reconstructions: Tensor,
    khat: Tensor,
    title: str = "Rows with the largest Pareto k-hat",
) -> Figure:
    """Draw the rows with the largest k-hat above their reconstructions.

    Arguments:
        images: rows of data, `(B, *x_shape)`.
        reconstructions: E[x | z] of each row, `(B, *x_shape)`.
        khat: k-hat of each row, `(B,)`; infinity counts as largest.
        title: the title.

    Raises:
        ValueError: if there are not as many rows, reconstructions and k-hats.
    """
    check_sizes(khat, "khat", len(images))
    check_sizes(reconstructions, "reconstructions", *images.shape)
    khat = khat.detach().cpu()
    known = khat.nan_to_num(nan=math.inf, posinf=math.inf)
    worst = known.argsort(descending=True, stable=True)[:_MAX_PANELS]
    labels = []
    for value in khat[worst].tolist():
        labels.append(f"{value:.2f}" if math.isfinite(value) else "∞")
    rows = [images.detach().cpu()[worst], reconstructions.detach().cpu()[worst]]
    figure = image_grid(rows, title, ("x", "E[x | z]"), labels)
    figure.axes[0].set_xlabel("Pareto $\\hat{k}$ of the row", fontsize="small")
    return figure


@arguments_checked
def rank_histograms(calibration: Calibration, title: str) -> Figure:
    """Draw the ranks of z* and of log p(x, z*) among draws from q(z | x), flat if q is exact.

    U-shaped ranks show intervals that are too narrow, hump-shaped ranks intervals that are too
    wide, and sloping ranks a shift. The grey band holds 99 % of the bins of uniform ranks, each bin
    by itself. The figure shows twelve quantities: those with the lowest p-values, and always
    log p(x, z).

    Arguments:
        calibration: the result of `calibrate`.
        title: the title.
    """
    shown = _worst_quantities(calibration)
    counts = calibration.histogram()
    num_bins = counts.shape[1]
    low, high = _binomial_interval(len(calibration.ranks), 1 / num_bins, _BAND)
    figure, axes = _panels(len(shown))
    edges = torch.linspace(0, calibration.num_draws, num_bins + 1).numpy()
    band = f"{100 * _BAND:g} % of the bins of uniform ranks"
    for axis, column in zip(axes, shown, strict=True):
        axis.axhspan(low, high, color="0.8", linewidth=0, label=band)
        rows = counts[column].numpy()
        axis.stairs(rows, edges, color="black", baseline=None, label="rows in a bin")
        _head(axis, calibration, column)
    axes[0].set_ylim(bottom=0)
    axes[0].yaxis.set_major_locator(MaxNLocator(4, integer=True))
    for axis in axes[-_MAX_PANEL_COLUMNS:]:
        axis.tick_params(labelbottom=True)
        axis.set_xlabel(f"rank among {calibration.num_draws} draws", fontsize="small")
    for axis in axes[::_MAX_PANEL_COLUMNS]:
        axis.set_ylabel("rows", fontsize="small")
    figure.suptitle(title, fontsize="medium")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@arguments_checked
def coverage_curve(calibration: Calibration, title: str) -> Figure:
    """Draw the coverage of z* by central intervals against that of the exact posterior.

    Intervals with a curve below the diagonal are too narrow.

    Arguments:
        calibration: the result of `calibrate`.
        title: the title.
    """
    num_places = calibration.num_draws + 1
    most = calibration.num_draws // 2
    step = -(-most // _MAX_LEVELS)
    levels = [1 - 2 * outside / num_places for outside in range(most, 0, -step)]
    results = calibration.coverage(levels)
    nominal = [result.nominal for result in results]
    mean = torch.tensor([result.mean for result in results])
    error = 2 * torch.tensor([result.standard_error for result in results])
    figure = NotebookFigure(figsize=(5, 5.4), layout="constrained")
    axis = figure.subplots()
    by_dim = torch.tensor([result.by_dim for result in results])
    for dim, achieved in enumerate(by_dim.unbind(1)):
        label = "one latent dimension each" if dim == 0 else None
        axis.plot(nominal, achieved.numpy(), color="0.75", linewidth=0.8, label=label)
    low = (mean - error).numpy()
    high = (mean + error).numpy()
    axis.fill_between(nominal, low, high, color="C0", alpha=0.35, linewidth=0)
    label = "mean over dimensions ± 2 standard errors"
    axis.plot(nominal, mean.numpy(), color="C0", linewidth=2, label=label)
    axis.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle="--", label="exact posterior")
    axis.set(
        title=title,
        xlabel="nominal coverage",
        ylabel="achieved coverage",
        xlim=(0, 1),
        ylim=(0, 1),
        aspect="equal",
    )
    figure.legend(loc="outside lower center")
    return figure


@arguments_checked
def sandwich(lower: Tensor, upper: Tensor | None, guide_bound: Tensor, title: str) -> Figure:
    """Draw bounds on log p(x) of each row, in the order of the lower bound.

    The upper panel shows the bounds, the lower panel their distance from the lower bound.

    Arguments:
        lower: the bound by annealed importance sampling, in nats, `(B,)`.
        upper: the bound by reverse annealing, for rows whose exact z is known, in nats, `(B,)`; or
            None.
        guide_bound: the bound by importance sampling from q(z | x), in nats, `(B,)`.
        title: the title.

    Raises:
        ValueError: if the bounds are not of the same rows.
    """
    check_sizes(lower, "lower", "B")
    check_sizes(guide_bound, "guide_bound", len(lower))
    if upper is not None:
        check_sizes(upper, "upper", len(lower))
    order = lower.detach().cpu().argsort()
    bounds = (
        ("upper bound, reverse annealing", upper, "^", "C1"),
        ("lower bound, annealing", lower, "-", "black"),
        ("importance bound of q(z | x)", guide_bound, "x", "C0"),
    )
    figure = NotebookFigure(figsize=(6.4, 5.4), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    base = lower.detach().cpu()[order]
    places = torch.arange(1, len(order) + 1).numpy()
    for name, bound, style, color in bounds:
        if bound is None:
            continue
        values = bound.detach().cpu()[order]
        label = f"{name}: {values.mean():.2f} on average"
        look = {"color": color, "fillstyle": "none", "markersize": 4, "linewidth": 1}
        above.plot(places, values.numpy(), style, label=label, **look)
        below.plot(places, (values - base).numpy(), style, **look)
    above.set(title=title, ylabel="log p(x) (nats)")
    below.set(xlabel="row, by rising lower bound", ylabel="less the lower (nats)")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center")
    return figure


def _khat_edges(khat: Tensor) -> list[float]:
    """Return edges of bins that cover all k-hat, with a width that is a multiple of the step."""
    low, high = 0.0, 1.0
    if len(khat):
        low = min(low, khat.min().item())
        high = max(high, khat.max().item())
    step = _KHAT_STEP * max(1, math.ceil((high - low) / _KHAT_STEP / _MAX_KHAT_BINS))
    first = math.floor(low / step)
    last = math.ceil(high / step)
    return [number * step for number in range(first, last + 1)]


def _worst_quantities(calibration: Calibration) -> Sequence[int]:
    """Return the columns with the lowest p-values, always with the last column, log p(x, z)."""
    order = calibration.p_values.argsort(stable=True).tolist()
    joint = len(order) - 1
    worst = order[:_MAX_PANELS]
    return worst if joint in worst else [*worst[:-1], joint]


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """Return a figure and small axes with common scales, in reading order."""
    num_columns = min(_MAX_PANEL_COLUMNS, count)
    num_lines = -(-count // num_columns)
    size = (max(5.0, 2.1 * num_columns + 0.6), 1.7 * num_lines + 1.2)
    figure = NotebookFigure(figsize=size, layout="constrained")
    grid = figure.subplots(num_lines, num_columns, sharex=True, sharey=True, squeeze=False)
    axes = grid.flatten().tolist()
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def _head(axis: Axes, calibration: Calibration, column: int) -> None:
    name = calibration.names[column]
    if name.startswith("z_"):
        name = f"${name[:2]}{{{name[2:]}}}$"
    p_value = calibration.p_values[column].item()
    is_rejected = bool(calibration.is_rejected[column])
    weight = "bold" if is_rejected else "normal"
    ending = "rejected" if is_rejected else f"p = {p_value:.2g}"
    axis.set_title(f"{name}: {ending}", fontsize="small", weight=weight)


def _binomial_interval(num_trials: int, probability: float, level: float) -> tuple[int, int]:
    """Return the lowest and highest count of a central interval with at least this probability."""
    counts = torch.arange(num_trials + 1, dtype=torch.float64)
    probs = torch.tensor(probability, dtype=torch.float64)
    binomial = torch.distributions.Binomial(num_trials, probs)
    below = binomial.log_prob(counts).exp().cumsum(0)
    tail = (1 - level) / 2
    return int((below < tail).sum()), int((below < 1 - tail).sum())


def _share(part: int, whole: int) -> str:
    return f"{part:,} rows, {100 * part / max(1, whole):.1f} %"
