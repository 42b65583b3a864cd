"""Stock Pyro: a VAE as in Pyro's tutorial, trained by `pyro.infer.SVI` with `pyro.optim.Adam`."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import ELBO, SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from benchmark.contestants.contestant import Contestant, Pause
from benchmark.contestants.data import test_rows, train_rows
from benchmark.contestants.networks import Encoder, decoder, test_loss
from benchmark.machinery.setting import Setting


class StockVAE(nn.Module):
    """Model and guide, with networks in Pyro's param store by `pyro.module`."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.latent_dim = setting.latent_dim
        self.encoder = Encoder(setting)
        self.decoder = decoder(setting)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            loc = x.new_zeros(x.shape[0], self.latent_dim)
            z = pyro.sample("z", dist.Normal(loc, torch.ones_like(loc)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*self.encode(x)).to_event(1))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return loc and scale of q(z | x)."""
        loc, log_scale = self.encoder(x)
        return loc, log_scale.exp()


def stock_svi(setting: Setting, vae: StockVAE, objective: ELBO, is_validated: bool) -> SVI:
    """Return Pyro's own SVI, with its checks or without."""
    pyro.enable_validation(is_validated)
    optimizer = pyro.optim.Adam({"lr": setting.lr})  # type: ignore[attr-defined]
    return SVI(vae.model, vae.guide, optimizer, loss=objective)


class StockEpochs(Contestant):
    """Epochs of stock Pyro, with rows in memory as bytes.

    Arguments:
        setting: that of all contestants.
        objective: "Trace_ELBO" or "TraceMeanField_ELBO".
        is_validated: True to turn Pyro's checks on, as they are by default.
    """

    def __init__(self, setting: Setting, objective: str, is_validated: bool) -> None:
        super().__init__(setting)
        self.x = torch.from_numpy(train_rows(setting))
        self.vae = StockVAE(setting)
        objectives: dict[str, ELBO] = {
            "Trace_ELBO": Trace_ELBO(),
            "TraceMeanField_ELBO": TraceMeanField_ELBO(),
        }
        self.svi = stock_svi(setting, self.vae, objectives[objective], is_validated)

    def run(self, pause: Pause) -> None:
        while True:
            pause()
            for index in torch.randperm(len(self.x)).split(self.setting.batch_size):
                self.svi.step(self.x.index_select(0, index).float())

    def facts(self) -> dict[str, Any]:
        x = torch.from_numpy(test_rows(self.setting))
        return {"test_loss": test_loss(self.vae.encode, self.vae.decoder, x)}
