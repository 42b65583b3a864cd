"""PyTorch by hand, as an expert writes it without a compiler."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmark.contestants.contestant import Contestant, Pause
from benchmark.contestants.data import test_rows, train_rows
from benchmark.contestants.networks import decoder, test_loss
from benchmark.machinery.setting import X_SIZE, Setting


class Handwritten(Contestant):
    """A training loop with rows in memory as bytes, one layer for both heads, and fused Adam.

    It works with logits throughout, and reads no loss inside a step.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.x = torch.from_numpy(train_rows(setting))
        self.encoder = nn.Sequential(
            nn.Linear(X_SIZE, setting.hidden),
            nn.ReLU(),
            nn.Linear(setting.hidden, 2 * setting.latent_dim),
        )
        self.decoder = decoder(setting)
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=setting.lr, fused=True)

    def run(self, pause: Pause) -> None:
        while True:
            pause()
            losses = []
            for index in torch.randperm(len(self.x)).split(self.setting.batch_size):
                loss = self.loss(self.x.index_select(0, index).float())
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
                losses.append(loss.detach())
            torch.stack(losses).mean().item()

    def loss(self, x: Tensor) -> Tensor:
        """Return −ELBO of a batch, in nats per row."""
        loc, log_scale = self.encoder(x).chunk(2, dim=-1)
        scale = log_scale.exp()
        logits = self.decoder(torch.addcmul(loc, scale, torch.randn_like(scale)))
        rate = (loc.square() + scale.square()).sum() / 2 - log_scale.sum() - log_scale.numel() / 2
        return (binary_cross_entropy_with_logits(logits, x, reduction="sum") + rate) / len(x)

    def facts(self) -> dict[str, Any]:
        x = torch.from_numpy(test_rows(self.setting))
        return {"test_loss": test_loss(self._encode, self.decoder, x)}

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_scale = self.encoder(x).chunk(2, dim=-1)
        return loc, log_scale.exp()
