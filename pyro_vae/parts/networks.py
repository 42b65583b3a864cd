"""Networks from tensors to tensors, which know of no distribution."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from pyro_vae.support.channels import check_channels_first
from pyro_vae.support.checks import Shape, as_shape, made_by, whole

# Default widths of the hidden layers of a perceptron.
_HIDDEN = (256, 256)
# Least channels in a group of GroupNorm: on maps of one pixel a smaller group has too few numbers.
_LEAST_GROUP = 8


class _Dense(nn.Module):
    """Base of perceptrons on flattened rows with a context appended.

    A subclass passes `hidden_layer`, which returns the modules of a hidden layer, given the widths
    before and after it.
    """

    def __init__(
        self,
        in_shape: Shape,
        hidden: Sequence[int],
        out_shape: Shape | None,
        context_dim: int,
        hidden_layer: Callable[[int, int], Sequence[nn.Module]],
    ) -> None:
        super().__init__()
        if out_shape is None:  # optional only because it follows an optional argument
            raise ValueError("'out_shape' must be the shape of one row of outputs, got None.")
        self.in_size = as_shape(in_shape, "in_shape").numel()
        self.out_shape = as_shape(out_shape, "out_shape")
        self.context_dim = whole(context_dim, "context_dim", least=0)
        widths = [self.in_size + self.context_dim, *as_shape(hidden, "hidden")]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += hidden_layer(before, after)
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], self.out_shape.numel()))

    @property
    def output_bias(self) -> nn.Parameter:
        """Bias of the last layer, one number for each output."""
        return self.layers[-1].bias  # type: ignore[return-value]

    def forward(self, inputs: Tensor, y: Tensor | None = None) -> Tensor:
        rows = inputs.flatten(1)
        _check_row(self, rows.shape[1], self.in_size, y)
        if y is not None:
            rows = torch.cat([rows, y.to(rows)], dim=1)
        return self.layers(rows).reshape(rows.shape[0], *self.out_shape)


class MLP(_Dense):
    """Multilayer perceptron on flattened rows: `(N, *in_shape)` to `(N, *out_shape)`.

    Arguments:
        in_shape: the shape of one row of inputs.
        hidden: the width of each hidden layer; an empty list makes an affine map.
        out_shape: the shape of one row of outputs; it must be given.
        activation: the class of the nonlinearity after each hidden layer.
        context_dim: the number Y of context numbers that are appended to each row of inputs.

    Raises:
        ValueError: if there is no `out_shape`; if an input or a context has another size.

    Example:
        >>> MLP(784, [400], (2, 20))(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 2, 20])
    """

    def __init__(
        self,
        in_shape: Shape,
        hidden: Sequence[int] = _HIDDEN,
        out_shape: Shape | None = None,
        activation: type[nn.Module] = nn.ReLU,
        context_dim: int = 0,
    ) -> None:
        super().__init__(
            in_shape,
            hidden,
            out_shape,
            context_dim,
            lambda before, after: [nn.Linear(before, after), _made(activation)],
        )


class GatedMLP(_Dense):
    """Perceptron with gated hidden layers: `(N, *in_shape)` to `(N, *out_shape)`.

    A layer is h = (W x + b) · sigmoid(V x + c), where W and V are the halves of one matrix. The
    outputs are affine in the last hidden layer.

    References:
        Language modeling with gated convolutional networks, Dauphin et al., 2016.
        VAE with a VampPrior, Tomczak and Welling, 2018: both networks of a VAE are of this kind.

    Arguments:
        in_shape: the shape of one row of inputs.
        hidden: the width of each hidden layer; an empty list makes an affine map.
        out_shape: the shape of one row of outputs; it must be given.
        context_dim: the number Y of context numbers that are appended to each row of inputs.

    Raises:
        ValueError: if there is no `out_shape`; if an input or a context has another size.

    Example:
        >>> GatedMLP(784, [300, 300], (2, 40))(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 2, 40])
    """

    def __init__(
        self,
        in_shape: Shape,
        hidden: Sequence[int] = _HIDDEN,
        out_shape: Shape | None = None,
        context_dim: int = 0,
    ) -> None:
        super().__init__(
            in_shape,
            hidden,
            out_shape,
            context_dim,
            lambda before, after: [nn.Linear(before, 2 * after), nn.GLU()],
        )


class ConvEncoder(nn.Module):
    """Convolutional network from images to numbers: `(N, C, H, W)` to `(N, *out_shape)`.

    Each stage halves height and width, rounding up, with a convolution of stride 2. A GroupNorm
    and an activation follow. The maps of the last stage are flattened, the context is appended,
    and dense layers give the outputs. With `num_blocks` greater than 0 the network is residual:
    that many blocks h + f(h) follow the convolution of each stage.

    References:
        Deep residual learning for image recognition, He et al., 2015; here f normalises before it
            convolves.
        Group normalization, Wu and He, 2018: no row depends on the others of its batch.

    Arguments:
        in_shape: the shape (C, H, W) of one image.
        out_shape: the shape of one row of outputs.
        channels: the number of channels after each stage; there can be at most as many stages as
            the smaller of H and W can be halved.
        num_blocks: the number of residual blocks in each stage; 0 makes a plain convolutional
            network.
        hidden: the width of each hidden dense layer.
        activation: the class of the nonlinearity.
        context_dim: the number Y of context numbers that are appended to the features of an image.

    Raises:
        ValueError: if `in_shape` is no image, or too small for the stages; if an input or a context
            has another size.

    Example:
        >>> encoder = ConvEncoder((1, 28, 28), (2, 20), channels=[8, 16], num_blocks=1)
        >>> encoder(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 2, 20])
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: Sequence[int] = (32, 64),
        num_blocks: int = 0,
        hidden: Shape = 256,
        activation: type[nn.Module] = nn.SiLU,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        self.in_shape = _image_shape(in_shape, "in_shape")
        self.out_shape = as_shape(out_shape, "out_shape")
        self.context_dim = whole(context_dim, "context_dim", least=0)
        channels = as_shape(channels, "channels")
        sizes = _halvings(self.in_shape, channels)
        stages: list[nn.Module] = []
        for before, after in pairwise([self.in_shape[0], *channels]):
            stages += [nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1)]
            stages += _refined(after, num_blocks, activation)
        self.stages = nn.Sequential(*stages)
        features = (channels[-1], *sizes[-1])
        self.dense = MLP(features, as_shape(hidden, "hidden"), out_shape, activation, context_dim)

    def forward(self, inputs: Tensor, y: Tensor | None = None) -> Tensor:
        _check_row(self, tuple(inputs.shape[1:]), tuple(self.in_shape), y)
        return self.dense(self.stages(inputs), y)


class ConvDecoder(nn.Module):
    """Convolutional network from numbers to images: `(N, *in_shape)` to `(N, *out_shape)`.

    It mirrors `ConvEncoder`. The context is appended to the rows, and dense layers give the
    smallest maps. Each stage has a GroupNorm, an activation and a transposed convolution that
    doubles height and width, or one less where the encoder rounds up. The last stage gives the
    numbers of each pixel. `output_bias` is added to them, one number for each output. With
    `num_blocks` greater than 0 the network is residual: each stage begins with that many blocks
    h + f(h).

    References:
        Deep residual learning for image recognition, He et al., 2015; here f normalises before it
            convolves.
        Group normalization, Wu and He, 2018: no row depends on the others of its batch.

    Arguments:
        in_shape: the shape of one row of inputs.
        out_shape: the shape of one row of outputs: (C, H, W), or (*, C, H, W) for several numbers
            for each element.
        channels: the number of channels before each stage; there can be at most as many stages as
            the smaller of H and W can be halved.
        num_blocks: the number of residual blocks in each stage; 0 makes a plain convolutional
            network.
        hidden: the width of each hidden dense layer.
        activation: the class of the nonlinearity.
        context_dim: the number Y of context numbers that are appended to each row of inputs.

    Raises:
        ValueError: if `out_shape` is no image, or too small for the stages; if an input or a
            context has another size.

    Example:
        >>> decoder = ConvDecoder(20, (2, 1, 28, 28), channels=[16, 8], num_blocks=1)
        >>> decoder(torch.zeros(5, 20)).shape
        torch.Size([5, 2, 1, 28, 28])
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: Sequence[int] = (64, 32),
        num_blocks: int = 0,
        hidden: Shape = 256,
        activation: type[nn.Module] = nn.SiLU,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        self.out_shape = _image_shape(out_shape, "out_shape", leading=True)
        self.context_dim = whole(context_dim, "context_dim", least=0)
        channels = as_shape(channels, "channels")
        *sizes, smallest = _halvings(self.out_shape, channels)
        features = (channels[0], *smallest)
        self.dense = MLP(in_shape, as_shape(hidden, "hidden"), features, activation, context_dim)
        stages: list[nn.Module] = []
        widths = pairwise([*channels, self.out_shape[:-2].numel()])
        for (before, after), size in zip(widths, reversed(sizes), strict=True):
            stages += [*_refined(before, num_blocks, activation), _doubling(before, after, size)]
        self.stages = nn.Sequential(*stages)
        self.output_bias = nn.Parameter(torch.zeros(self.out_shape))

    def forward(self, inputs: Tensor, y: Tensor | None = None) -> Tensor:
        _check_row(self, prod(inputs.shape[1:]), self.dense.in_size, y)
        maps = self.stages(self.dense(inputs, y))
        return maps.reshape(maps.shape[0], *self.out_shape) + self.output_bias


class _ResidualBlock(nn.Module):
    """Block h + f(h) that keeps the shape `(N, C, H, W)`.

    f is two times a GroupNorm, an activation and a 3 × 3 convolution.
    """

    def __init__(self, channels: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _group_norm(channels),
            _made(activation),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1),
            _group_norm(channels),
            _made(activation),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.layers(inputs)


def _made(activation: type[nn.Module]) -> nn.Module:
    accepted = "a class of torch modules without arguments, such as torch.nn.ReLU"
    return made_by(activation, nn.Module, "activation", accepted)


def _refined(channels: int, num_blocks: int, activation: type[nn.Module]) -> list[nn.Module]:
    """Return residual blocks, a GroupNorm and an activation, all at one resolution."""
    whole(num_blocks, "num_blocks", least=0)
    blocks = [_ResidualBlock(channels, activation) for _ in range(num_blocks)]
    return [*blocks, _group_norm(channels), _made(activation)]


def _doubling(before: int, after: int, size: Sequence[int]) -> nn.ConvTranspose2d:
    """Return a transposed convolution to this height and width, from their half, rounded up.

    It has no bias, since the GroupNorm or the output bias that follows has one.
    """
    height, width = (length % 2 for length in size)
    # A kernel of 4 with stride 2 reaches all pixels equally often. An odd length is one less than
    # twice its half, rounded up.
    return nn.ConvTranspose2d(
        before,
        after,
        kernel_size=4,
        stride=2,
        padding=(1 + height, 1 + width),
        output_padding=(height, width),
        bias=False,
    )


def _group_norm(channels: int) -> nn.GroupNorm:
    """Return a GroupNorm with the smallest groups of at least _LEAST_GROUP channels."""
    sizes = range(min(_LEAST_GROUP, channels), channels + 1)
    size = next(size for size in sizes if channels % size == 0)
    return nn.GroupNorm(channels // size, channels)


def _image_shape(shape: Shape, name: str, leading: bool = False) -> torch.Size:
    """Return the shape of an image, (C, H, W), or (*, C, H, W) if `leading` is true.

    Raises:
        ValueError: if the shape is no image, or one with the channels last.
    """
    sizes = as_shape(shape, name)
    is_image = len(sizes) == 3 or (leading and len(sizes) > 3)
    if not is_image or min(sizes[-2:]) < 2:
        accepted = "(C, H, W) or (*, C, H, W)" if leading else "(C, H, W)"
        raise ValueError(f"'{name}' must be {accepted} with H and W from 2, got {tuple(sizes)}.")
    check_channels_first(sizes[-3:], name, "put the channels first, or else turn H and W.")
    return sizes


def _halvings(image_shape: Sequence[int], channels: torch.Size) -> list[tuple[int, int]]:
    """Return height and width of the image, and those after each stage, halved and rounded up.

    Raises:
        ValueError: if there are more stages than halvings.
    """
    height, width = image_shape[-2:]
    most = (min(height, width) - 1).bit_length()
    if not 1 <= len(channels) <= most:
        raise ValueError(
            f"'channels' must hold 1 to {most} numbers, since an image of {height} × {width} can "
            f"be halved {most} times, got {len(channels)}."
        )
    return [(-(-height // 2**stage), -(-width // 2**stage)) for stage in range(len(channels) + 1)]


def _check_row(
    network: _Dense | ConvEncoder | ConvDecoder,
    received: int | tuple[int, ...],
    accepted: int | tuple[int, ...],
    y: Tensor | None,
) -> None:
    """Refuse rows and contexts of other sizes than the network's.

    Raises:
        ValueError: if the sizes differ.
    """
    context_dim = 0 if y is None else y.shape[-1]
    if (received, context_dim) != (accepted, network.context_dim):
        raise ValueError(
            f"{type(network).__name__} accepts {accepted} numbers a row and a context 'y' of "
            f"{network.context_dim}, got {received} and {context_dim}."
        )
