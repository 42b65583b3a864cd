"""Cluster digits without labels: a mixture of normals over the latent of a VAE, beside k-means.

The model is p(θ) Π_n p(k_n | θ) p(z_n | k_n, θ), with weights, locations and covariances of the
clusters in θ. Its guide is q(θ) Π_n q(z_n | x_n): an autoguide for θ, and the VAE's encoder,
frozen, for z. The clusters k are enumerated. The mixture starts at the clusters of k-means on the
codes, and may give each a covariance of its own. In most runs on MNIST a tenth more of the rows
are then right.

The term log p(x | z) is left out. With encoder and decoder frozen, its expectation does not depend
on θ. With an encoder that learns it must come back: nothing else would keep the codes of different
x apart.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from jsonargparse.typing import PositiveInt
from matplotlib.figure import Figure
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, infer_discrete
from pyro.infer.autoguide import AutoNormal, init_to_value
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from torch import Tensor

import pyro_vae as pv
from pyro_vae import figures
from pyro_vae.runs import Seed, SentenceParser, output_folder, run

NUM_CLUSTERS = 10
LATENT_DIM = 10
# Widths of the hidden layers of encoder and decoder.
HIDDEN = [400]
# Rows of a step of the mixture.
BATCH = 500
# Added to the variances of the clusters of k-means, so that none is 0.
VARIANCE_FLOOR = 1e-3
# Draws of each cluster in the picture.
NUM_SHOWN = 10


def train_vae(rows: pv.Rows, epochs: int) -> pv.VAE:
    x_shape = rows.x_shape
    vae = pv.VAE(
        pv.StandardNormalPrior(LATENT_DIM),
        pv.BernoulliLikelihood(pv.MLP(LATENT_DIM, HIDDEN, x_shape), x_shape),
        pv.DiagNormalPosterior(pv.MLP(x_shape, HIDDEN, (2, LATENT_DIM)), x_shape, LATENT_DIM),
    )
    optimizer = partial(torch.optim.Adam, lr=2e-3)
    execution = pv.Execution(precision="bfloat16")
    pv.fit(vae, rows, pv.Training(epochs, optimizer=optimizer, execution=execution))
    return vae.eval().requires_grad_(False)


def codes(vae: pv.VAE, rows: pv.Rows) -> Tensor:
    """Return E_q[z | x] of each row, `(N, D)`."""
    return vae.posterior(rows.batch(slice(None))).mean


def model(x: Tensor, size: int) -> None:
    """Draw the clusters, and z of each row of x; these stand for `size` rows."""
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(NUM_CLUSTERS)))
    with pyro.plate("clusters", NUM_CLUSTERS):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(LATENT_DIM), 2.0).to_event(1))
        scale = pyro.sample("scale", dist.LogNormal(torch.zeros(LATENT_DIM), 1.0).to_event(1))
        correlation = pyro.sample("correlation", dist.LKJCholesky(LATENT_DIM))
    scale_tril = scale.unsqueeze(-1) * correlation
    with pyro.plate("data", size, subsample=torch.arange(len(x))):
        k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("z", dist.MultivariateNormal(loc[k], scale_tril=scale_tril[k]))


def start_at(labels: Tensor, z: Tensor) -> dict[str, Tensor]:
    """Return θ of given clusters: the share, the mean and the covariance of each."""
    clusters = [z[labels == k] for k in range(NUM_CLUSTERS)]
    covariance = torch.stack([cluster.T.cov() for cluster in clusters])
    covariance = covariance + VARIANCE_FLOOR * torch.eye(LATENT_DIM)
    scale = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    return {
        "weights": torch.tensor([len(cluster) / len(z) for cluster in clusters]),
        "loc": torch.stack([cluster.mean(0) for cluster in clusters]),
        "scale": scale,
        "correlation": torch.linalg.cholesky(covariance) / scale.unsqueeze(-1),
    }


def fit_mixture(
    vae: pv.VAE,
    rows: pv.Rows,
    start: dict[str, Tensor],
    steps: int,
) -> dict[str, Tensor]:
    """Train q(θ) from given values on, and return its median."""
    global_model = poutine.block(model, hide=["k", "z"])
    init_loc_fn = init_to_value(values=start)
    global_guide = AutoNormal(global_model, init_loc_fn=init_loc_fn, init_scale=0.01)

    def guide(x: Tensor, size: int) -> None:
        global_guide(x, size)
        with pyro.plate("data", size, subsample=torch.arange(len(x))):
            pyro.sample("z", vae.posterior(x))

    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    svi = pv.SVI(model, guide, partial(torch.optim.Adam, lr=0.01), elbo)
    for index in pv.WithReplacement(BATCH, steps).indices(len(rows)):
        svi.step(rows.batch(index), len(rows))
    return {name: value.detach() for name, value in global_guide.median().items()}


def most_probable_clusters(theta: dict[str, Tensor], z: Tensor) -> Tensor:
    """Return argmax_k p(k | z, θ) of each row."""
    conditioned = poutine.condition(model, theta | {"z": z})
    assign = infer_discrete(conditioned, first_available_dim=-2, temperature=0)
    return poutine.trace(assign).get_trace(z, len(z)).nodes["k"]["value"]


def picture(vae: pv.VAE, theta: dict[str, Tensor]) -> Figure:
    """Show E[x | z] at draws of z from each cluster, a row for each."""
    k = torch.arange(NUM_CLUSTERS).repeat_interleave(NUM_SHOWN)
    conditioned = poutine.condition(model, theta | {"k": k})
    z = poutine.trace(conditioned).get_trace(k, len(k)).nodes["z"]["value"]
    x = vae.likelihood(z).mean
    return figures.image_grid(x.split(NUM_SHOWN), "draws of each cluster")


def accuracy(clusters: Tensor, labels: Tensor) -> float:
    """Return the share of right rows, under the best matching of clusters and labels."""
    counts = torch.zeros(NUM_CLUSTERS, NUM_CLUSTERS)
    counts.index_put_((clusters.long(), labels), torch.ones(len(labels)), accumulate=True)
    matching = linear_sum_assignment(counts.numpy(), maximize=True)
    return counts[matching].sum().item() / len(labels)


def show(name: str, clusters: Tensor, labels: Tensor) -> None:
    """Print the accuracy with the standard error of a share."""
    num_rows = len(labels)
    share = accuracy(clusters, labels)
    error = (share * (1 - share) / num_rows) ** 0.5
    print(f"{name:<10} accuracy {share:.4f} ± {error:.4f} on {num_rows} test rows")


def main() -> int:
    parser = SentenceParser(description=__doc__)
    parser.add_argument(
        "--source", type=Literal["MNIST", "Digits"], default="MNIST", help="the data"
    )
    parser.add_argument("--epochs", type=PositiveInt, default=20, help="how long to train the VAE")
    parser.add_argument(
        "--steps", type=PositiveInt, default=2_000, help="how long to train the mixture"
    )
    parser.add_argument("--seed", type=Seed, default=0, help="the seed of the random draws")
    parser.add_argument("--out", type=str, help="a folder for a picture of draws from each cluster")
    options = parser.parse_args(sys.argv[1:])
    if options.out is not None:
        output_folder(options.out, "out")
    torch.manual_seed(options.seed)
    train, _, test = pv.load_splits(getattr(pv, options.source)(), pv.Threshold())
    vae = train_vae(train, options.epochs)
    train_codes = codes(vae, train)
    test_codes = codes(vae, test)

    k_means = KMeans(NUM_CLUSTERS, n_init=10, random_state=options.seed).fit(train_codes.numpy())
    start = start_at(torch.from_numpy(k_means.labels_), train_codes)
    with pyro.get_param_store().scope():  # the autoguide's parameters go with it
        theta = fit_mixture(vae, train, start, options.steps)

    labels = torch.as_tensor(test.labels)
    of_mixture = most_probable_clusters(theta, test_codes)
    show("k-means", torch.from_numpy(k_means.predict(test_codes.numpy())), labels)
    show("mixture", of_mixture, labels)
    if options.out is not None:
        Path(options.out).mkdir(parents=True, exist_ok=True)
        picture(vae, theta).savefig(Path(options.out) / "clusters.png", dpi=120)
    return 0


if __name__ == "__main__":
    run(main)
