"""R1: threshold-binarised MNIST in 20 and in 2 dimensions."""

from collections.abc import Callable

import torch
from page import Page
from torch import Tensor

from pyro_vae import VAE, Splits
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
from pyro_vae.training import Snapshots
from reproductions.training import compare, train

TEST_20D = dict(
    enumerate(
        [116.365, 102.344, 96.556, 94.104, 91.995, 90.586, 89.906, 88.780, 88.075, 87.647], start=1
    )
)
TRAIN_20D = {1: 157.71, 10: 87.91}
TEST_2D = dict(
    enumerate(
        [159.490, 152.910, 149.378, 146.479, 144.263, 143.399, 141.274, 141.397, 140.119, 140.244],
        start=1,
    )
)
SHOWN = torch.tensor([1, 4, 12, 15, 22])
STEPS_PER_EPOCH, EPOCHS = 469, 10
EARLY = range(0, STEPS_PER_EPOCH, 10)
WHOLE = range(0, STEPS_PER_EPOCH * EPOCHS + 1, 67)
# The probabilities of a pixel in a noise image: a fair coin, and the mean grey level of MNIST.
NOISE = (0.5, 0.13)


def reproduce(page: Page) -> None:
    """Both nets; the manifold and the animations in two dimensions, the histogram of KL in twenty."""
    page.text("## R1: threshold-binarised MNIST")
    page.text("### 784-400-20")
    trained = train("mnist-20d", reconstructions)
    compare(page, "mnist-20d", trained, TRAIN_20D, TEST_20D)
    is_active = [variance > ACTIVE_VARIANCE for variance in trained.evaluation.active_variance]
    rates = [estimate.mean for estimate in trained.evaluation.rate_by_dim or []]
    page.figure(
        "kl_by_dimension",
        kl_by_dimension(rates, is_active, "mnist-20d: KL by dimension"),
        "KL by dimension",
    )
    originals, frames = trained.splits.test.batch(SHOWN), trained.snapshots[0]
    final = image_grid(
        [originals, frames.frames[-1]], "Test images and their reconstructions", ("x", "E[x | z]")
    )
    page.figure(
        "mnist-20d_reconstructions", final, "Test images 1, 4, 12, 15, 22 and their reconstructions"
    )
    animate(page, "reconstructions", frames, lambda frame: [originals, frame])
    noise(page, trained.vae, trained.splits)

    page.text("### 784-400-150-2")
    trained = train("mnist-2d", plane)
    compare(page, "mnist-2d", trained, {}, TEST_2D)
    with torch.no_grad():
        means = trained.vae.decode(quantile_grid()).mean
    page.figure(
        "manifold",
        manifold(means, quantile_grid()),
        "Decoded means at normal quantiles 0.05 to 0.95",
    )
    animate(page, "manifold", trained.snapshots[0], list)


def reconstructions(vae: VAE, splits: Splits) -> Snapshots:
    """The reconstructions of five test images."""
    x = splits.test.batch(SHOWN)
    return Snapshots(vae, {*EARLY, *WHOLE}, lambda vae: vae.reconstruct(x))


def plane(vae: VAE, splits: Splits) -> Snapshots:
    """The manifold."""
    grid = quantile_grid()
    return Snapshots(vae, {*EARLY, *WHOLE}, lambda vae: vae.decode(grid).mean)


def animate(
    page: Page, name: str, snapshots: Snapshots, rows: Callable[[Tensor], list[Tensor]]
) -> None:
    """Two animations: the first epoch, and all of training."""
    for stage, steps in (("early", EARLY), ("whole", WHOLE)):
        chosen = [
            (step, frame)
            for step, frame in zip(snapshots.taken, snapshots.frames, strict=True)
            if step in steps
        ]
        pictures = [tiled(rows(frame)) for _, frame in chosen]
        titles = [f"step {step}, epoch {step / STEPS_PER_EPOCH:.1f}" for step, _ in chosen]
        page.figure(
            f"{name}_{stage}", animation(pictures, titles), f"{name} through training, {stage}"
        )


def noise(page: Page, vae: VAE, splits: Splits) -> None:
    """Where the KL of noise images lies among that of the training images."""
    with stream(199):
        images = [torch.bernoulli(torch.full((1, *vae.x_shape), rate)) for rate in NOISE]
    kl: Tensor = evaluate_rows(vae, splits.train, num_samples=1, num_importance_samples=1).rate
    marked = {
        f"Bernoulli({rate}) noise": kl_of(vae, image)
        for rate, image in zip(NOISE, images, strict=True)
    }
    page.figure(
        "noise",
        image_grid(images, "Noise images", [str(rate) for rate in NOISE]),
        "The two noise images",
    )
    page.figure(
        "kl_histogram",
        score_histogram(kl, marked, "KL(q(z|x) ‖ p(z)) of the training images"),
        "KL of images",
    )
    inside = {name: float((kl > value).double().mean()) for name, value in marked.items()}
    page.table(
        ["", "KL (nats)", "share of training images above it"],
        [
            ["noise, published", 51.763, "0"],
            *([name, marked[name], inside[name]] for name in marked),
        ],
    )
    page.text(
        f"The training images' highest KL is {kl.max():.1f}. The image of fair coins lies beyond them all; the image with "
        "as much ink as a digit lies inside: KL alone does not tell noise from digits."
    )


def kl_of(vae: VAE, x: Tensor) -> float:
    """The KL of one row."""
    return torch.distributions.kl_divergence(vae.encode(x), vae.prior()).item()
