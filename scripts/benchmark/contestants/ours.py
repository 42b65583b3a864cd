"""`pyro_vae.fit` on a VAE: plain, traced or compiled, in float32 or with bfloat16 products."""

import sys
from functools import partial
from typing import Any

import torch
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor

from benchmark.contestants.contestant import Contestant, Pause
from benchmark.contestants.networks import test_loss
from benchmark.machinery.setting import X_SIZE, Setting
from pyro_vae import (
    MLP,
    MNIST,
    VAE,
    BernoulliLikelihood,
    DiagNormalPosterior,
    Execution,
    Fit,
    Shuffled,
    Splits,
    StandardNormalPrior,
    Threshold,
    Training,
    fit,
    load_splits,
)

# The ways to run a step, as `Training` and `SVI` take them.
EXECUTIONS: dict[str, Execution] = {
    "plain": Execution(trace=False),
    "traced": Execution(compile=False),
    "compiled": Execution(compile=True),
    "traced, bfloat16": Execution(compile=False, precision="bfloat16"),
    "compiled, bfloat16": Execution(compile=True, precision="bfloat16"),
}


def build_vae(setting: Setting, x_shape: tuple[int, ...] = (1, 28, 28)) -> VAE:
    """Build the VAE of the benchmark."""
    latent_dim = setting.latent_dim
    decoder = MLP(latent_dim, [setting.hidden], X_SIZE)
    encoder = MLP(X_SIZE, [setting.hidden], 2 * latent_dim)
    return VAE(
        prior=StandardNormalPrior(latent_dim),
        likelihood=BernoulliLikelihood(decoder, x_shape=x_shape),
        posterior=DiagNormalPosterior(encoder, x_shape=x_shape, latent_dim=latent_dim),
    )


def load_rows(setting: Setting) -> Splits:
    """Load MNIST as a user of the package does."""
    splits = load_splits(MNIST(), Threshold(0.5))
    return splits._replace(train=splits.train.take(slice(setting.num_rows)))


def training(setting: Setting, objective: str, how: str, epochs: int) -> Training:
    """Return the settings of training.

    Arguments:
        setting: that of all contestants.
        objective: "Trace_ELBO" or "TraceMeanField_ELBO".
        how: one of `EXECUTIONS`.
        epochs: the number of epochs.
    """
    objectives: dict[str, ELBO] = {
        "Trace_ELBO": Trace_ELBO(max_plate_nesting=1),
        "TraceMeanField_ELBO": TraceMeanField_ELBO(max_plate_nesting=1),
    }
    return Training(
        epochs=epochs,
        batches=Shuffled(setting.batch_size),
        optimizer=partial(torch.optim.Adam, lr=setting.lr, fused=True),
        objective=objectives[objective],
        seed=setting.seed,
        execution=EXECUTIONS[how],
    )


class OurEpochs(Contestant):
    """The epochs of one call of `fit`.

    Arguments:
        setting: that of all contestants.
        objective: "Trace_ELBO" or "TraceMeanField_ELBO".
        how: one of `EXECUTIONS`.
    """

    def __init__(self, setting: Setting, objective: str, how: str) -> None:
        super().__init__(setting)
        self.splits = load_rows(setting)
        self.vae = build_vae(setting)
        self.training = training(setting, objective, how, epochs=sys.maxsize)
        self.how = how

    def run(self, pause: Pause) -> None:
        def on_epoch(reached: Fit) -> None:
            self.how = reached.how
            pause()

        fit(self.vae, self.splits.train, self.training, on_epoch=on_epoch)

    def facts(self) -> dict[str, Any]:
        x = self.splits.test.batch(slice(None)).flatten(1)
        return {"test_loss": test_loss(self._encode, self._decode, x), "how": self.how}

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q_z = self.vae.encode(x.reshape(-1, *self.vae.x_shape))
        return q_z.mean, q_z.stddev

    def _decode(self, z: Tensor) -> Tensor:
        p_x: Any = self.vae.decode(z)
        return p_x.base_dist.logits.flatten(1)
