"""Read digits of which ten a class are labelled: a model y → z → x around the parts of a VAE.

The model is p(y) p(z | y) p(x | z), with a normal and its covariance for each class. Its guide is
q(z | x) q(y | z): the VAE's encoder, and a classifier of its codes. For rows without a label y is
enumerated. That costs ten densities of z, but no pass through a network: neither encoder nor
decoder looks at y.

Its accuracy is compared with that of the labels alone, and of the labels with a VAE's codes.

References:
    Semi-supervised learning with deep generative models, Kingma et al., 2014. In their M2 z does
    not depend on y, and both networks run once for each class.
"""

import copy
import sys
from functools import partial
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

import pyro_vae as pv
from pyro_vae.runs import Seed, SentenceParser, run

NUM_CLASSES = 10
# Labelled rows of each class.
NUM_LABELLED = 10
LATENT_DIM = 10
# Widths of the hidden layers of encoder, decoder and classifier.
HIDDEN = [400]
# Rows of a step of joint training.
BATCH = 200
# Steps of training on labels alone.
LABEL_STEPS = 300
# Weight of the labelled rows' cross-entropy; −ELBO of a row has weight 1.
ALPHA = 10.0


class ClassPrior(pv.Prior):
    """p(z | y) = N(z; loc_y, L_y L_yᵀ) for unit vectors y.

    Arguments:
        loc: loc_y of each class, `(K, D)`. L_y begins at the identity.
    """

    context_dim = NUM_CLASSES

    def __init__(self, loc: Tensor) -> None:
        super().__init__(LATENT_DIM)
        self.loc = nn.Parameter(loc)
        self.log_scale = nn.Parameter(torch.zeros(NUM_CLASSES, LATENT_DIM))
        self.below = nn.Parameter(torch.zeros(NUM_CLASSES, LATENT_DIM, LATENT_DIM))

    def forward(self, y: Tensor | None = None) -> dist.TorchDistribution:
        if y is None:
            raise ValueError("'y' must be given to a ClassPrior, got none.")
        k = y.argmax(-1)
        unit_tril = torch.eye(LATENT_DIM) + self.below.tril(-1)
        scale_tril = self.log_scale.exp().unsqueeze(-1) * unit_tril
        return dist.MultivariateNormal(self.loc[k], scale_tril=scale_tril[k])


def train_on_labels(
    encoder: pv.Posterior,
    classifier: nn.Module,
    x: Tensor,
    y: Tensor,
    *trained: nn.Module,
) -> None:
    """Train some of the networks on labelled rows and nothing else."""
    optimizer = torch.optim.Adam(nn.ModuleList(trained).parameters())
    for _ in range(LABEL_STEPS):
        optimizer.zero_grad()
        cross_entropy(classifier(encoder(x).mean), y).backward()
        optimizer.step()


def train_vae(vae: pv.VAE, rows: pv.Rows, epochs: int) -> None:
    """Train a VAE on rows without their labels."""
    optimizer = partial(torch.optim.Adam, lr=2e-3)
    execution = pv.Execution(precision="bfloat16")
    pv.fit(vae, rows, pv.Training(epochs, optimizer=optimizer, execution=execution))


def class_means(encoder: pv.Posterior, x: Tensor, y: Tensor) -> Tensor:
    """Return the mean code of each class, `(K, D)`."""
    means = [encoder(x[y == k]).mean.mean(0) for k in range(NUM_CLASSES)]
    return torch.stack(means).detach()


def train_jointly(
    vae: pv.VAE,
    classifier: nn.Module,
    rows: pv.Rows,
    seen: tuple[Tensor, Tensor],
    epochs: int,
) -> None:
    """Train all of p and q, on rows without their labels and on labelled ones (x, y)."""

    def model(x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("y", dist.Categorical(torch.ones(NUM_CLASSES)), obs=y)
            z = pyro.sample("z", vae.prior(one_hot(k, NUM_CLASSES)))
            pyro.sample("x", vae.likelihood(z), obs=x)

    def guide(x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", vae.posterior(x))
            if y is None:
                q_y = dist.Categorical(logits=classifier(z))
                pyro.sample("y", q_y, infer={"enumerate": "parallel"})

    unseen_elbo = TraceEnum_ELBO(max_plate_nesting=1)
    seen_elbo = Trace_ELBO()
    seen_x, seen_y = seen
    parameters = [*vae.parameters(), *classifier.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=2e-3, fused=True)
    for _ in range(epochs):
        for index in pv.Shuffled(BATCH).indices(len(rows)):
            x = rows.batch(index)
            unseen_loss = unseen_elbo.differentiable_loss(model, guide, x) / len(x)
            seen_loss = seen_elbo.differentiable_loss(model, guide, seen_x, seen_y) / len(rows)
            logits = classifier(vae.posterior(seen_x).rsample())
            label_loss = ALPHA * cross_entropy(logits, seen_y)
            optimizer.zero_grad()
            (unseen_loss + seen_loss + label_loss).backward()
            optimizer.step()


@torch.no_grad()
def show(name: str, encoder: pv.Posterior, classifier: nn.Module, test: pv.Rows) -> None:
    """Print the share of test rows whose most probable label is right, and its standard error."""
    codes = encoder(test.batch(slice(None))).mean
    is_right = classifier(codes).argmax(1) == test.labels
    share = pv.Estimate.over_rows(is_right.double())
    print(
        f"{name:<22} accuracy {share.mean:.4f} ± {share.row_error:.4f} "
        f"on {share.num_rows} test rows"
    )


def labelled_rows(rows: pv.Rows) -> tuple[Tensor, Tensor]:
    """Return x and y of some random rows of each class."""
    labels = torch.as_tensor(rows.labels)
    order = torch.randperm(len(rows))
    index = torch.cat([order[labels[order] == k][:NUM_LABELLED] for k in range(NUM_CLASSES)])
    return rows.batch(index), labels[index]


def read_options() -> Namespace:
    """Return the options of the command line."""
    parser = SentenceParser(description=__doc__)
    parser.add_argument(
        "--source", type=Literal["MNIST", "Digits"], default="MNIST", help="the data"
    )
    parser.add_argument(
        "--epochs", type=PositiveInt, default=20, help="how long to train a VAE without labels"
    )
    parser.add_argument(
        "--joint_epochs",
        type=PositiveInt,
        default=6,
        help="how long to train on all rows, with and without labels",
    )
    parser.add_argument(
        "--seed",
        type=Seed,
        default=0,
        help="the seed of the random draws, labelled rows included",
    )
    return parser.parse_args(sys.argv[1:])


def main() -> int:
    options = read_options()
    torch.manual_seed(options.seed)
    train, _, test = pv.load_splits(getattr(pv, options.source)(), pv.Threshold())
    x, y = labelled_rows(train)

    x_shape = train.x_shape
    encoder_network = pv.MLP(x_shape, HIDDEN, (2, LATENT_DIM))
    encoder = pv.DiagNormalPosterior(encoder_network, x_shape, LATENT_DIM)
    decoder = pv.BernoulliLikelihood(pv.MLP(LATENT_DIM, HIDDEN, x_shape), x_shape)
    classifier = pv.MLP(LATENT_DIM, HIDDEN, NUM_CLASSES)

    lone_encoder = copy.deepcopy(encoder)
    lone_classifier = copy.deepcopy(classifier)
    train_on_labels(lone_encoder, lone_classifier, x, y, lone_encoder, lone_classifier)
    show("labels alone", lone_encoder, lone_classifier, test)

    vae = pv.VAE(pv.StandardNormalPrior(LATENT_DIM), decoder, encoder)
    train_vae(vae, train, options.epochs)
    train_on_labels(encoder, classifier, x, y, classifier)
    show("labels, codes of a VAE", encoder, classifier, test)

    prior = ClassPrior(class_means(encoder, x, y))
    joint = pv.VAE(prior, decoder, encoder)
    train_jointly(joint, classifier, train, (x, y), options.joint_epochs)
    show("labels and all rows", encoder, classifier, test)
    return 0


if __name__ == "__main__":
    run(main)
