"""Anomaly detection with a held-out digit: four scores for each digit, and their failures."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae import VAE, Rows, fit
from pyro_vae.commands.page import Page
from pyro_vae.evaluation import AnomalyScores, anomaly_scores, auroc, threshold
from pyro_vae.figures import score_histogram
from pyro_vae.runs import prepare
from reproductions.training import preset_settings

EPOCHS = 5
# The first test images, this many, are scored.
SCORED_ROWS = 2000
# Draws of z for each image, for log p(x).
NUM_SAMPLES = 20
# The digit whose scores are shown in a figure and tested against a threshold.
SHOWN_DIGIT = 0
# Images of the other digits, about half of them, that the threshold is calibrated on.
CALIBRATION_ROWS = 1000
FALSE_POSITIVE_RATE = 0.05


def reproduce(page: Page) -> None:
    """Train one VAE without each digit, and compare the scores of that digit and the others."""
    page.text(
        "## Anomaly detection",
        f"784-400-20 on threshold-binarised MNIST, trained for {EPOCHS} epochs without one digit. "
        "AUROC is the probability that an image of that digit scores higher than an image of "
        f"another; {SCORED_ROWS:,} test images.",
    )
    by_digit = []
    for digit in range(10):
        print(f"Training without the digit {digit}")
        normal, anomalous = scores_without(digit)
        by_digit.append([auroc(low, high) for low, high in zip(normal, anomalous, strict=True)])
        if digit == SHOWN_DIGIT:
            calibrate(page, normal, anomalous)
    means = torch.tensor(by_digit).mean(0).tolist()
    rows = [[str(digit), *values] for digit, values in enumerate(by_digit)]
    header = ["digit left out", "KL", "−ELBO", "−log p(x)", "squared error"]
    page.table(header, [*rows, ["mean", *means]])
    page.text(
        "The digit 1 falls far below chance. A likelihood measures how many bits an image needs, "
        "and a 1 has so little ink that it needs few, whether or not the model has seen one: most "
        "of its pixels are background that any digit predicts. The same holds, less strongly, for "
        "7 and 9, which other digits almost contain. A low −ELBO says that an image is simple to "
        "write down, not that it is like the training data."
    )


def scores_without(digit: int, *changes: str) -> tuple[AnomalyScores, AnomalyScores]:
    """Score the other digits, and this one, by a VAE that never saw it."""
    vae, _, test = train_without(digit, *changes)
    normal = of_digit(test, digit, wanted=False)
    anomalous = of_digit(test, digit, wanted=True)
    return (
        anomaly_scores(vae, normal, num_importance_samples=NUM_SAMPLES),
        anomaly_scores(vae, anomalous, num_importance_samples=NUM_SAMPLES),
    )


class TrainedWithout(NamedTuple):
    """A VAE that never saw a digit, its training images, and test images of all digits."""

    vae: VAE
    train: Rows
    test: Rows


def train_without(digit: int, *changes: str) -> TrainedWithout:
    """Train the preset without a digit, with settings changed as `train.py` takes them."""
    settings = preset_settings("mnist-20d", "--training.epochs", str(EPOCHS), *changes)
    vae, splits = prepare(settings)
    train = of_digit(splits.train, digit, wanted=False)
    fit(vae, train, settings.training, progress=True)
    return TrainedWithout(vae, train, splits.test.take(slice(SCORED_ROWS)))


def of_digit(rows: Rows, digit: int, wanted: bool) -> Rows:
    """Return the rows of a digit, or all others."""
    if rows.labels is None:
        raise ValueError("'data' must have labels to leave a digit out.")
    return rows.take((rows.labels == digit) == wanted)


def calibrate(page: Page, normal: AnomalyScores, anomalous: AnomalyScores) -> None:
    """Find a threshold on a part of the normal images, and apply it to all other images."""
    calibration = normal.negative_elbo[:CALIBRATION_ROWS]
    held_out = normal.negative_elbo[CALIBRATION_ROWS:]
    line = threshold(calibration, FALSE_POSITIVE_RATE)
    title = f"−ELBO of the other digits; images of the {SHOWN_DIGIT}, never seen, marked"
    marked = {
        f"threshold at {FALSE_POSITIVE_RATE:.0%} false positives": line,
        f"median of the {SHOWN_DIGIT}": anomalous.negative_elbo.median().item(),
    }
    figure = score_histogram(held_out, marked, title, "−ELBO (nats)")
    page.figure("anomaly_histogram", figure, title)
    page.text(
        f"A threshold calibrated on {CALIBRATION_ROWS:,} images at a false-positive rate of "
        f"{FALSE_POSITIVE_RATE:.0%} flags {share_above(line, held_out):.1%} of the others and "
        f"{share_above(line, anomalous.negative_elbo):.1%} of the {SHOWN_DIGIT}s."
    )


def share_above(line: float, scores: Tensor) -> float:
    """Return the share of scores above a threshold."""
    return float((scores > line).double().mean())
