"""Read digits of which ten a class are labelled: a model y → z → x around the parts of a VAE, beside the labels alone.

The model is p(y) p(z | y) p(x | z), with a normal and its covariance for each class. Its guide is q(z | x) q(y | z): the
VAE's encoder, and a classifier of its codes. Where y is not seen it is enumerated, which costs ten densities of z, but no
pass through a network: neither encoder nor decoder looks at y.

References:
    Semi-supervised learning with deep generative models, Kingma et al., 2014. In their M2 z does not
    depend on y, and both networks run once for each class.
"""

import copy
import sys
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

import pyro_vae as pv
from pyro_vae.runs import SentenceParser, run

NUM_CLASSES, NUM_LABELLED, LATENT_DIM, HIDDEN, BATCH = 10, 10, 10, [400], 200
ALPHA = 10.0  # what the cross-entropy of the labelled rows weighs beside the −ELBO of a row


class ClassPrior(pv.Prior):
    """p(z | y) = N(z; loc_y, L_y L_yᵀ) for unit vectors y."""

    context_dim = NUM_CLASSES

    def __init__(self, loc: Tensor) -> None:
        super().__init__(LATENT_DIM)
        self.loc = nn.Parameter(loc)
        self.log_scale = nn.Parameter(torch.zeros(NUM_CLASSES, LATENT_DIM))
        self.below = nn.Parameter(torch.zeros(NUM_CLASSES, LATENT_DIM, LATENT_DIM))

    def forward(self, y: Tensor | None = None) -> dist.TorchDistribution:
        if y is None:
            raise ValueError("'y' must be given to a ClassPrior, got none.")
        scale_tril = self.log_scale.exp().unsqueeze(-1) * (
            torch.eye(LATENT_DIM) + self.below.tril(-1)
        )
        return dist.MultivariateNormal(self.loc[y.argmax(-1)], scale_tril=scale_tril[y.argmax(-1)])


def train_on_labels(
    encoder: pv.Posterior, classifier: nn.Module, x: Tensor, y: Tensor, *trained: nn.Module
) -> None:
    """Train these of the networks on labelled rows and nothing else."""
    optimizer = torch.optim.Adam(nn.ModuleList(trained).parameters())
    for _ in range(300):
        optimizer.zero_grad()
        cross_entropy(classifier(encoder(x).mean), y).backward()
        optimizer.step()


def train_jointly(
    vae: pv.VAE, classifier: nn.Module, rows: pv.Rows, seen: tuple[Tensor, Tensor], epochs: int
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
                pyro.sample(
                    "y", dist.Categorical(logits=classifier(z)), infer={"enumerate": "parallel"}
                )

    elbo, seen_elbo = TraceEnum_ELBO(max_plate_nesting=1), Trace_ELBO()
    optimizer = torch.optim.Adam([*vae.parameters(), *classifier.parameters()], lr=2e-3, fused=True)
    for index in (index for _ in range(epochs) for index in pv.Shuffled(BATCH).indices(len(rows))):
        x = rows.batch(index)
        unseen_loss = elbo.differentiable_loss(model, guide, x) / len(x)
        seen_loss = seen_elbo.differentiable_loss(model, guide, *seen) / len(rows)
        label_loss = ALPHA * cross_entropy(classifier(vae.posterior(seen[0]).rsample()), seen[1])
        optimizer.zero_grad()
        (unseen_loss + seen_loss + label_loss).backward()
        optimizer.step()


@torch.no_grad()
def show(name: str, encoder: pv.Posterior, classifier: nn.Module, test: pv.Rows) -> None:
    """Print the share of test rows whose most probable label is right, and its standard error."""
    right = (classifier(encoder(test.batch(slice(None))).mean).argmax(1) == test.labels).double()
    print(
        f"{name:<22} accuracy {right.mean():.4f} ± {right.std() / len(right) ** 0.5:.4f} on {len(right)} test rows"
    )


def main() -> int:
    parser = SentenceParser(description=__doc__)
    parser.add_argument(
        "--source", type=str, choices=("MNIST", "Digits"), default="MNIST", help="the data"
    )
    parser.add_argument(
        "--epochs", type=int, default=20, help="how long to train a VAE without labels"
    )
    parser.add_argument(
        "--joint_epochs", type=int, default=6, help="how long to train on all there is"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="names the random stream, and the draw of labelled rows"
    )
    options = parser.parse_args(sys.argv[1:])
    torch.manual_seed(options.seed)
    train, _, test = pv.load_splits(getattr(pv, options.source)(), pv.Threshold())
    order, labels, x_shape = (
        torch.randperm(len(train)),
        torch.as_tensor(train.labels),
        train.x_shape,
    )
    index = torch.cat([order[labels[order] == k][:NUM_LABELLED] for k in range(NUM_CLASSES)])
    x, y = train.batch(index), labels[index]
    encoder = pv.DiagNormalPosterior(pv.MLP(x_shape, HIDDEN, (2, LATENT_DIM)), x_shape, LATENT_DIM)
    decoder = pv.BernoulliLikelihood(pv.MLP(LATENT_DIM, HIDDEN, x_shape), x_shape)
    classifier = pv.MLP(LATENT_DIM, HIDDEN, NUM_CLASSES)
    alone = copy.deepcopy(encoder), copy.deepcopy(classifier)
    train_on_labels(*alone, x, y, *alone)
    show("labels alone", *alone, test)
    training = pv.Training(
        options.epochs, optimizer=partial(torch.optim.Adam, lr=2e-3), precision="bfloat16"
    )
    pv.fit(pv.VAE(pv.StandardNormalPrior(LATENT_DIM), decoder, encoder), train, training)
    train_on_labels(encoder, classifier, x, y, classifier)
    show("labels, codes of a VAE", encoder, classifier, test)
    prior = ClassPrior(
        torch.stack([encoder(x[y == k]).mean.mean(0) for k in range(NUM_CLASSES)]).detach()
    )
    train_jointly(pv.VAE(prior, decoder, encoder), classifier, train, (x, y), options.joint_epochs)
    show("labels and all rows", encoder, classifier, test)
    return 0


if __name__ == "__main__":
    run(main)
