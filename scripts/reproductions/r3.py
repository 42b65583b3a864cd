"""R3: grey MNIST under a relaxed Bernoulli in ten dimensions."""

import torch
from sklearn.manifold import TSNE

from pyro_vae.commands.page import Page
from pyro_vae.figures import image_grid, latent_scatter
from pyro_vae.support import stream
from reproductions.training import compare, labels_of, train

# Published −ELBO of the training rows in nats per row, by epoch.
PUBLISHED = {1: 147.485, 2: 122.674, 3: 119.444, 4: 118.064, 5: 117.057}
# Draws of z in the t-SNE, whose work grows fast with them.
EMBEDDED_ROWS = 1000


def reproduce(page: Page) -> None:
    """Draw reconstructions, and the t-SNE of draws of z."""
    page.text("## R3: grey MNIST, relaxed Bernoulli, ten dimensions")
    trained = train("mnist-10d")
    compare(page, "mnist-10d", trained, PUBLISHED, {})
    vae = trained.vae
    test = trained.splits.test.take(slice(EMBEDDED_ROWS))
    x = test.batch(slice(None))
    with stream(0), torch.no_grad():
        z = vae.encode(x).sample()
        pairs = [x[:10], vae.reconstruct(x[:10])]
    figure = image_grid(pairs, "Test images and their reconstructions", ("x", "E[x | z]"))
    page.figure("mnist-10d_reconstructions", figure, "Reconstructions")
    embedded = torch.from_numpy(TSNE(random_state=0).fit_transform(z.numpy()))
    title = "t-SNE of 1,000 draws of z, by digit"
    axes = ("t-SNE 1", "t-SNE 2")
    figure = latent_scatter(embedded, labels_of(test), title, axes, colour_bar=True)
    page.figure("tsne", figure, "t-SNE")
