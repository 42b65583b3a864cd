"""Points of a latent space to decode: grids of a plane, and paths between two points."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import check_finite, check_sizes, positive, whole

# Below this angle in radians the great circle is a straight line to single precision.
_SMALL_ANGLE = 1e-4


@arguments_checked
def quantile_grid(side: int = 20, margin: float = 0.05) -> Tensor:
    """Return points at equal steps of a standard normal's probability, `(side, side, 2)`.

    The top row comes first; z₁ rises to the right and z₂ upwards.

    References:
        Auto-encoding variational Bayes, Kingma and Welling, 2013, figure 4.

    Arguments:
        side: the number of points along each axis.
        margin: the probability below the first point and above the last point.

    Raises:
        ValueError: if `side` is below 1, or `margin` not between 0 and a half.
    """
    whole(side, "side")
    if not 0 < margin < 0.5:
        raise ValueError(f"'margin' must lie between 0 and 0.5, got {margin}.")
    probs = torch.linspace(margin, 1 - margin, side)
    return _plane_grid(torch.distributions.Normal(0.0, 1.0).icdf(probs))


@arguments_checked
def linear_grid(side: int = 20, extent: float = 4.0) -> Tensor:
    """Return points at equal steps from −extent to extent, `(side, side, 2)`.

    The top row comes first; z₁ rises to the right and z₂ upwards.

    Raises:
        ValueError: if `side` is below 1, or `extent` not above 0.
    """
    whole(side, "side")
    positive(extent, "extent")
    check_finite(extent, "extent")
    return _plane_grid(torch.linspace(-extent, extent, side))


@arguments_checked
def in_plane(grid: Tensor, latent_dim: int, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Return the points of a grid, `(side, side, 2)`, in D dimensions, `(side, side, D)`.

    All dimensions outside the plane are 0.

    Raises:
        ValueError: if `dims` are not two different latent dimensions.
    """
    first, second = dims if len(dims) == 2 else (-1, -1)
    if not (0 <= first < latent_dim and 0 <= second < latent_dim and first != second):
        raise ValueError(
            f"'dims' must be two dimensions from 0 to {latent_dim - 1}, got {tuple(dims)}."
        )
    check_sizes(grid, "grid", "side", "side", 2)
    z = grid.new_zeros(*grid.shape[:-1], latent_dim)
    z[..., first] = grid[..., 0]
    z[..., second] = grid[..., 1]
    return z


@arguments_checked
def straight_path(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """Return z_i = (1 − i/n) first + (i/n) last for i = 0 … n = steps − 1, `(steps, D)`.

    Raises:
        ValueError: if the points are not vectors of one length, or `steps` is below 1.
    """
    _check_ends(first, last, steps)
    share = torch.linspace(0, 1, steps).to(first).unsqueeze(1)
    return torch.lerp(first, last, share)


@arguments_checked
def spherical_path(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """Return the path along the great circle between two points, `(steps, D)`.

    Unlike a straight path it keeps lengths that are usual under the prior.

    References:
        Animating rotation with quaternion curves, Shoemake, 1985.

    Raises:
        ValueError: if the points are not vectors of one length, or `steps` is below 1.
    """
    _check_ends(first, last, steps)
    share = torch.linspace(0, 1, steps).to(first).unsqueeze(1)
    angle = torch.arccos(torch.cosine_similarity(first, last, dim=0).clamp(-1, 1))
    if angle < _SMALL_ANGLE:
        return straight_path(first, last, steps)
    weighted = torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * last
    return weighted / torch.sin(angle)


def _check_ends(first: Tensor, last: Tensor, steps: int) -> None:
    check_sizes(first, "first", "D")
    check_sizes(last, "last", len(first))
    whole(steps, "steps")
    if not first.is_floating_point():
        raise ValueError(f"'first' must hold real numbers, got {first.dtype}.")


def _plane_grid(points: Tensor) -> Tensor:
    second, first = torch.meshgrid(points.flip(0), points, indexing="ij")
    return torch.stack([first, second], dim=-1)
