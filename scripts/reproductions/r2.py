"""R2: dynamically binarised MNIST in two dimensions, with plain SGD."""

import torch

from pyro_vae import Identity, Rows
from pyro_vae.commands.page import Page
from pyro_vae.figures import image_grid, latent_scatter, linear_grid, manifold
from pyro_vae.support import stream
from reproductions.training import compare, labels_of, train

# Published −ELBO in nats per row, by epoch.
PUBLISHED_TRAIN = {20: 152.137}
PUBLISHED_TEST = {20: 151.325}


def reproduce(page: Page) -> None:
    """Draw the data and their binarisation, then reconstructions, samples and the latent."""
    page.text("## R2: dynamically binarised MNIST")
    trained = train("mnist-dynamic-2d")
    vae = trained.vae
    test = trained.splits.test
    compare(page, "mnist-dynamic-2d", trained, PUBLISHED_TRAIN, PUBLISHED_TEST)

    grey = Rows(test.levels, Identity())
    original = grey.batch(slice(0, 1)) / test.max_level
    grid = linear_grid()
    with stream(0), torch.no_grad():
        binary = torch.stack([test.batch(slice(0, 1))[0] for _ in range(9)])
        x = test.batch(slice(16))
        pairs = [x, vae.reconstruct(x)]
        samples = vae.decode(vae.prior().sample(torch.Size([64]))).mean
        on_plane = vae.decode(grid).mean
        z = vae.encode(test.batch(slice(None))).sample()

    data = image_grid(grey.batch(slice(100)).split(10), "MNIST test images")
    page.figure("data", data, "Data")
    draws = [torch.cat([original, binary])]
    title = "One image, and nine draws of its pixels"
    figure = image_grid(draws, title, (), ("grey", *"123456789"))
    page.figure("binarisation", figure, "Dynamic binarisation")
    figure = image_grid(pairs, "Test images and their reconstructions", ("x", "E[x | z]"))
    page.figure("mnist-dynamic-2d_reconstructions", figure, "Reconstructions")
    figure = image_grid(samples.split(8), "E[x | z] at z from the prior")
    page.figure("prior_samples", figure, "Prior samples")
    page.figure("linear_manifold", manifold(on_plane, grid), "Decoded means over −4 to 4")
    figure = latent_scatter(z, labels_of(test), "Draws of z for the test images, by digit")
    page.figure("scatter", figure, "Latent scatter")
