"""R4: interpolation between digits in twenty dimensions."""

import torch
from torch import Tensor

from pyro_vae import VAE, Snapshots, Splits
from pyro_vae.commands.page import Page
from pyro_vae.distributions import distribution_mean
from pyro_vae.figures import image_grid, spherical_path, straight_path
from pyro_vae.support import stream
from reproductions.training import compare, train

# Test images whose reconstructions are shown.
NUM_SHOWN = 10
# Images on the way between two digits, both ends included.
STEPS = 9


def reproduce(page: Page) -> None:
    """Draw reconstructions before and after, prior samples, and the way from a 0 to a 6."""
    page.text("## R4: interpolation")
    trained = train("mnist-interpolate", untrained)
    compare(page, "mnist-interpolate", trained, {}, {})
    vae = trained.vae
    test = trained.splits.test
    x = test.batch(slice(NUM_SHOWN))
    (snapshots,) = trained.snapshots
    rows = [x, snapshots.frames[0], vae.reconstruct(x)]
    labels = ("x", "untrained", "20 epochs")
    figure = image_grid(rows, "Reconstructions before and after training", labels)
    page.figure("before_and_after", figure, "Before and after")

    with stream(0), torch.no_grad():
        means = vae.decode(vae.prior().sample(torch.Size([8]))).mean
        ends = test.batch(first_of(test.labels, 0, 6))
        zero, six = distribution_mean(vae.encode(ends))
        straight = vae.decode(straight_path(zero, six, STEPS)).mean
        spherical = vae.decode(spherical_path(zero, six, STEPS)).mean
    figure = image_grid([means], "E[x | z] at z from the prior")
    page.figure("eight_samples", figure, "Prior samples")
    names = ("straight line", "great circle")
    shares = [f"{step}/8" for step in range(STEPS)]
    figure = image_grid([straight, spherical], "From a 0 to a 6", names, shares)
    page.figure("interpolation", figure, "z = (1 − i/8) z₀ + (i/8) z₆, and along the great circle")


def untrained(vae: VAE, splits: Splits) -> Snapshots:
    """Take the reconstructions before the first step."""
    x = splits.test.batch(slice(NUM_SHOWN))
    return Snapshots(vae, {0}, lambda vae: vae.reconstruct(x))


def first_of(labels: Tensor | None, *digits: int) -> Tensor:
    """Return the number of the first row of each digit."""
    if labels is None:
        raise ValueError("'data' must have labels to choose digits by.")
    return torch.tensor([int((labels == digit).nonzero()[0]) for digit in digits])
