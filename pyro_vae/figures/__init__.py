"""Figures: functions from tensors to matplotlib figures."""

from pyro_vae.figures.charts import (
    elbo_history,
    kl_by_dimension,
    latent_scatter,
    score_histogram,
)
from pyro_vae.figures.diagnosis import (
    coverage_curve,
    khat_histogram,
    rank_histograms,
    sandwich,
    worst_rows,
)
from pyro_vae.figures.histories import loss_curves
from pyro_vae.figures.images import animation, as_images, image_grid, manifold, tiled
from pyro_vae.figures.latent_grids import (
    in_plane,
    linear_grid,
    quantile_grid,
    spherical_path,
    straight_path,
)

__all__ = [
    "animation",
    "as_images",
    "coverage_curve",
    "elbo_history",
    "image_grid",
    "in_plane",
    "khat_histogram",
    "kl_by_dimension",
    "latent_scatter",
    "linear_grid",
    "loss_curves",
    "manifold",
    "quantile_grid",
    "rank_histograms",
    "sandwich",
    "score_histogram",
    "spherical_path",
    "straight_path",
    "tiled",
    "worst_rows",
]
