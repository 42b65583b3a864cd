"""R0: four unit vectors, the shares of the classes among prior samples, and how far the classes overlap in z."""

import torch
from page import Page

from pyro_vae import VAE
from pyro_vae.figures import elbo_history, image_grid, latent_scatter
from pyro_vae.support import stream
from reproductions.training import Trained, train

NUM_CLASSES, NUM_DRAWS = 4, 100_000
CHOSEN = torch.tensor([[0.5, 0.6], [0.0, 0.0]])
# The density of a Gaussian on one-hot data is unbounded: its scale has a floor.
NORMAL = (
    *("--vae.likelihood", "NormalLikelihood", "--vae.likelihood.scale", "NetworkScale"),
    *("--vae.likelihood.scale.min_scale", "0.1"),
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
        *("--training.scheduler", "CosineAnnealingLR", "--training.scheduler.T_max", "29"),
    ),
    "KL weight 0.3": ("--training.kl_schedule.weight", "0.3"),
    "OneHotCategorical, KL weight 0.1": (*ONE_HOT, "--training.kl_schedule.weight", "0.1"),
}


def reproduce(page: Page) -> None:
    """The figures of the code's Bernoulli; then the two faults, for each likelihood and each remedy."""
    page.text("## R0: four unit vectors")
    first = train("onehot")
    draw(page, first)
    page.text(
        "Two faults that the original names: the classes are not equally frequent among prior samples (ideal 25 % each), "
        f"and their codes overlap. Shares are of {NUM_DRAWS:,} prior samples by the largest E[x_k | z]; the overlap is "
        "measured by the accuracy of the Bayes classifier of the class given a draw of z, which is exact here, since "
        "q(z | x) is known for all four x (no overlap: 1; no information: 0.25). −ELBO does not compare between likelihoods."
    )
    rows = []
    for name, settings in (LIKELIHOODS | REMEDIES).items():
        trained = first if not settings else train("onehot", settings=settings)
        shares = class_shares(trained.vae)
        accuracy, elbo = bayes_accuracy(trained.vae), trained.evaluation.negative_elbo.mean
        rows.append([name, *shares, max(abs(share - 0.25) for share in shares), accuracy, elbo])
    columns = [f"share {number}" for number in range(NUM_CLASSES)]
    page.table(["", *columns, "largest error", "Bayes accuracy", "−ELBO"], rows)
    page.text(
        "The categorical is what the data really are, and a constant reaches its best −ELBO, ln 4 = 1.386: it has no reason "
        "to use z, and hardly does. The Bernoulli must, since its pixels are independent given z. What evens the shares is "
        "that the weights come to rest, by a decaying learning rate or by many more epochs; what parts the classes is a "
        "smaller KL weight, which makes z cheaper."
    )


def draw(page: Page, trained: Trained) -> None:
    """Draws and modes of z by class, and decoded x at the chosen points."""
    vae, test = trained.vae, trained.splits.test
    page.figure(
        "onehot_elbo", elbo_history(trained.fit.history, "onehot: −ELBO by epoch"), "ELBO history"
    )
    labels = test.labels if test.labels is not None else torch.zeros(len(test))
    with stream(0), torch.no_grad():
        q_z = vae.encode(test.batch(slice(None)))
        decoded = vae.decode(CHOSEN).mean
        page.figure(
            "onehot_draws",
            latent_scatter(q_z.sample(), labels, "Draws of z, by class"),
            "Sampled z",
        )
        page.figure(
            "onehot_modes",
            latent_scatter(q_z.mean, labels, "Modes of q(z | x), by class"),
            "Posterior modes",
        )
    page.figure(
        "onehot_decoded",
        image_grid([decoded], "E[x | z] at two points", (), ("(0.5, 0.6)", "(0, 0)")),
        "Decoded x",
    )
    page.table(
        ["z", "x₀", "x₁", "x₂", "x₃"],
        [[str(z), *x] for z, x in zip(CHOSEN.tolist(), decoded.tolist(), strict=True)],
    )


def class_shares(vae: VAE) -> list[float]:
    """The share of each class among samples from the prior."""
    with stream(0), torch.no_grad():
        z = vae.prior().sample(torch.Size([NUM_DRAWS]))
        classes = vae.decode(z).mean.argmax(-1)
    return (classes.bincount(minlength=NUM_CLASSES) / NUM_DRAWS).tolist()


def bayes_accuracy(vae: VAE) -> float:
    """How often the best guess of the class from a draw of z ~ q(z | x) is right, the classes being equally frequent."""
    with stream(0), torch.no_grad():
        q_z = vae.encode(torch.eye(NUM_CLASSES))
        z = q_z.sample(torch.Size([NUM_DRAWS // NUM_CLASSES]))
        guesses = q_z.log_prob(z.unsqueeze(-2)).argmax(-1)
    return (guesses == torch.arange(NUM_CLASSES)).double().mean().item()
