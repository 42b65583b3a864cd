"""Log-weights of each row: `pyro_vae.importance_sample` for all rows at once, and `pyro.infer.Importance` row by row."""

from typing import Any

import torch
from pyro.infer import Importance

from benchmark.contestant import Contestant, Pause
from benchmark.importance import trained
from benchmark.setting import Setting
from pyro_vae import importance_sample


class OurWeights(Contestant):
    """`importance_sample`, which also smooths the weights and gives k-hat.

    Arguments:
        setting: what it has in common with the others.
        num_samples: the draws of z for each row.
        num_test_rows: the first test rows, this many.
    """

    def __init__(self, setting: Setting, num_samples: int, num_test_rows: int) -> None:
        super().__init__(setting)
        self.num_samples = num_samples
        self.vae, rows = trained(setting, num_test_rows)
        self.x = rows.batch(slice(None))
        self.log_weights = torch.empty(0)

    def run(self, pause: Pause) -> None:
        while True:
            pause()
            draws = importance_sample(self.vae.model, self.vae.guide, self.x, num_samples=self.num_samples)
            self.log_weights = draws.log_weights

    def facts(self) -> dict[str, Any]:
        return {"shape": list(self.log_weights.shape), "rows": len(self.x)}


class StockWeights(Contestant):
    """`pyro.infer.Importance` on one row after the other, since its weights are joint over the rows of a batch.

    Arguments:
        setting: what it has in common with the others.
        num_samples: the draws of z for each row.
        num_test_rows: the first test rows, this many.
    """

    def __init__(self, setting: Setting, num_samples: int, num_test_rows: int) -> None:
        super().__init__(setting)
        self.num_samples = num_samples
        self.vae, rows = trained(setting, num_test_rows)
        self.x = rows.batch(slice(None))
        self.log_weights = torch.empty(0)

    @torch.no_grad()
    def run(self, pause: Pause) -> None:
        while True:
            pause()
            self.log_weights = torch.stack([self._weights(row) for row in self.x.split(1)], dim=1)

    def _weights(self, x: torch.Tensor) -> torch.Tensor:
        importance = Importance(self.vae.model, self.vae.guide, num_samples=self.num_samples).run(x)
        return torch.tensor([float(weight) for weight in importance.log_weights])

    def facts(self) -> dict[str, Any]:
        return {"shape": list(self.log_weights.shape), "rows": len(self.x)}
