"""Networks: tensors in, tensors out; they know of no distribution."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from pyro_vae.support.channels import check_channels_first
from pyro_vae.support.checks import Shape, as_shape, whole

# The widths of the hidden layers of a perceptron that is called by its name alone.
_HIDDEN = (256, 256)
# Where an image has shrunk to a pixel, a group of fewer channels would have next to nothing to normalise by.
_LEAST_GROUP = 8


class _Dense(nn.Module):
    """Affine maps of flattened rows with a context appended, and hidden layers between them.

    A subclass passes a function from the widths before and after a hidden layer to its modules.
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
        if out_shape is None:  # optional for Python only, where it follows the hidden widths
            raise ValueError("'out_shape' must be the shape of one row of outputs, got None.")
        self.in_size = as_shape(in_shape, "in_shape").numel()
        self.out_shape = as_shape(out_shape, "out_shape")
        self.context_dim = context_dim
        widths = [self.in_size + context_dim, *(as_shape(hidden, "hidden") if hidden else ())]
        layers = [module for wide, narrow in pairwise(widths) for module in hidden_layer(wide, narrow)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], self.out_shape.numel()))

    @property
    def output_bias(self) -> nn.Parameter:
        """The bias of the last layer, one number for each output."""
        return self.layers[-1].bias  # type: ignore[return-value]

    def forward(self, inputs: Tensor, y: Tensor | None = None) -> Tensor:
        rows = inputs.flatten(1)
        _check_row(self, rows.shape[1], self.in_size, y)
        if y is not None:
            rows = torch.cat([rows, y.to(rows)], dim=1)
        return self.layers(rows).reshape(len(rows), *self.out_shape)


class MLP(_Dense):
    """A multilayer perceptron on flattened rows: `(N, *in_shape)` to `(N, *out_shape)`.

    Arguments:
        in_shape: the shape of one row of inputs.
        hidden: the width of each hidden layer; none at all makes an affine map.
        out_shape: the shape of one row of outputs; it must be given.
        activation: the class of the nonlinearity after each hidden layer.
        context_dim: how many numbers Y of a context y are appended to each row of inputs.

    Raises:
        ValueError: no `out_shape`; an input of another shape, or a context of another size.

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
            in_shape, hidden, out_shape, context_dim, lambda wide, narrow: [nn.Linear(wide, narrow), activation()]
        )


class GatedMLP(_Dense):
    """A perceptron with gated hidden layers, h = (W x + b) · sigmoid(V x + c): `(N, *in_shape)` to `(N, *out_shape)`.

    W and V are the halves of one matrix. The outputs are affine in the last hidden layer.

    References:
        Language modeling with gated convolutional networks, Dauphin et al., 2016.
        VAE with a VampPrior, Tomczak and Welling, 2018, where both networks of a VAE are of this kind.

    Arguments:
        in_shape: the shape of one row of inputs.
        hidden: the width of each hidden layer; none at all makes an affine map.
        out_shape: the shape of one row of outputs; it must be given.
        context_dim: how many numbers Y of a context y are appended to each row of inputs.

    Raises:
        ValueError: no `out_shape`; an input of another shape, or a context of another size.

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
            in_shape, hidden, out_shape, context_dim, lambda wide, narrow: [nn.Linear(wide, 2 * narrow), nn.GLU()]
        )


class ConvEncoder(nn.Module):
    """A convolutional network from images to numbers: `(N, C, H, W)` to `(N, *out_shape)`.

    Each stage halves height and width, rounding up, with a convolution of stride 2; a GroupNorm and an activation follow.
    The maps of the last stage are flattened, the context is appended, and dense layers give the outputs. With `num_blocks`
    the network is residual: each stage adds so many blocks h + f(h) to its convolution.

    References:
        Deep residual learning for image recognition, He et al., 2015; here f normalises before it convolves.
        Group normalization, Wu and He, 2018: no row depends on the others of its batch.

    Arguments:
        in_shape: the shape (C, H, W) of one image.
        out_shape: the shape of one row of outputs.
        channels: the number of channels after each stage; as many stages as the smaller of H and W can be halved, at most.
        num_blocks: the number of residual blocks in each stage; 0 makes a plain convolutional network.
        hidden: the width of each hidden dense layer.
        activation: the class of the nonlinearity.
        context_dim: how many numbers Y of a context y are appended to the features of each image.

    Raises:
        ValueError: an `in_shape` that is no image, or too many stages for it; an input of another shape, or a context of
            another size.

    Example:
        >>> ConvEncoder((1, 28, 28), (2, 20), channels=[8, 16], num_blocks=1)(torch.zeros(5, 1, 28, 28)).shape
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
        self.in_shape, self.out_shape = _image_shape(in_shape, "in_shape"), as_shape(out_shape, "out_shape")
        self.context_dim = context_dim
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
    """A convolutional network from numbers to images: `(N, *in_shape)` to `(N, *out_shape)`, the mirror of `ConvEncoder`.

    The context is appended to the rows, and dense layers give the smallest maps. Each stage has a GroupNorm, an activation
    and a transposed convolution that doubles height and width, or less by one where the encoder rounds up; the last gives
    the numbers of each pixel, to which `output_bias` is added, one number for each output. With `num_blocks` the network
    is residual: each stage begins with so many blocks h + f(h).

    References:
        Deep residual learning for image recognition, He et al., 2015; here f normalises before it convolves.
        Group normalization, Wu and He, 2018: no row depends on the others of its batch.

    Arguments:
        in_shape: the shape of one row of inputs.
        out_shape: the shape of one row of outputs: (C, H, W), or (*, C, H, W) for several numbers an element.
        channels: the number of channels before each stage; as many stages as the smaller of H and W can be halved, at most.
        num_blocks: the number of residual blocks in each stage; 0 makes a plain convolutional network.
        hidden: the width of each hidden dense layer.
        activation: the class of the nonlinearity.
        context_dim: how many numbers Y of a context y are appended to each row of inputs.

    Raises:
        ValueError: an `out_shape` that is no image, or too many stages for it; an input of another shape, or a context of
            another size.

    Example:
        >>> ConvDecoder(20, (2, 1, 28, 28), channels=[16, 8], num_blocks=1)(torch.zeros(5, 20)).shape
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
        self.context_dim = context_dim
        *sizes, smallest = _halvings(self.out_shape, channels)
        self.dense = MLP(in_shape, as_shape(hidden, "hidden"), (channels[0], *smallest), activation, context_dim)
        stages: list[nn.Module] = []
        widths = pairwise([*channels, self.out_shape[:-2].numel()])
        for (before, after), size in zip(widths, reversed(sizes), strict=True):
            stages += [*_refined(before, num_blocks, activation), _doubling(before, after, size)]
        self.stages = nn.Sequential(*stages)
        self.output_bias = nn.Parameter(torch.zeros(self.out_shape))

    def forward(self, inputs: Tensor, y: Tensor | None = None) -> Tensor:
        _check_row(self, prod(inputs.shape[1:]), self.dense.in_size, y)
        maps = self.stages(self.dense(inputs, y))
        return maps.reshape(len(maps), *self.out_shape) + self.output_bias


class _ResidualBlock(nn.Module):
    """h + f(h), where f is twice a GroupNorm, an activation and a 3 × 3 convolution: `(N, C, H, W)` to the same shape."""

    def __init__(self, channels: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _group_norm(channels),
            activation(),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1),
            _group_norm(channels),
            activation(),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.layers(inputs)


def _refined(channels: int, num_blocks: int, activation: type[nn.Module]) -> list[nn.Module]:
    """Residual blocks, a GroupNorm and an activation, all at one resolution."""
    whole(num_blocks, "num_blocks", least=0)
    blocks = [_ResidualBlock(channels, activation) for _ in range(num_blocks)]
    return [*blocks, _group_norm(channels), activation()]


def _doubling(before: int, after: int, size: Sequence[int]) -> nn.ConvTranspose2d:
    """A transposed convolution up to this height and width, from half of them, rounded up.

    It has no bias: the GroupNorm or the output bias that follows has one.
    """
    height, width = (length % 2 for length in size)
    # A kernel of 4 reaches each pixel from as many maps; twice a half that was rounded up is cut by one.
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
    """A GroupNorm whose groups are as small as may be."""
    size = next(size for size in range(min(_LEAST_GROUP, channels), channels + 1) if channels % size == 0)
    return nn.GroupNorm(channels // size, channels)


def _image_shape(shape: Shape, name: str, leading: bool = False) -> torch.Size:
    """The shape of an image, (C, H, W); or (*, C, H, W), where leading sizes are allowed."""
    sizes = as_shape(shape, name)
    if not (len(sizes) == 3 or (leading and len(sizes) > 3)) or min(sizes[-2:]) < 2:
        accepted = "(C, H, W) or (*, C, H, W)" if leading else "(C, H, W)"
        raise ValueError(f"'{name}' must be {accepted} with H and W from 2, got {tuple(sizes)}.")
    check_channels_first(sizes[-3:], name, "put the channels first, or else turn H and W.")
    return sizes


def _halvings(image_shape: Sequence[int], channels: Sequence[int]) -> list[tuple[int, int]]:
    """Height and width of the image, and after each stage, which halves them and rounds up."""
    height, width = image_shape[-2:]
    most = (min(height, width) - 1).bit_length()
    if not 1 <= len(as_shape(channels, "channels")) <= most:
        raise ValueError(
            f"'channels' must hold 1 to {most} numbers, since an image of {height} × {width} can be halved {most} times, "
            f"got {len(channels)}."
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
        ValueError: they are.
    """
    context_dim = 0 if y is None else y.shape[-1]
    if (received, context_dim) != (accepted, network.context_dim):
        raise ValueError(
            f"{type(network).__name__} accepts {accepted} numbers a row and a context 'y' of {network.context_dim}, "
            f"got {received} and {context_dim}."
        )
