"""R4: interpolation between digits in twenty dimensions."""

import torch
from page import Page

from pyro_vae import VAE, Splits
from pyro_vae.distributions import distribution_mean
from pyro_vae.figures import image_grid, spherical_path, straight_path
from pyro_vae.support import stream
from pyro_vae.training import Snapshots
from reproductions.training import compare, train

SHOWN, STEPS = 10, 9


def reproduce(page: Page) -> None:
    """Reconstructions before and after, prior samples, and the way from a 0 to a 6."""
    page.text("## R4: interpolation")
    trained = train("mnist-interpolate", untrained)
    compare(page, "mnist-interpolate", trained, {}, {})
    vae, test = trained.vae, trained.splits.test
    x = test.batch(slice(SHOWN))
    rows = [x, trained.snapshots[0].frames[0], vae.reconstruct(x)]
    labels = ("x", "untrained", "20 epochs")
    page.figure(
        "before_and_after",
        image_grid(rows, "Reconstructions before and after training", labels),
        "Before and after",
    )
    with stream(0), torch.no_grad():
        means = vae.decode(vae.prior().sample(torch.Size([8]))).mean
        page.figure(
            "eight_samples", image_grid([means], "E[x | z] at z from the prior"), "Prior samples"
        )
        zero, six = distribution_mean(vae.encode(test.batch(first_of(test.labels, 0, 6))))
        paths = [
            vae.decode(path(zero, six, STEPS)).mean for path in (straight_path, spherical_path)
        ]
    shares = [f"{step}/8" for step in range(STEPS)]
    figure = image_grid(paths, "From a 0 to a 6", ("straight line", "great circle"), shares)
    page.figure("interpolation", figure, "z = (1 − i/8) z₀ + (i/8) z₆, and along the great circle")


def untrained(vae: VAE, splits: Splits) -> Snapshots:
    """The reconstructions before the first step."""
    x = splits.test.batch(slice(SHOWN))
    return Snapshots(vae, {0}, lambda vae: vae.reconstruct(x))


def first_of(labels: torch.Tensor | None, *digits: int) -> torch.Tensor:
    """The first row of each digit."""
    if labels is None:
        raise ValueError("'data' must have labels to choose digits by.")
    return torch.tensor([int((labels == digit).nonzero()[0]) for digit in digits])
