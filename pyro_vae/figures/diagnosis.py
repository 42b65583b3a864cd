"""Figures of the diagnostics: tensors in, a matplotlib `Figure` out; nothing is computed, saved or shown here."""

import math
from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyro_vae.diagnostics.calibration import Calibration
from pyro_vae.figures.images import image_grid
from pyro_vae.inference.psis import GOOD_KHAT, TRUSTED_KHAT

# The width of a bin of k-hat; both thresholds are edges.
_KHAT_STEP = 0.05
_MAX_KHAT_BINS = 100
_MAX_PANELS = 12
_MAX_PANEL_COLUMNS = 4
_MAX_LEVELS = 50
# The share of bins that lie in the band of a rank histogram when the ranks are uniform.
_BAND = 0.99


def khat_histogram(khat: Tensor, title: str) -> Figure:
    """How Pareto k-hat is spread over rows, and which share of them is good (≤ 0.5), usable (≤ 0.7) and neither.

    Rows without one, which have infinity or NaN for want of draws in the tail, are counted and not drawn.

    References:
        Pareto smoothed importance sampling, Vehtari et al., 2024.

    Arguments:
        khat: k-hat of each row, `(B,)`.
        title: the title.
    """
    khat = khat.detach().cpu().double()
    known = khat[khat.isfinite()]
    groups = {
        f"$\\hat{{k}} \\leq {GOOD_KHAT}$": (known[known <= GOOD_KHAT], "0.82"),
        f"${GOOD_KHAT} < \\hat{{k}} \\leq {TRUSTED_KHAT}$": (
            known[(known > GOOD_KHAT) & (known <= TRUSTED_KHAT)],
            "0.55",
        ),
        f"$\\hat{{k}} > {TRUSTED_KHAT}$": (known[known > TRUSTED_KHAT], "0.15"),
    }
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axis = figure.subplots()
    edges = _khat_edges(known)
    for name, (rows, color) in groups.items():
        axis.hist(rows.numpy(), bins=edges, color=color, label=f"{name}: {_share(len(rows), len(khat))}")
    for value, style in ((GOOD_KHAT, "--"), (TRUSTED_KHAT, ":")):
        axis.axvline(value, color="black", linewidth=1, linestyle=style)
    if len(known) < len(khat):
        axis.plot(
            [], [], " ", label=f"no $\\hat{{k}}$, too few tail draws: {_share(len(khat) - len(known), len(khat))}"
        )
    axis.set(title=title, xlabel="Pareto $\\hat{k}$ of a row", ylabel="rows")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def worst_rows(
    images: Tensor, reconstructions: Tensor, khat: Tensor, title: str = "Rows with the largest Pareto k-hat"
) -> Figure:
    """The rows with the largest k-hat, over their reconstructions.

    Arguments:
        images: rows of data, `(B, *x_shape)`.
        reconstructions: E[x | z] of each, `(B, *x_shape)`.
        khat: k-hat of each, `(B,)`; infinity stands first.
        title: the title.
    """
    worst = khat.detach().cpu().nan_to_num(nan=math.inf, posinf=math.inf).argsort(descending=True, stable=True)
    worst = worst[:_MAX_PANELS]
    labels = [f"{value:.2f}" if math.isfinite(value) else "∞" for value in khat.detach().cpu()[worst].tolist()]
    rows = [images.detach().cpu()[worst], reconstructions.detach().cpu()[worst]]
    figure = image_grid(rows, title, ("x", "E[x | z]"), labels)
    figure.axes[0].set_xlabel("Pareto $\\hat{k}$ of the row", fontsize="small")
    return figure


def rank_histograms(calibration: Calibration, title: str) -> Figure:
    """The ranks of z* and of log p(x, z*) among draws from q(z | x): level for the exact posterior.

    U-shaped ranks tell of intervals that are too narrow, hump-shaped ones of too wide, sloping ones of a shift. The grey
    band holds 99 % of the bins of uniform ranks, each bin by itself. The twelve quantities with the lowest p-values are
    shown, and log p(x, z) always.

    Arguments:
        calibration: what `calibrate` returns.
        title: the title.
    """
    shown = _worst_quantities(calibration)
    counts, num_rows = calibration.histogram(), len(calibration.ranks)
    low, high = _binomial_interval(num_rows, 1 / counts.shape[1], _BAND)
    figure, axes = _panels(len(shown))
    places = torch.linspace(0, calibration.num_draws, counts.shape[1] + 1)
    for axis, column in zip(axes, shown, strict=True):
        axis.axhspan(low, high, color="0.8", linewidth=0, label=f"{100 * _BAND:g} % of the bins of uniform ranks")
        axis.stairs(counts[column].numpy(), places.numpy(), color="black", baseline=None, label="rows in a bin")
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


def coverage_curve(calibration: Calibration, title: str) -> Figure:
    """How often central intervals hold z*, against how often the exact posterior's do: below the diagonal, too narrow.

    Arguments:
        calibration: what `calibrate` returns.
        title: the title.
    """
    num_places, most = calibration.num_draws + 1, calibration.num_draws // 2
    step = -(-most // _MAX_LEVELS)
    results = calibration.coverage([1 - 2 * outside / num_places for outside in range(most, 0, -step)])
    nominal = [result.nominal for result in results]
    mean = torch.tensor([result.mean for result in results])
    error = 2 * torch.tensor([result.standard_error for result in results])
    figure = Figure(figsize=(5, 5.4), layout="constrained")
    axis = figure.subplots()
    by_dim = torch.tensor([result.by_dim for result in results])
    for dim, achieved in enumerate(by_dim.unbind(1)):
        label = "one latent dimension each" if dim == 0 else None
        axis.plot(nominal, achieved.numpy(), color="0.75", linewidth=0.8, label=label)
    axis.fill_between(nominal, (mean - error).numpy(), (mean + error).numpy(), color="C0", alpha=0.35, linewidth=0)
    axis.plot(nominal, mean.numpy(), color="C0", linewidth=2, label="mean over dimensions ± 2 standard errors")
    axis.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle="--", label="exact posterior")
    axis.set(
        title=title, xlabel="nominal coverage", ylabel="achieved coverage", xlim=(0, 1), ylim=(0, 1), aspect="equal"
    )
    figure.legend(loc="outside lower center")
    return figure


def sandwich(lower: Tensor, upper: Tensor | None, guide_bound: Tensor, title: str) -> Figure:
    """Bounds on log p(x) of each row, by rising lower bound: as they are, and as distances from the lower bound.

    Arguments:
        lower: by annealed importance sampling, in nats, `(B,)`.
        upper: by the reverse of it, for rows whose exact z is known, in nats, `(B,)`; None where there is none.
        guide_bound: by importance sampling from q(z | x), in nats, `(B,)`.
        title: the title.
    """
    order = lower.detach().cpu().argsort()
    bounds = {"upper bound, reverse annealing": (upper, "^"), "lower bound, annealing": (lower, "-")}
    bounds["importance bound of q(z | x)"] = (guide_bound, "x")
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    base, places = lower.detach().cpu()[order], torch.arange(1, len(order) + 1).numpy()
    for number, (name, (bound, style)) in enumerate(bounds.items()):
        if bound is None:
            continue
        values = bound.detach().cpu()[order]
        draw = {"color": ("C1", "black", "C0")[number], "fillstyle": "none", "markersize": 4, "linewidth": 1}
        above.plot(places, values.numpy(), style, label=f"{name}: {values.mean():.2f} on average", **draw)
        below.plot(places, (values - base).numpy(), style, **draw)
    above.set(title=title, ylabel="log p(x) (nats)")
    below.set(xlabel="row, by rising lower bound", ylabel="less the lower (nats)")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center")
    return figure


def _khat_edges(khat: Tensor) -> list[float]:
    """Edges of bins that hold all k-hat and both thresholds, a multiple of the step wide."""
    low, high = (min(0.0, khat.min().item()), max(1.0, khat.max().item())) if len(khat) else (0.0, 1.0)
    step = _KHAT_STEP * max(1, math.ceil((high - low) / _KHAT_STEP / _MAX_KHAT_BINS))
    return [number * step for number in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _worst_quantities(calibration: Calibration) -> Sequence[int]:
    """The columns with the lowest p-values, the last one in any case."""
    order = calibration.p_values.argsort(stable=True).tolist()
    joint = len(order) - 1
    return order[:_MAX_PANELS] if joint in order[:_MAX_PANELS] else [*order[: _MAX_PANELS - 1], joint]


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """Small axes with common scales in reading order."""
    num_columns = min(_MAX_PANEL_COLUMNS, count)
    num_lines = -(-count // num_columns)
    figure = Figure(figsize=(max(5.0, 2.1 * num_columns + 0.6), 1.7 * num_lines + 1.2), layout="constrained")
    axes = figure.subplots(num_lines, num_columns, sharex=True, sharey=True, squeeze=False).flatten().tolist()
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def _head(axis: Axes, calibration: Calibration, column: int) -> None:
    name, p_value = calibration.names[column], calibration.p_values[column].item()
    name = f"${name[:2]}{{{name[2:]}}}$" if name.startswith("z_") else name
    is_rejected = bool(calibration.is_rejected[column])
    weight = "bold" if is_rejected else "normal"
    ending = "rejected" if is_rejected else f"p = {p_value:.2g}"
    axis.set_title(f"{name}: {ending}", fontsize="small", weight=weight)


def _binomial_interval(num_trials: int, probability: float, level: float) -> tuple[int, int]:
    """The lowest and highest count of a central interval with at least this probability."""
    counts = torch.arange(num_trials + 1, dtype=torch.float64)
    binomial = torch.distributions.Binomial(num_trials, torch.tensor(probability, dtype=torch.float64))
    below = binomial.log_prob(counts).exp().cumsum(0)
    tail = (1 - level) / 2
    return int((below < tail).sum()), int((below < 1 - tail).sum())


def _share(part: int, whole: int) -> str:
    return f"{part:,} rows, {100 * part / max(1, whole):.1f} %"
