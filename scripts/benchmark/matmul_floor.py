"""The floor: the matrix products of an epoch of training, and nothing else."""

from typing import NamedTuple

import torch
from torch import Tensor

from benchmark.contestant import Contestant, Pause
from benchmark.setting import X_SIZE, Setting


class Product(NamedTuple):
    """Two matrices, and where their product goes."""

    left: Tensor
    right: Tensor
    out: Tensor


class MatmulFloor(Contestant):
    """Forward, weight gradients and input gradients (but those of x) with operands that lie ready in their precision.

    Arguments:
        setting: what it has in common with the others.
        precision: "float32" or "bfloat16".
    """

    def __init__(self, setting: Setting, precision: str) -> None:
        super().__init__(setting)
        dtype: torch.dtype = getattr(torch, precision)
        self.num_whole, rest = divmod(setting.num_rows, setting.batch_size)
        self.whole, self.rest = (
            products(setting, size, dtype) for size in (setting.batch_size, rest)
        )

    def run(self, pause: Pause) -> None:
        with torch.no_grad():
            while True:
                pause()
                for _ in range(self.num_whole):
                    multiply(self.whole)
                multiply(self.rest)


def multiply(step: list[Product]) -> None:
    """The products of one step."""
    for left, right, out in step:
        torch.mm(left, right, out=out)


def products(setting: Setting, num_rows: int, dtype: torch.dtype) -> list[Product]:
    """The products of one step on this many rows; none without rows."""
    hidden, latent_dim = setting.hidden, setting.latent_dim
    sizes = [(X_SIZE, hidden), (hidden, 2 * latent_dim), (latent_dim, hidden), (hidden, X_SIZE)]
    steps = [layer(num_rows, wide, narrow, dtype) for wide, narrow in sizes]
    forward, weight, inputs = ([step[place] for step in steps] for place in range(3))
    return [*forward, *reversed(weight), *reversed(inputs[1:])] if num_rows else []


def layer(
    num_rows: int, wide: int, narrow: int, dtype: torch.dtype
) -> tuple[Product, Product, Product]:
    """A layer's output, its weight's gradient and its input's gradient, as autograd multiplies them."""
    x, y = torch.randn(num_rows, wide).to(dtype), torch.randn(num_rows, narrow).to(dtype)
    weight = torch.randn(narrow, wide).to(dtype)
    return (
        Product(x, weight.T, torch.empty_like(y)),
        Product(y.T, x, torch.empty_like(weight)),
        Product(y, weight, torch.empty_like(x)),
    )
