"""Rows of the table: presets with one part changed, each compared with a simpler row."""

from typing import NamedTuple


class Row(NamedTuple):
    """A row of the table.

    Arguments:
        title: the part that is changed, in words.
        preset: the preset before the changes.
        changes: the settings that differ, as `train.py` takes them.
        sibling: the row that it is compared with, if any.
    """

    title: str
    preset: str
    changes: str = ""
    sibling: str | None = None


ROWS = {
    "elbo": Row(
        "ELBO, mean of five draws",
        "mnist-iwae",
        "--training.objective Trace_ELBO --training.objective.num_particles 5",
    ),
    "iwae-5": Row("IWAE, K = 5", "mnist-iwae", "", "elbo"),
    "dreg-5": Row(
        "DReG, K = 5",
        "mnist-iwae",
        "--training.objective DoublyReparameterizedELBO --training.objective.num_particles 5",
        "iwae-5",
    ),
    "elbo-zero": Row(
        "ELBO, mean of five draws, output bias from 0",
        "mnist-iwae",
        "--training.objective Trace_ELBO --training.objective.num_particles 5 "
        "--vae.initialize_bias false",
        "elbo",
    ),
    "iwae-5-zero": Row(
        "IWAE, K = 5, output bias from 0", "mnist-iwae", "--vae.initialize_bias false", "elbo-zero"
    ),
    "standard": Row("standard normal prior, diagonal posterior", "mnist-gated"),
    "mixture": Row(
        "mixture prior, 500 normals",
        "mnist-gated",
        "--vae.prior MixtureNormalPrior --vae.prior.num_components 500",
        "standard",
    ),
    "vamp": Row("VampPrior, 500 pseudo-inputs", "mnist-gated", "--vae.prior VampPrior", "standard"),
    "affine-prior": Row(
        "affine flow prior",
        "mnist-gated",
        "--vae.prior FlowPrior --vae.prior.flow AffineFlow",
        "standard",
    ),
    "spline-prior": Row(
        "spline flow prior",
        "mnist-gated",
        "--vae.prior FlowPrior --vae.prior.flow SplineFlow",
        "standard",
    ),
    "closed": Row(
        "the same, KL in closed form",
        "mnist-gated",
        "--training.objective TraceMeanField_ELBO",
        "standard",
    ),
    "low-rank": Row(
        "low-rank posterior, R = 4, KL in closed form",
        "mnist-gated",
        "--vae.posterior LowRankNormalPosterior --vae.posterior.rank 4 "
        "--training.objective TraceMeanField_ELBO",
        "closed",
    ),
    "full": Row(
        "full-covariance posterior, KL in closed form",
        "mnist-gated",
        "--vae.posterior FullNormalPosterior --training.objective TraceMeanField_ELBO",
        "closed",
    ),
    "iaf": Row(
        "inverse autoregressive posterior",
        "mnist-gated",
        "--vae.posterior FlowPosterior --vae.posterior.flow AffineFlow",
        "standard",
    ),
    "spline": Row(
        "spline flow posterior",
        "mnist-gated",
        "--vae.posterior FlowPosterior --vae.posterior.flow SplineFlow",
        "standard",
    ),
    "spline-landing": Row(
        "the same, by sticking the landing",
        "mnist-gated",
        "--vae.posterior FlowPosterior --vae.posterior.flow SplineFlow "
        "--training.objective StickingTheLandingELBO",
        "closed",
    ),
    "conv": Row("convolutional networks", "mnist-conv", "", "standard"),
}
