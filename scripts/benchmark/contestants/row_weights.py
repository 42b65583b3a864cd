"""Log-weights of each row: `pyro_vae.importance_sample` at once, `pyro.infer.Importance` by row."""

from abc import abstractmethod
from typing import Any

import torch
from pyro.infer import Importance
from torch import Tensor

from benchmark.contestants.contestant import Contestant, Pause
from benchmark.contestants.importance import trained
from benchmark.machinery.setting import Setting
from pyro_vae import importance_sample


class _Weights(Contestant):
    """A way to the log-weights of all rows, `(S, B)`; a subclass defines it.

    Arguments:
        setting: that of all contestants.
        num_samples: the draws of z for each row.
        num_test_rows: the number of test rows, from the first.
    """

    def __init__(self, setting: Setting, num_samples: int, num_test_rows: int) -> None:
        super().__init__(setting)
        self.num_samples = num_samples
        self.vae, rows = trained(setting, num_test_rows)
        self.x = rows.batch(slice(None))

    @abstractmethod
    def log_weights(self) -> Tensor:
        """Return the log-weight of each draw and row, `(S, B)`."""

    @torch.no_grad()
    def run(self, pause: Pause) -> None:
        while True:
            pause()
            self.log_weights()

    def facts(self) -> dict[str, Any]:
        return {"rows": len(self.x)}


class OurWeights(_Weights):
    """`importance_sample` on all rows, which also smooths the weights and gives k-hat."""

    def log_weights(self) -> Tensor:
        return importance_sample(
            self.vae.model, self.vae.guide, self.x, num_samples=self.num_samples
        ).log_weights


class StockWeights(_Weights):
    """`pyro.infer.Importance` on single rows, since its weights are joint over a batch."""

    def log_weights(self) -> Tensor:
        return torch.stack([self._of_row(row) for row in self.x.split(1)], dim=1)

    def _of_row(self, x: Tensor) -> Tensor:
        importance = Importance(self.vae.model, self.vae.guide, num_samples=self.num_samples).run(x)
        return torch.tensor([float(weight) for weight in importance.log_weights])
