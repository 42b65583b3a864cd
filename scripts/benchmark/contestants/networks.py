"""The networks and the test loss of the contestants that use torch."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmark.machinery.setting import X_SIZE, Setting

# Test rows that pass through the networks at once.
_CHUNK = 1000


class Encoder(nn.Module):
    """Network from x to the two parameters of q(z | x), with a head for each, as in tutorials."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.hidden = nn.Linear(X_SIZE, setting.hidden)
        self.loc = nn.Linear(setting.hidden, setting.latent_dim)
        self.spread = nn.Linear(setting.hidden, setting.latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(x).relu()
        return self.loc(hidden), self.spread(hidden)


def decoder(setting: Setting) -> nn.Sequential:
    """Return the network from z to the logits of x."""
    return nn.Sequential(
        nn.Linear(setting.latent_dim, setting.hidden),
        nn.ReLU(),
        nn.Linear(setting.hidden, X_SIZE),
    )


@torch.no_grad()
def test_loss(
    encode: Callable[[Tensor], tuple[Tensor, Tensor]],
    decode: Callable[[Tensor], Tensor],
    x: Tensor,
) -> float:
    """Return −ELBO in nats per row, with the KL in closed form and one draw of z.

    Arguments:
        encode: from rows of x, `(B, 784)`, to loc and scale of q(z | x).
        decode: from z to the logits of x.
        x: the test rows, `(N, 784)`.
    """
    total = 0.0
    for block in x.float().split(_CHUNK):
        loc, scale = encode(block)
        kl = (loc.square() + scale.square() - 1).sum() / 2 - scale.log().sum()
        logits = decode(loc + scale * torch.randn_like(scale))
        distortion = binary_cross_entropy_with_logits(logits, block, reduction="sum")
        total += (kl + distortion).item()
    return total / len(x)
