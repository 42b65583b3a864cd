"""R2: dynamically binarised MNIST in two dimensions, with plain SGD."""

import torch
from page import Page

from pyro_vae import Identity, Rows
from pyro_vae.figures import image_grid, latent_scatter, linear_grid, manifold
from pyro_vae.support import stream
from reproductions.training import compare, train

PUBLISHED_TRAIN, PUBLISHED_TEST = {20: 152.137}, {20: 151.325}


def reproduce(page: Page) -> None:
    """The data and how they are binarised, then what was learnt."""
    page.text("## R2: dynamically binarised MNIST")
    trained = train("mnist-dynamic-2d")
    vae, test = trained.vae, trained.splits.test
    compare(page, "mnist-dynamic-2d", trained, PUBLISHED_TRAIN, PUBLISHED_TEST)
    grey = Rows(test.levels, Identity())
    page.figure("data", image_grid(grey.batch(slice(100)).split(10), "MNIST test images"), "Data")
    with stream(0), torch.no_grad():
        one = torch.stack([test.batch(slice(0, 1))[0] for _ in range(9)])
        original = grey.batch(slice(0, 1)) / test.max_level
        page.figure(
            "binarisation",
            image_grid(
                [torch.cat([original, one])],
                "One image, and nine draws of its pixels",
                (),
                ("grey", *"123456789"),
            ),
            "Dynamic binarisation",
        )
        x = test.batch(slice(16))
        page.figure(
            "mnist-dynamic-2d_reconstructions",
            image_grid(
                [x, vae.reconstruct(x)], "Test images and their reconstructions", ("x", "E[x | z]")
            ),
            "Reconstructions",
        )
        means = vae.decode(vae.prior().sample(torch.Size([64]))).mean
        page.figure(
            "prior_samples",
            image_grid(means.split(8), "E[x | z] at z from the prior"),
            "Prior samples",
        )
        grid = linear_grid()
        page.figure(
            "linear_manifold", manifold(vae.decode(grid).mean, grid), "Decoded means over −4 to 4"
        )
        z = vae.encode(test.batch(slice(None))).sample()
    labels = test.labels if test.labels is not None else torch.zeros(len(test))
    page.figure(
        "scatter",
        latent_scatter(z, labels, "Draws of z for the test images, by digit"),
        "Latent scatter",
    )
