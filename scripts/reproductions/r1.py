"""R1: threshold-binarised MNIST in 20 and in 2 dimensions."""

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_vae import VAE, Snapshots, Splits
from pyro_vae.commands.page import Page
from pyro_vae.evaluation import ACTIVE_VARIANCE, evaluate_rows
from pyro_vae.figures import (
    animation,
    image_grid,
    kl_by_dimension,
    manifold,
    quantile_grid,
    score_histogram,
    tiled,
)
from pyro_vae.support import stream
from reproductions.training import compare, train

# Published −ELBO in nats per row, by epoch.
TRAIN_20D = {1: 157.71, 10: 87.91}
TEST_20D = {
    1: 116.365,
    2: 102.344,
    3: 96.556,
    4: 94.104,
    5: 91.995,
    6: 90.586,
    7: 89.906,
    8: 88.780,
    9: 88.075,
    10: 87.647,
}
TEST_2D = {
    1: 159.490,
    2: 152.910,
    3: 149.378,
    4: 146.479,
    5: 144.263,
    6: 143.399,
    7: 141.274,
    8: 141.397,
    9: 140.119,
    10: 140.244,
}
# Published KL of a noise image, in nats.
KL_OF_NOISE = 51.763

# The test images whose reconstructions are shown.
SHOWN = torch.tensor([1, 4, 12, 15, 22])
STEPS_PER_EPOCH = 469
EPOCHS = 10
# Steps at which the frames of the two animations are taken.
EARLY = range(0, STEPS_PER_EPOCH, 10)
WHOLE = range(0, STEPS_PER_EPOCH * EPOCHS + 1, 67)
# The probabilities of a pixel in a noise image: a fair coin, and the mean grey level of MNIST.
NOISE = (0.5, 0.13)


def reproduce(page: Page) -> None:
    """Train both networks, and draw what the original shows of each."""
    page.text("## R1: threshold-binarised MNIST")
    in_twenty_dimensions(page)
    in_two_dimensions(page)


def in_twenty_dimensions(page: Page) -> None:
    """Draw the KL by dimension, reconstructions through training, and noise images."""
    page.text("### 784-400-20")
    trained = train("mnist-20d", reconstructions)
    compare(page, "mnist-20d", trained, TRAIN_20D, TEST_20D)
    is_active = [variance > ACTIVE_VARIANCE for variance in trained.evaluation.active_variance]
    rates = [estimate.mean for estimate in trained.evaluation.rate_by_dim or []]
    figure = kl_by_dimension(rates, is_active, "mnist-20d: KL by dimension")
    page.figure("kl_by_dimension", figure, "KL by dimension")
    originals = trained.splits.test.batch(SHOWN)
    (snapshots,) = trained.snapshots
    rows = [originals, snapshots.frames[-1]]
    final = image_grid(rows, "Test images and their reconstructions", ("x", "E[x | z]"))
    caption = "Test images 1, 4, 12, 15, 22 and their reconstructions"
    page.figure("mnist-20d_reconstructions", final, caption)
    animate(page, "reconstructions", snapshots, lambda frame: [originals, frame])
    noise(page, trained.vae, trained.splits)


def in_two_dimensions(page: Page) -> None:
    """Draw the manifold, at the end and through training."""
    page.text("### 784-400-150-2")
    trained = train("mnist-2d", plane)
    compare(page, "mnist-2d", trained, {}, TEST_2D)
    grid = quantile_grid()
    with torch.no_grad():
        means = trained.vae.decode(grid).mean
    caption = "Decoded means at normal quantiles 0.05 to 0.95"
    page.figure("manifold", manifold(means, grid), caption)
    (snapshots,) = trained.snapshots
    animate(page, "manifold", snapshots, list)


def reconstructions(vae: VAE, splits: Splits) -> Snapshots:
    """Take the reconstructions of five test images."""
    x = splits.test.batch(SHOWN)
    return Snapshots(vae, {*EARLY, *WHOLE}, lambda vae: vae.reconstruct(x))


def plane(vae: VAE, splits: Splits) -> Snapshots:
    """Take the manifold."""
    grid = quantile_grid()
    return Snapshots(vae, {*EARLY, *WHOLE}, lambda vae: vae.decode(grid).mean)


def animate(
    page: Page,
    name: str,
    snapshots: Snapshots,
    rows: Callable[[Tensor], list[Tensor]],
) -> None:
    """Add two animations: the first epoch, and all of training.

    Arguments:
        page: the page.
        name: the name of the files.
        snapshots: the frames, with the step of each.
        rows: from a frame to the rows of images in it.
    """
    for stage, steps in (("early", EARLY), ("whole", WHOLE)):
        pictures = []
        titles = []
        for step, frame in zip(snapshots.taken, snapshots.frames, strict=True):
            if step in steps:
                pictures.append(tiled(rows(frame)))
                titles.append(f"step {step}, epoch {step / STEPS_PER_EPOCH:.1f}")
        moving = animation(pictures, titles)
        page.figure(f"{name}_{stage}", moving, f"{name} through training, {stage}")


def noise(page: Page, vae: VAE, splits: Splits) -> None:
    """Compare the KL of noise images with that of the training images."""
    with stream(199):
        images = [torch.bernoulli(torch.full((1, *vae.x_shape), rate)) for rate in NOISE]
    kl: Tensor = evaluate_rows(vae, splits.train, num_samples=1, num_importance_samples=1).rate
    kl_of_noise = {}
    rows: list[list[object]] = [["noise, published", KL_OF_NOISE, "0"]]
    for rate, image in zip(NOISE, images, strict=True):
        name = f"Bernoulli({rate}) noise"
        kl_of_noise[name] = kl_of(vae, image)
        share_above = float((kl > kl_of_noise[name]).double().mean())
        rows.append([name, kl_of_noise[name], share_above])
    grid = image_grid(images, "Noise images", [str(rate) for rate in NOISE])
    page.figure("noise", grid, "The two noise images")
    histogram = score_histogram(kl, kl_of_noise, "KL(q(z|x) ‖ p(z)) of the training images")
    page.figure("kl_histogram", histogram, "KL of images")
    page.table(["", "KL (nats)", "share of training images above it"], rows)
    page.text(
        f"The training images' highest KL is {kl.max():.1f}. The image of fair coins lies beyond "
        "them all; the image with as much ink as a digit lies inside: KL alone does not tell "
        "noise from digits."
    )


def kl_of(vae: VAE, x: Tensor) -> float:
    """Return the KL of one row, in nats."""
    return torch.distributions.kl_divergence(vae.encode(x), vae.prior()).item()
