"""Training of a VAE, and the record of each epoch."""

from pyro_vae.training.fitting import NonFiniteLossError, fit
from pyro_vae.training.history import Epoch, Fit
from pyro_vae.training.initialization import initialize
from pyro_vae.training.loggers import Logger, TensorBoard, logged
from pyro_vae.training.per_row import PerRow
from pyro_vae.training.settings import Change, Training
from pyro_vae.training.snapshots import Snapshots

__all__ = [
    "Change",
    "Epoch",
    "Fit",
    "Logger",
    "NonFiniteLossError",
    "PerRow",
    "Snapshots",
    "TensorBoard",
    "Training",
    "fit",
    "initialize",
    "logged",
]
