"""R0: four unit vectors, the shares of the classes among prior samples, and their overlap in z."""

import torch

from pyro_vae import VAE
from pyro_vae.commands.page import Page
from pyro_vae.figures import elbo_history, image_grid, latent_scatter
from pyro_vae.support import stream
from reproductions.training import Trained, labels_of, train

NUM_CLASSES = 4
# Draws behind each share and each accuracy.
NUM_DRAWS = 100_000
# The points of the original at which x is decoded.
CHOSEN = torch.tensor([[0.5, 0.6], [0.0, 0.0]])
# The density of a Gaussian on one-hot data is unbounded: its scale has a floor.
NORMAL = (
    "--vae.likelihood",
    "NormalLikelihood",
    "--vae.likelihood.scale",
    "NetworkScale",
    "--vae.likelihood.scale.min_scale",
    "0.1",
)
ONE_HOT = ("--vae.likelihood", "OneHotCategoricalLikelihood")
LIKELIHOODS = {
    "Bernoulli (the code)": (),
    "Normal, scale ≥ 0.1 (the text)": NORMAL,
    "OneHotCategorical": ONE_HOT,
}
REMEDIES = {
    "100 epochs": ("--training.epochs", "100"),
    "cosine decay of the learning rate": (
        "--training.scheduler",
        "CosineAnnealingLR",
        "--training.scheduler.T_max",
        "29",
    ),
    "KL weight 0.3": ("--training.kl_schedule.weight", "0.3"),
    "OneHotCategorical, KL weight 0.1": (*ONE_HOT, "--training.kl_schedule.weight", "0.1"),
}


def reproduce(page: Page) -> None:
    """Draw the figures of the code's Bernoulli; then measure the two faults under each change."""
    page.text("## R0: four unit vectors")
    first = train("onehot")
    draw(page, first)
    page.text(
        "Two faults that the original names: the classes are not equally frequent among prior "
        f"samples (ideal 25 % each), and their codes overlap. Shares are of {NUM_DRAWS:,} prior "
        "samples by the largest E[x_k | z]; the overlap is measured by the accuracy of the Bayes "
        "classifier of the class given a draw of z, which is exact here, since q(z | x) is known "
        "for all four x (no overlap: 1; no information: 0.25). −ELBO does not compare between "
        "likelihoods."
    )
    rows = []
    for name, changes in (LIKELIHOODS | REMEDIES).items():
        trained = train("onehot", changes=changes) if changes else first
        shares = class_shares(trained.vae)
        largest_error = max(abs(share - 1 / NUM_CLASSES) for share in shares)
        accuracy = bayes_accuracy(trained.vae)
        negative_elbo = trained.evaluation.negative_elbo.mean
        rows.append([name, *shares, largest_error, accuracy, negative_elbo])
    columns = [f"share {number}" for number in range(NUM_CLASSES)]
    page.table(["", *columns, "largest error", "Bayes accuracy", "−ELBO"], rows)
    page.text(
        "The categorical is what the data really are, and a constant reaches its best −ELBO, ln 4 "
        "= 1.386: it has no reason to use z, and hardly does. The Bernoulli must, since its "
        "pixels are independent given z. What evens the shares is that the weights come to rest, "
        "by a decaying learning rate or by many more epochs; what parts the classes is a smaller "
        "KL weight, which makes z cheaper."
    )


def draw(page: Page, trained: Trained) -> None:
    """Draw z and the modes of q(z | x) by class, and x decoded at the chosen points."""
    vae = trained.vae
    test = trained.splits.test
    labels = labels_of(test)
    with stream(0), torch.no_grad():
        q_z = vae.encode(test.batch(slice(None)))
        decoded = vae.decode(CHOSEN).mean
        z = q_z.sample()
    history = elbo_history(trained.fit.history, "onehot: −ELBO by epoch")
    page.figure("onehot_elbo", history, "ELBO history")
    page.figure("onehot_draws", latent_scatter(z, labels, "Draws of z, by class"), "Sampled z")
    modes = latent_scatter(q_z.mean, labels, "Modes of q(z | x), by class")
    page.figure("onehot_modes", modes, "Posterior modes")
    grid = image_grid([decoded], "E[x | z] at two points", (), ("(0.5, 0.6)", "(0, 0)"))
    page.figure("onehot_decoded", grid, "Decoded x")
    rows = [[str(z), *x] for z, x in zip(CHOSEN.tolist(), decoded.tolist(), strict=True)]
    page.table(["z", "x₀", "x₁", "x₂", "x₃"], rows)


def class_shares(vae: VAE) -> list[float]:
    """Return the share of each class among samples from the prior."""
    with stream(0), torch.no_grad():
        z = vae.prior().sample(torch.Size([NUM_DRAWS]))
        classes = vae.decode(z).mean.argmax(-1)
    return (classes.bincount(minlength=NUM_CLASSES) / NUM_DRAWS).tolist()


def bayes_accuracy(vae: VAE) -> float:
    """Return the accuracy of the best guess of the class from a draw of z ~ q(z | x).

    The classes are equally frequent.
    """
    with stream(0), torch.no_grad():
        q_z = vae.encode(torch.eye(NUM_CLASSES))
        z = q_z.sample(torch.Size([NUM_DRAWS // NUM_CLASSES]))
        guesses = q_z.log_prob(z.unsqueeze(-2)).argmax(-1)
    return (guesses == torch.arange(NUM_CLASSES)).double().mean().item()
