"""log p(x) by importance sampling: by `pyro_vae.evaluate`, and by a loop in stock Pyro."""

from typing import Any

import torch
from pyro.infer.importance import vectorized_importance_weights
from pyro.poutine import Trace
from torch import Tensor

from benchmark.contestants.contestant import Contestant, Pause
from benchmark.contestants.ours import build_vae, load_rows, training
from benchmark.machinery.setting import Setting
from pyro_vae import VAE, Estimate, Execution, Rows, evaluate, fit
from pyro_vae.engine import Compile
from pyro_vae.inference import log_mean_exp, log_mean_exp_variance

# Epochs of training before the comparison, so that the posterior is worth sampling from.
_EPOCHS = 3


class OurLikelihood(Contestant):
    """`evaluate` with one draw for the ELBO.

    Arguments:
        setting: that of all contestants.
        num_samples: the draws of z for each row.
        num_test_rows: the number of test rows, from the first.
        compile: as `Execution` takes it.
    """

    def __init__(
        self, setting: Setting, num_samples: int, num_test_rows: int, compile: Compile = "auto"
    ) -> None:
        super().__init__(setting)
        self.num_samples = num_samples
        self.execution = Execution(compile=compile)
        self.vae, self.rows = trained(setting, num_test_rows)
        self.estimate: Estimate | None = None

    def run(self, pause: Pause) -> None:
        while True:
            pause()
            evaluation = evaluate(
                self.vae,
                self.rows,
                num_samples=1,
                num_importance_samples=self.num_samples,
                execution=self.execution,
            )
            self.estimate = evaluation.log_marginal

    def facts(self) -> dict[str, Any]:
        return {} if self.estimate is None else self.estimate._asdict()


class StockLikelihood(Contestant):
    """`vectorized_importance_weights` of stock Pyro, on some samples and some rows at a time.

    Arguments:
        setting: that of all contestants.
        num_samples: the draws of z for each row.
        num_test_rows: the number of test rows, from the first.
        sample_chunk: the draws at a time.
        row_chunk: the rows at a time.
    """

    def __init__(
        self,
        setting: Setting,
        num_samples: int,
        num_test_rows: int,
        sample_chunk: int = 25,
        row_chunk: int = 200,
    ) -> None:
        super().__init__(setting)
        self.num_chunks = num_samples // sample_chunk
        self.sample_chunk = sample_chunk
        self.row_chunk = row_chunk
        self.vae, rows = trained(setting, num_test_rows)
        self.x = rows.batch(slice(None))
        self.estimate: Estimate | None = None

    def run(self, pause: Pause) -> None:
        while True:
            pause()
            log_weights = [self._log_weights(x) for x in self.x.split(self.row_chunk)]
            self.estimate = summary(torch.cat(log_weights, dim=1))

    def _log_weights(self, x: Tensor) -> Tensor:
        """Return log p(x, z) − log q(z | x) of each draw and row, `(S, B)`."""
        with torch.no_grad():
            return torch.cat([self._chunk(x) for _ in range(self.num_chunks)])

    def _chunk(self, x: Tensor) -> Tensor:
        _, model, guide = vectorized_importance_weights(
            self.vae.model,
            self.vae.guide,
            x,
            num_samples=self.sample_chunk,
            max_plate_nesting=1,
            normalized=False,
        )
        return log_prob(model, "z") + log_prob(model, "x") - log_prob(guide, "z")

    def facts(self) -> dict[str, Any]:
        return {} if self.estimate is None else self.estimate._asdict()


def trained(setting: Setting, num_test_rows: int) -> tuple[VAE, Rows]:
    """Train a VAE for a few epochs, the same for every contestant; return it with test rows."""
    splits = load_rows(setting)
    vae = build_vae(setting)
    fit(vae, splits.train, training(setting, "TraceMeanField_ELBO", "traced", _EPOCHS))
    return vae.eval(), splits.test.take(slice(num_test_rows))


def log_prob(trace: Trace, site: str) -> Tensor:
    """Return the log-density at a site for each row."""
    value: Tensor = trace.nodes[site]["log_prob"]
    return value


def summary(log_weights: Tensor) -> Estimate:
    """Return the mean of log p(x) over rows, with both its errors, from weights `(S, B)`."""
    num_samples, num_rows = log_weights.shape
    log_weights = log_weights.double()
    monte_carlo_error = log_mean_exp_variance(log_weights).sum().sqrt().item() / num_rows
    return Estimate.over_rows(log_mean_exp(log_weights), num_samples, monte_carlo_error)
