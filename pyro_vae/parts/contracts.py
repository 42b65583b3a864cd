"""The contracts: a prior p(z), a likelihood p(x | z) and a posterior q(z | x), each a module that returns a distribution.

Axes, the same letters everywhere: `S` samples, `B` rows of a batch, `D` latent dimensions, `K` components,
`C H W` channels, height and width of an image, `Y` numbers in a context, `*` any number of leading dimensions.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, TypeAlias

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_vae.data.missing import filled
from pyro_vae.parts.finite import HIGHEST_OUTPUT, held
from pyro_vae.support.checks import Shape, as_shape, whole
from pyro_vae.support.store import make_picklable

Network: TypeAlias = nn.Module | Callable[[torch.Size], nn.Module]


class _Part(nn.Module):
    """What all parts share: the size of the context they take, and that they can be pickled after Pyro has trained them."""

    context_dim: int = 0

    def __getstate__(self) -> dict[str, Any]:
        make_picklable(self.parameters())
        return self.__dict__.copy()


class Prior(_Part, ABC):
    """p(z), or p(z | y) where a context is given.

    A subclass defines `forward`, which returns a distribution with event shape `(D,)`; where it depends on a context y, it
    sets `context_dim` to the size Y of that. It may define `attach` (to share the posterior), and `initialize` (to start
    from data) with `num_initial_rows`, the rows that this takes.

    Arguments:
        latent_dim: the number D of latent dimensions.
    """

    num_initial_rows: int = 1

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = whole(latent_dim, "latent_dim")

    @abstractmethod
    def forward(self, y: Tensor | None = None) -> TorchDistribution:
        """p(z | y) for y of shape `(*, Y)`, or p(z)."""

    def attach(self, posterior: "Posterior") -> None:
        """Called by the VAE that the prior becomes a part of, with the posterior beside it; here it changes nothing."""

    def initialize(self, x: Tensor) -> None:
        """Start from rows of data, `(N, *x_shape)`, as `initialize_prior` asks for."""
        raise ValueError(f"{type(self).__name__} does not start from data: leave 'initialize_prior' at false.")

    def extra_repr(self) -> str:
        return f"latent_dim={self.latent_dim}"


class _Amortised(_Part):
    """What a likelihood and a posterior share: a network that turns the condition into a distribution's parameters."""

    def __init__(self, network: Network, in_dims: int, out_shape: Shape) -> None:
        super().__init__()
        self.out_shape = as_shape(out_shape, "out_shape")
        self._in_dims = in_dims
        self.network = network if isinstance(network, nn.Module) else network(self.out_shape)
        self.context_dim = getattr(self.network, "context_dim", 0)

    def call_network(self, inputs: Tensor, y: Tensor | None = None) -> Tensor:
        """The network's output with shape `(*, *out_shape)`; the network itself sees one flat batch of rows.

        The context goes to networks that say by `context_dim` greater than 0 that they take one; it may have leading
        dimensions of its own, as an enumerated label has.
        """
        # Not .numel(): the tensors that draw Pyro's model diagrams have plain tuples for shapes.
        split = inputs.dim() - self._in_dims
        batch_shape, row_shape = inputs.shape[:split], inputs.shape[split:]
        if y is None or not getattr(self.network, "context_dim", 0):
            outputs = self.network(inputs.reshape(prod(batch_shape), *row_shape))
        else:
            batch_shape = torch.broadcast_shapes(batch_shape, y.shape[:-1])
            rows = inputs.expand(*batch_shape, *row_shape).reshape(prod(batch_shape), *row_shape)
            outputs = self.network(rows, y.expand(*batch_shape, y.shape[-1]).reshape(len(rows), -1))
        if prod(outputs.shape[1:]) != self.out_shape.numel():
            raise ValueError(
                f"'network' of {type(self).__name__} must give {self.out_shape.numel()} numbers for each row "
                f"(shape {tuple(self.out_shape)}), got {prod(outputs.shape[1:])}."
            )
        return outputs.reshape(*batch_shape, *self.out_shape)


class Likelihood(_Amortised, ABC):
    """p(x | z): what the data look like, given the latent.

    A subclass defines `forward` and calls `self.call_network(z, y)` there; it declares independence with `.to_event`.
    It may define `check` (which data it can score), `link` (to start from the mean of the data),
    `initialize` (to start from their spread too), `filler` (what stands where x is missing) and
    `encoder_input` (what an encoder should see of such data). It passes `out_shape` here when it needs
    other than one number for each element of x.

    Arguments:
        network: a module that maps z, `(N, D)`, to `(N, *out_shape)`; or a function that makes one from `out_shape`.
        x_shape: the shape of one row of data.
        out_shape: the shape of the numbers that the network gives for one row; `x_shape` when omitted.
    """

    def __init__(self, network: Network, x_shape: Shape, out_shape: Shape | None = None) -> None:
        row_shape = as_shape(x_shape, "x_shape")
        super().__init__(network, in_dims=1, out_shape=row_shape if out_shape is None else out_shape)
        self.x_shape = row_shape

    @abstractmethod
    def forward(self, z: Tensor, y: Tensor | None = None) -> TorchDistribution:
        """p(x | z, y) with batch shape `(*)` and event shape `x_shape`, for z of shape `(*, D)`."""

    @property
    def encoder_input(self) -> "EncoderInputFactory | None":
        """Class of input that suits such x for an encoder; None stands for `Standardized`."""
        return None

    @property
    def filler(self) -> float | Tensor:
        """A value inside the support, a number or a tensor that broadcasts to `x_shape`, in place of missing entries.

        It is scored under a mask, so which value it is changes nothing.
        """
        return 0.0

    def check(self, x: Tensor) -> None:
        """Raise a `ValueError` of one sentence when x, `(*, *x_shape)`, cannot be scored; here: when it is not finite."""
        if not torch.isfinite(x).all():
            raise ValueError(f"'x' must be finite for {type(self).__name__}, got NaN or infinity.")

    def link(self, mean: Tensor) -> Tensor:
        """The network's output, `out_shape`, at which E[x | z] = mean, `x_shape`."""
        raise ValueError(
            f"{type(self).__name__} defines no 'link' for initialize_bias: define it, or leave that at false."
        )

    def initialize(self, mean: Tensor, std: Tensor) -> None:
        """Start scales, dispersions and units from the mean and standard deviation of data, both `x_shape`; here nothing."""

    @torch.no_grad()
    def initialize_bias(self, mean: Tensor) -> None:
        """Set the network's output bias so that p(x | z) starts at the data's mean, `x_shape`.

        Raises:
            ValueError: the network offers no `output_bias` with one number for each output.
        """
        bias = getattr(self.network, "output_bias", None)
        if bias is None or bias.numel() != self.out_shape.numel():
            raise ValueError(
                f"'network' must offer an 'output_bias' of {self.out_shape.numel()} numbers to be initialised."
            )
        bias.copy_(self.link(mean.to(bias)).reshape(bias.shape))

    def extra_repr(self) -> str:
        return f"x_shape={tuple(self.x_shape)}"


class NetworkFactory(Protocol):
    """A network class, but for the shapes of its inputs and outputs."""

    def __call__(self, *, in_shape: Shape, out_shape: Shape) -> nn.Module: ...


class EncoderInput(nn.Module, ABC):
    """A network that sees x in other units: `(N, *x_shape)` to what the network gives.

    A subclass defines `transform`. It defines `inverse` where a VampPrior is to start from it, and `start` where it has
    constants, which are buffers. Such modules are put one in front of the other: `Log1p(Standardized(MLP(…), 64))` sees
    standardised logs. A missing entry of x is 0 for the network, after the transform, or NaN where the network takes NaN.

    Arguments:
        network: what sees the transformed rows, and the context where it has one; or a function that makes it from their
            shape.
        x_shape: the shape of one row of x; it may be omitted where nothing depends on it.
        seen_shape: the shape of one row as the network sees it; `x_shape` when omitted.
    """

    takes_nan = True

    def __init__(self, network: Network, x_shape: Shape | None = None, seen_shape: Shape | None = None) -> None:
        super().__init__()
        shape = x_shape if seen_shape is None else seen_shape
        if not isinstance(network, nn.Module):
            if shape is None:
                raise ValueError(f"'x_shape' of {type(self).__name__} must be given where 'network' is a function.")
            network = network(as_shape(shape, "x_shape"))
        self.network = network
        self.context_dim = getattr(network, "context_dim", 0)

    @property
    def output_bias(self) -> nn.Parameter:
        """The output bias of the network."""
        return self.network.output_bias  # type: ignore[return-value]

    @abstractmethod
    def transform(self, x: Tensor) -> Tensor:
        """The values that stand for x, `(*, *x_shape)`; NaN stays NaN."""

    def inverse(self, values: Tensor) -> Tensor:
        """The x that these values stand for."""
        raise ValueError(
            f"{type(self).__name__} defines no 'inverse' for a VampPrior: define it, or take another prior."
        )

    def start(self, blocks: Iterable[Tensor]) -> None:
        """Set the constants from blocks of training rows, `(B, *x_shape)`, each time the same; here there are none."""

    def seen(self, x: Tensor) -> Tensor:
        """Return the input of the network for x, `(N, *x_shape)`."""
        values = self.transform(x)
        return values if getattr(self.network, "takes_nan", False) else filled(values, 0.0)

    def forward(self, inputs: Tensor, y: Tensor | None = None) -> Tensor:
        seen = self.seen(inputs)
        return self.network(seen) if y is None else self.network(seen, y)


def as_seen(network: nn.Module, x: Tensor) -> Tensor:
    """The values that stand for x, `(*, *x_shape)`, after all inputs of a network."""
    for step in _inputs_in_front(network):
        x = step.transform(x)
    return x


def as_given(network: nn.Module, values: Tensor) -> Tensor:
    """The x that values stand for after all inputs of a network."""
    for step in reversed(list(_inputs_in_front(network))):
        values = step.inverse(values)
    return values


@torch.no_grad()
def start_inputs(network: nn.Module, blocks: Iterable[Tensor]) -> None:
    """Set the constants of all inputs of a network from blocks of training rows, each time the same.

    Raises:
        ValueError: an input that makes NaN or infinity of a row, which would pass for missing.
    """
    for step in _inputs_in_front(network):
        step.start(blocks)
        seen = Mapped(blocks, step.transform)
        if any(_num_not_finite(after) > _num_not_finite(before) for before, after in zip(blocks, seen, strict=True)):
            name = type(step).__name__
            raise ValueError(
                f"'transform' of {name} must make finite numbers of the training rows, got NaN or infinity."
            )
        blocks = seen


def _num_not_finite(x: Tensor) -> int:
    return int((~x.isfinite()).sum())


@dataclass(frozen=True)
class Mapped:
    """A function of each block, whenever they are gone through."""

    blocks: Iterable[Tensor]
    function: Callable[[Tensor], Tensor]

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.function, self.blocks)


def _inputs_in_front(network: nn.Module) -> Iterator[EncoderInput]:
    """The inputs that are in front of one another, the first being the one that sees x."""
    while isinstance(network, EncoderInput):
        yield network
        network = network.network


class EncoderInputFactory(Protocol):
    """An EncoderInput class, or a function that makes what an encoder sees of x together with its network."""

    def __call__(self, *, network: Network, x_shape: Shape) -> EncoderInput: ...


class LikelihoodFactory(Protocol):
    """A Likelihood class, but for its network and the shape of the data."""

    def __call__(self, *, network: Network, x_shape: Shape) -> Likelihood: ...


class Posterior(_Amortised, ABC):
    """q(z | x): the amortised approximation of the posterior of z given x.

    A subclass defines `forward`, calls `self.call_network(x, y)` there, and returns a distribution with event shape `(D,)`.
    Missing entries of x are 0 for it, unless its network says by `takes_nan` that it takes NaN, as an
    `EncoderInput` does.

    Arguments:
        network: a module that maps x, `(N, *x_shape)`, to `(N, *out_shape)`; or a function that makes one from `out_shape`.
        x_shape: the shape of one row of data.
        latent_dim: the number D of latent dimensions.
        out_shape: the shape of the numbers that the network gives for one row; `(D,)` when omitted.
    """

    takes_nan: bool = False

    def __init__(self, network: Network, x_shape: Shape, latent_dim: int, out_shape: Shape | None = None) -> None:
        dim = whole(latent_dim, "latent_dim")
        row_shape = as_shape(x_shape, "x_shape")
        super().__init__(network, in_dims=len(row_shape), out_shape=dim if out_shape is None else out_shape)
        self.latent_dim = dim
        self.x_shape = row_shape
        self.takes_nan = getattr(self.network, "takes_nan", self.takes_nan)
        if not self.takes_nan and any(getattr(module, "takes_nan", False) for module in self.network.modules()):
            raise ValueError(
                "'network' must be an EncoderInput, such as WithMask, as a whole, got one inside another network, "
                "which would see no NaN."
            )

    def call_network(self, inputs: Tensor, y: Tensor | None = None) -> Tensor:
        """The network's output as above, held between ±HIGHEST_OUTPUT, so that no q(z | x) has an infinite parameter."""
        return held(super().call_network(inputs, y), HIGHEST_OUTPUT, -HIGHEST_OUTPUT)

    def seen(self, x: Tensor) -> Tensor:
        """Return x, `(*, *x_shape)`, as the network sees it: after the inputs that stand in front of it."""
        return as_seen(self.network, x)

    def initialize(self, blocks: Iterable[Tensor]) -> None:
        """Start the inputs in front of the network from blocks of training rows, `(B, *x_shape)`, each time the same."""
        start_inputs(self.network, blocks)

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor | None = None) -> TorchDistribution:
        """q(z | x, y) with batch shape `(*)` and event shape `(D,)`, for x of shape `(*, *x_shape)`."""

    def extra_repr(self) -> str:
        return f"x_shape={tuple(self.x_shape)}, latent_dim={self.latent_dim}"
