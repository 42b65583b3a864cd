"""Networks: tensors in, tensors out; they know of no distribution."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pyro_vae.parts import Shape, as_shape


class MLP(nn.Module):
    """A multilayer perceptron on flattened rows: `(N, *in_shape)` to `(N, *out_shape)`.

    Arguments:
        in_shape: the shape of one row of inputs.
        hidden: the width of each hidden layer; none at all makes an affine map.
        out_shape: the shape of one row of outputs.
        activation: the class of the nonlinearity after each hidden layer.
        context_dim: how many numbers Y of a context y are appended to each row of inputs.

    Raises:
        ValueError: an input of another shape, or a context of another size.

    Example:
        >>> MLP(784, [400], (2, 20))(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 2, 20])
    """

    def __init__(
        self,
        in_shape: Shape,
        hidden: Sequence[int],
        out_shape: Shape,
        activation: type[nn.Module] = nn.ReLU,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        self.in_size = as_shape(in_shape, "in_shape").numel()
        self.out_shape = as_shape(out_shape, "out_shape")
        self.context_dim = context_dim
        widths = [self.in_size + context_dim, *(as_shape(hidden, "hidden") if hidden else ()), self.out_shape.numel()]
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), activation()]
        self.layers = nn.Sequential(*layers[:-1])

    @property
    def output_bias(self) -> nn.Parameter:
        """The bias of the last layer, one number for each output."""
        return self.layers[-1].bias  # type: ignore[return-value]

    def forward(self, inputs: Tensor, y: Tensor | None = None) -> Tensor:
        rows = inputs.flatten(1)
        context_dim = 0 if y is None else y.shape[-1]
        if (rows.shape[1], context_dim) != (self.in_size, self.context_dim):
            raise ValueError(
                f"MLP accepts {self.in_size} numbers a row and a context 'y' of {self.context_dim}, "
                f"got {rows.shape[1]} and {context_dim}."
            )
        if y is not None:
            rows = torch.cat([rows, y.to(rows)], dim=1)
        return self.layers(rows).reshape(len(rows), *self.out_shape)
