"""The loop of the well-known tutorial.

It has a DataLoader over transformed images, sigmoids, and a loss that is read in each step.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from benchmark.contestants.contestant import Contestant, Pause
from benchmark.contestants.networks import Encoder, decoder, test_loss
from benchmark.machinery.setting import X_SIZE, Setting


class Tutorial(Contestant):
    """A VAE as a beginner learns to write it, end to end."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        binary = transforms.Compose([transforms.ToTensor(), torch.round])
        train = datasets.MNIST(setting.folder, train=True, transform=binary)
        test = datasets.MNIST(setting.folder, train=False, transform=binary)
        train.data = train.data[: setting.num_rows]
        train.targets = train.targets[: setting.num_rows]
        self.train = DataLoader(train, batch_size=setting.batch_size, shuffle=True)
        self.test = DataLoader(test, batch_size=setting.batch_size)
        self.encoder = Encoder(setting)
        self.decoder = decoder(setting)
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=setting.lr)

    def run(self, pause: Pause) -> None:
        while True:
            pause()
            total = 0.0
            for x in batches(self.train):
                self.optimizer.zero_grad()
                loss = self.loss(x)
                loss.backward()
                total += loss.item()
                self.optimizer.step()

    def loss(self, x: Tensor) -> Tensor:
        """Return −ELBO of a batch, in nats per row."""
        loc, log_variance = self.encoder(x)
        z = loc + (log_variance / 2).exp() * torch.randn_like(loc)
        distortion = binary_cross_entropy(torch.sigmoid(self.decoder(z)), x, reduction="sum")
        rate = -0.5 * torch.sum(1 + log_variance - loc.pow(2) - log_variance.exp())
        return (distortion + rate) / len(x)

    def facts(self) -> dict[str, Any]:
        x = torch.cat(list(batches(self.test)))
        return {"test_loss": test_loss(self._encode, self.decoder, x)}

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_variance = self.encoder(x)
        return loc, (log_variance / 2).exp()


def batches(loader: DataLoader) -> Iterator[Tensor]:
    """Yield flattened images without their labels."""
    return (x.view(-1, X_SIZE) for x, _ in loader)
