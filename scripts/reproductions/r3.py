"""R3: grey MNIST under a relaxed Bernoulli in ten dimensions."""

import torch
from page import Page
from sklearn.manifold import TSNE

from pyro_vae.figures import image_grid, latent_scatter
from pyro_vae.support import stream
from reproductions.training import compare, train

PUBLISHED = dict(enumerate([147.485, 122.674, 119.444, 118.064, 117.057], start=1))
EMBEDDED_ROWS = 1000


def reproduce(page: Page) -> None:
    """Reconstructions and the t-SNE of draws of z."""
    page.text("## R3: grey MNIST, relaxed Bernoulli, ten dimensions")
    trained = train("mnist-10d")
    compare(page, "mnist-10d", trained, PUBLISHED, {})
    vae, test = trained.vae, trained.splits.test.take(slice(EMBEDDED_ROWS))
    x = test.batch(slice(None))
    with stream(0), torch.no_grad():
        z = vae.encode(x).sample()
        rows = [x[:10], vae.reconstruct(x[:10])]
    page.figure(
        "mnist-10d_reconstructions",
        image_grid(rows, "Test images and their reconstructions", ("x", "E[x | z]")),
        "Reconstructions",
    )
    embedded = torch.from_numpy(TSNE(random_state=0).fit_transform(z.numpy()))
    labels = test.labels if test.labels is not None else torch.zeros(len(test))
    title = "t-SNE of 1,000 draws of z, by digit"
    figure = latent_scatter(embedded, labels, title, ("t-SNE 1", "t-SNE 2"), colour_bar=True)
    page.figure("tsne", figure, "t-SNE")
