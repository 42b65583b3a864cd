"""The floor: the matrix products of an epoch of training, and nothing else."""

from typing import NamedTuple

import torch
from torch import Tensor

from benchmark.contestants.contestant import Contestant, Pause
from benchmark.machinery.setting import X_SIZE, Setting


class Product(NamedTuple):
    """Two matrices, and the memory of their product."""

    left: Tensor
    right: Tensor
    out: Tensor


class MatmulFloor(Contestant):
    """The products of outputs and of all gradients except those of x, with operands ready.

    Arguments:
        setting: that of all contestants.
        precision: "float32" or "bfloat16".
    """

    def __init__(self, setting: Setting, precision: str) -> None:
        super().__init__(setting)
        dtype: torch.dtype = getattr(torch, precision)
        self.num_whole, rest = divmod(setting.num_rows, setting.batch_size)
        self.whole = products(setting, setting.batch_size, dtype)
        self.rest = products(setting, rest, dtype)

    def run(self, pause: Pause) -> None:
        with torch.no_grad():
            while True:
                pause()
                for _ in range(self.num_whole):
                    multiply(self.whole)
                multiply(self.rest)


def multiply(step: list[Product]) -> None:
    """Compute the products of one step."""
    for left, right, out in step:
        torch.mm(left, right, out=out)


def products(setting: Setting, num_rows: int, dtype: torch.dtype) -> list[Product]:
    """Return the products of one step on this many rows; none without rows."""
    sizes = [
        (X_SIZE, setting.hidden),
        (setting.hidden, 2 * setting.latent_dim),
        (setting.latent_dim, setting.hidden),
        (setting.hidden, X_SIZE),
    ]
    layers = [layer(num_rows, wide, narrow, dtype) for wide, narrow in sizes]
    if num_rows == 0:
        return []
    outputs = [each.output for each in layers]
    weight_gradients = [each.weight_gradient for each in layers]
    input_gradients = [each.input_gradient for each in layers[1:]]
    return [*outputs, *reversed(weight_gradients), *reversed(input_gradients)]


class Layer(NamedTuple):
    """The products of one linear layer, as autograd multiplies them."""

    output: Product
    weight_gradient: Product
    input_gradient: Product


def layer(num_rows: int, wide: int, narrow: int, dtype: torch.dtype) -> Layer:
    """Return the products of a layer from `wide` to `narrow` units."""
    x = torch.randn(num_rows, wide).to(dtype)
    y = torch.randn(num_rows, narrow).to(dtype)
    weight = torch.randn(narrow, wide).to(dtype)
    return Layer(
        output=Product(x, weight.T, torch.empty_like(y)),
        weight_gradient=Product(y.T, x, torch.empty_like(weight)),
        input_gradient=Product(y, weight, torch.empty_like(x)),
    )
