"""The setting that all contestants share, and the name of each."""

from dataclasses import dataclass
from typing import Any, NamedTuple

# The elements of x: MNIST images of 28 × 28 pixels.
X_SIZE = 784


@dataclass(frozen=True)
class Setting:
    """The model 784-hidden-latent with one hidden layer of ReLU each way, its data, and Adam.

    Arguments:
        folder: the folder that holds torchvision's MNIST folder.
        num_rows: the number of training rows.
        is_synthetic: True for rows of fair coins in place of MNIST.
        batch_size: rows of a step; the last batch of an epoch may be shorter.
        hidden: the width of the hidden layers.
        latent_dim: the latent dimensions.
        num_particles: draws of z for each row and step.
        num_steps: the steps of a block, unless a block is an epoch.
        lr: Adam's learning rate.
        seed: of weights, batches and draws.
    """

    folder: str
    num_rows: int = 60_000
    is_synthetic: bool = False
    batch_size: int = 128
    hidden: int = 400
    latent_dim: int = 20
    num_particles: int = 1
    num_steps: int = 50
    lr: float = 1e-3
    seed: int = 0


class Entry(NamedTuple):
    """A contestant by name.

    Arguments:
        name: its name in tables and figures.
        path: its class, as "module.Class" inside `benchmark.contestants`.
        options: arguments of the class besides the setting.
    """

    name: str
    path: str
    options: dict[str, Any]
