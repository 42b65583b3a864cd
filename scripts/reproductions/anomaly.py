"""Anomaly detection with a held-out digit: four scores, each digit, and where they fail."""

import torch
from page import Page

from pyro_vae import VAE, Rows, fit
from pyro_vae.evaluation import AnomalyScores, anomaly_scores, auroc, threshold
from pyro_vae.figures import score_histogram
from pyro_vae.runs import instantiate, prepare, read_preset, settings_parser

EPOCHS, SCORED_ROWS, CALIBRATION_ROWS = 5, 2000, 1000
FALSE_POSITIVE_RATE = 0.05
SHOWN_DIGIT = 0


def reproduce(page: Page) -> None:
    """One VAE for each digit left out of its training data."""
    page.text(
        "## Anomaly detection",
        f"784-400-20 on threshold-binarised MNIST, trained for {EPOCHS} epochs without one digit. AUROC is the probability "
        f"that an image of that digit scores higher than an image of another; {SCORED_ROWS:,} test images.",
    )
    rows = []
    for digit in range(10):
        print(f"Training without the digit {digit}")
        normal, anomalous = scores_without(digit)
        rows.append([str(digit), *(auroc(*pair) for pair in zip(normal, anomalous, strict=True))])
        if digit == SHOWN_DIGIT:
            calibrate(page, normal, anomalous)
    means = torch.tensor([row[1:] for row in rows]).mean(0).tolist()
    page.table(
        ["digit left out", "KL", "−ELBO", "−log p(x)", "squared error"], [*rows, ["mean", *means]]
    )
    page.text(
        "The digit 1 falls far below chance. A likelihood measures how many bits an image needs, and a 1 has so little ink "
        "that it needs few, whether or not the model has seen one: most of its pixels are background that any digit "
        "predicts. The same holds, less strongly, for 7 and 9, which other digits almost contain. A low −ELBO says that an "
        "image is simple to write down, not that it is like the training data."
    )


def scores_without(digit: int, *changes: str) -> tuple[AnomalyScores, AnomalyScores]:
    """Scores of the other digits and of this one, among test images, by a VAE that never saw it."""
    vae, _, test = train_without(digit, *changes)
    normal, anomalous = (of_digit(test, digit, wanted) for wanted in (False, True))
    return anomaly_scores(vae, normal, num_importance_samples=20), anomaly_scores(
        vae, anomalous, num_importance_samples=20
    )


def train_without(digit: int, *changes: str) -> tuple[VAE, Rows, Rows]:
    """A VAE trained without a digit, with some settings of the preset changed; its training images; all test images."""
    parser = settings_parser(read_preset("mnist-20d")[0])
    settings = instantiate(parser, parser.parse_args(["--training.epochs", str(EPOCHS), *changes]))
    vae, splits = prepare(settings)
    train = of_digit(splits.train, digit, wanted=False)
    fit(vae, train, settings.training, progress=True)
    return vae, train, splits.test.take(slice(SCORED_ROWS))


def of_digit(rows: Rows, digit: int, wanted: bool) -> Rows:
    """The rows of a digit, or all others."""
    if rows.labels is None:
        raise ValueError("'data' must have labels to leave a digit out.")
    return rows.take((rows.labels == digit) == wanted)


def calibrate(page: Page, normal: AnomalyScores, anomalous: AnomalyScores) -> None:
    """A threshold from half of the normal images, and what it does to the other half and to the anomalies."""
    calibration, held_out = (
        normal.negative_elbo[:CALIBRATION_ROWS],
        normal.negative_elbo[CALIBRATION_ROWS:],
    )
    line = threshold(calibration, FALSE_POSITIVE_RATE)
    title = f"−ELBO of the other digits; images of the {SHOWN_DIGIT}, never seen, marked"
    marked = {
        f"threshold at {FALSE_POSITIVE_RATE:.0%} false positives": line,
        f"median of the {SHOWN_DIGIT}": anomalous.negative_elbo.median().item(),
    }
    page.figure(
        "anomaly_histogram", score_histogram(held_out, marked, title, "−ELBO (nats)"), title
    )
    shares = [
        float((scores > line).double().mean()) for scores in (held_out, anomalous.negative_elbo)
    ]
    page.text(
        f"A threshold calibrated on {CALIBRATION_ROWS:,} images at a false-positive rate of {FALSE_POSITIVE_RATE:.0%} flags "
        f"{shares[0]:.1%} of the others and {shares[1]:.1%} of the {SHOWN_DIGIT}s."
    )
