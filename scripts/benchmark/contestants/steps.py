"""Single steps of SVI, batch fetch included: stock Pyro and this package at any size."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from pyro.infer import ELBO, Trace_ELBO
from torch import Tensor

from benchmark.contestants.contestant import Contestant, Pause
from benchmark.contestants.data import train_rows
from benchmark.contestants.ours import EXECUTIONS, build_vae
from benchmark.contestants.stock_pyro import StockVAE, stock_svi
from benchmark.machinery.setting import X_SIZE, Setting
from pyro_vae import SVI, Identity, Rows
from pyro_vae.training import PerRow


class StockSteps(Contestant):
    """A block of steps of stock Pyro.

    Arguments:
        setting: that of all contestants.
        is_validated: True to turn Pyro's checks on.
    """

    def __init__(self, setting: Setting, is_validated: bool) -> None:
        super().__init__(setting)
        self.x = torch.from_numpy(train_rows(setting))
        self.svi = stock_svi(setting, StockVAE(setting), objective(setting), is_validated)

    def run(self, pause: Pause) -> None:
        for index in paused_batches(self.setting, pause):
            self.svi.step(self.x.index_select(0, index).float())


class OurSteps(Contestant):
    """A block of steps of `pyro_vae.SVI`.

    Arguments:
        setting: that of all contestants.
        how: one of `EXECUTIONS`.
    """

    def __init__(self, setting: Setting, how: str) -> None:
        super().__init__(setting)
        self.rows = Rows(torch.from_numpy(train_rows(setting)), Identity())
        vae = build_vae(setting, (X_SIZE,))
        optimizer = partial(torch.optim.Adam, lr=setting.lr, fused=True)(vae.parameters())
        loss = PerRow(objective(setting))
        self.svi = SVI(vae.model, vae.guide, optimizer, loss, execution=EXECUTIONS[how])

    def run(self, pause: Pause) -> None:
        for index in paused_batches(self.setting, pause):
            self.svi.step(self.rows.batch(index))

    def facts(self) -> dict[str, Any]:
        return {"how": self.svi.how}


def objective(setting: Setting) -> ELBO:
    """Return Trace_ELBO with the setting's number of draws of z at once."""
    count = setting.num_particles
    return Trace_ELBO(num_particles=count, vectorize_particles=count > 1, max_plate_nesting=1)


def paused_batches(setting: Setting, pause: Pause) -> Iterator[Tensor]:
    """Yield batches of row numbers without end, with a pause before each block of steps.

    A block's numbers are drawn before its pause, so that they are not timed.
    """
    while True:
        block = torch.randint(setting.num_rows, (setting.num_steps, setting.batch_size))
        pause()
        yield from block
