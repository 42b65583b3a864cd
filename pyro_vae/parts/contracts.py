"""Contracts of the parts of a VAE: a prior p(z), a likelihood p(x | z), a posterior q(z | x).

Each part is a module that returns a distribution. The axes have the same letters everywhere:

- `S` samples, `B` rows of a batch, `D` latent dimensions, `K` components;
- `C H W` channels, height and width of an image;
- `Y` numbers in a context;
- `*` any number of leading dimensions.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, Protocol, TypeAlias

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_vae.data.arrays import as_tensor
from pyro_vae.data.missing import filled
from pyro_vae.parts.finite import HIGHEST_OUTPUT, held
from pyro_vae.support.checks import (
    Shape,
    as_shape,
    described,
    exactly,
    made_by,
    whole,
    with_article,
)
from pyro_vae.support.invalid_parameters import InvalidParameterError, sentence_on_parameters
from pyro_vae.support.modules import tensor_like
from pyro_vae.support.store import make_picklable
from pyro_vae.support.tables import shown_in_short

Network: TypeAlias = nn.Module | Callable[[torch.Size], nn.Module]

# torch's words for one row in a batch normalisation.
_NEEDS_TWO_ROWS = "Expected more than 1 value per channel when training"
# A mean in single precision may lie outside of its bounds by this share.
_ROUNDING = 1e-4


def as_network(network: Network, shape: torch.Size) -> nn.Module:
    """Return the network; a function makes it from the shape.

    Raises:
        ValueError: if it is neither a module nor a function that makes one from a shape.
    """
    if isinstance(network, nn.Module):
        return network
    accepted = "a torch module, or a function that makes one from a shape"
    if not isinstance(network, type):
        return made_by(network, nn.Module, "network", accepted, shape)
    try:
        return made_by(network, nn.Module, "network", accepted, shape)
    except (TypeError, ValueError) as error:
        if str(error).startswith("'network'"):
            raise
        raise ValueError(
            f"'network' must be {accepted}, got {described(network)}, which fails for "
            f"{tuple(shape)}: make an object of it."
        ) from error


class ContractError(ValueError):
    """Raised if a class of the user returns something else than its role demands."""


def returned(value: Any, by: str, accepted: str) -> Tensor:
    """Return what a class of the user returned, if it is a tensor of real numbers.

    It looks at types alone, so that a traced step holds nothing of it.

    Arguments:
        value: what came.
        by: the function that returned it, and its class.
        accepted: what it must return, in words.

    Raises:
        ContractError: if it is anything else.
    """
    if isinstance(value, Tensor) and value.is_floating_point():
        return value
    if isinstance(value, Tensor):
        received = f"one of {value.dtype}"
    elif isinstance(value, list | tuple | dict):
        received = f"{with_article(type(value).__name__)} of {len(value)}"
    else:
        received = described(value)
    raise ContractError(f"{by} must return {accepted}, got {received}.")


def rows_returned(value: Any, network: nn.Module, of: object, num_rows: int, size: int) -> Tensor:
    """Return the outputs of a network, if they are so many numbers for each row.

    Raises:
        ContractError: if they are anything else.
    """
    title = f"'network' of {type(of).__name__}, {with_article(type(network).__name__)},"
    outputs = returned(value, title, f"one tensor of {size} numbers for each row")
    if outputs.dim() and outputs.shape[0] == num_rows and prod(outputs.shape[1:]) == size:
        return outputs
    raise ContractError(
        f"{title} must give {size} numbers for each row, got the shape {tuple(outputs.shape)} for "
        f"{num_rows} rows."
    )


class _Part(nn.Module):
    """Base of all parts: it has a context size, and can be pickled after Pyro has trained it."""

    context_dim: int = 0
    # The name of the part in a VAE, and that of its first argument.
    _role: str
    _given: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the distribution of `forward`.

        Raises:
            InvalidParameterError: if it refuses its parameters, as those of NaN.
        """
        try:
            return super().__call__(*args, **kwargs)
        except ValueError as error:
            inputs = next(iter([*args, *kwargs.values()]), None)
            sentence = sentence_on_parameters(self, self._role, self._given, inputs, error)
            if sentence is None:
                raise
            raise InvalidParameterError(sentence) from error
        except RuntimeError as error:
            inputs = next(iter([*args, *kwargs.values()]), None)
            own = tensor_like(self).dtype
            if not isinstance(inputs, Tensor) or inputs.dtype == own or "dtype" not in str(error):
                raise
            raise ValueError(
                f"'{self._role}', {with_article(type(self).__name__)}, has weights of {own}, got "
                f"{self._given} of {inputs.dtype}: give both one dtype."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        make_picklable(self.parameters())
        return self.__dict__.copy()


class Prior(_Part, ABC):
    """p(z), or p(z | y) if a context y is given.

    A subclass defines `forward`, which returns a distribution with event shape `(D,)`. If it
    depends on a context y, it sets `context_dim` to the size Y of y. It may define `attach` (to
    share the posterior). It may define `initialize` (to start from data), and then sets
    `num_initial_rows` to the number of rows that `initialize` takes.

    Arguments:
        latent_dim: the number D of latent dimensions.
    """

    _role = "prior"
    _given = "y"
    num_initial_rows: int = 1

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = whole(latent_dim, "latent_dim")

    @abstractmethod
    def forward(self, y: Tensor | None = None) -> TorchDistribution:
        """Return p(z | y) for y of shape `(*, Y)`, or p(z)."""

    def attach(self, posterior: "Posterior") -> None:
        """Receive the posterior of the VAE that takes this prior; do nothing by default.

        The VAE calls it when it is made.
        """

    def initialize(self, x: Tensor) -> None:
        """Start from rows of data, `(N, *x_shape)`, as the setting `initialize_prior` requests.

        Raises:
            ValueError: if the prior does not start from data, which is the default.
        """
        raise ValueError(
            f"{type(self).__name__} does not start from data: leave 'initialize_prior' at false."
        )

    def extra_repr(self) -> str:
        return f"latent_dim={self.latent_dim}"


class _Amortised(_Part):
    """Base of likelihoods and posteriors: a network maps the condition to parameters."""

    def __init__(self, network: Network, in_dims: int, out_shape: Shape) -> None:
        super().__init__()
        self.out_shape = as_shape(out_shape, "out_shape")
        self._in_dims = in_dims
        self.network = as_network(network, self.out_shape)
        self.context_dim = getattr(self.network, "context_dim", 0)

    def call_network(self, inputs: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the network's output, `(*, *out_shape)`; the network sees one flat batch of rows.

        A network takes the context y if its `context_dim` is greater than 0. The context may have
        leading dimensions of its own, as an enumerated label has.

        Raises:
            ValueError: if the network gives another number of outputs.
        """
        if not isinstance(inputs, Tensor):
            raise TypeError(
                f"'{self._given}' must be a tensor for {with_article(type(self).__name__)}, got "
                f"{described(inputs)}."
            )
        # Not .numel(): when Pyro draws a model diagram, the shapes are plain tuples.
        split = inputs.dim() - self._in_dims
        batch_shape = inputs.shape[:split]
        row_shape = inputs.shape[split:]
        if y is None or not getattr(self.network, "context_dim", 0):
            outputs = self._outputs(inputs.reshape(prod(batch_shape), *row_shape))
        else:
            batch_shape = torch.broadcast_shapes(batch_shape, y.shape[:-1])
            rows = inputs.expand(*batch_shape, *row_shape).reshape(prod(batch_shape), *row_shape)
            contexts = y.expand(*batch_shape, y.shape[-1]).reshape(rows.shape[0], -1)
            outputs = self._outputs(rows, contexts)
        num_rows = prod(batch_shape)
        outputs = rows_returned(outputs, self.network, self, num_rows, self.out_shape.numel())
        return outputs.reshape(*batch_shape, *self.out_shape)

    def _outputs(self, *inputs: Tensor) -> Any:
        try:
            return self.network(*inputs)
        except ValueError as error:
            if _NEEDS_TWO_ROWS not in str(error):
                raise
            raise ValueError(
                f"'network' of {type(self).__name__} has a batch normalisation, which trains on "
                "two rows or more, got a batch of one: omit a short last batch, by 'drop_last'."
            ) from error


class Likelihood(_Amortised, ABC):
    """p(x | z): the distribution of a row of data given its latent.

    A subclass defines `forward`, which calls `self.call_network(z, y)` and declares independence
    with `.to_event`. It passes `out_shape` if it needs more than one number for each element of x.
    It may define:

    - `check`: which data it can score;
    - `link`: to start from the mean of the data;
    - `initialize`: to start also from their standard deviation;
    - `filler`: the value in place of missing entries;
    - `encoder_input`: how an encoder should see such data;
    - `offset_dim` with `offsets`: columns of y that only this likelihood takes. They follow the
      `context_dim` columns that networks take.

    Arguments:
        network: a module that maps z, `(N, D)`, to `(N, *out_shape)`; or a function that makes one
            from `out_shape`.
        x_shape: the shape of one row of data.
        out_shape: the shape of the numbers that the network gives for one row; `x_shape` when
            omitted.
    """

    _role = "likelihood"
    _given = "z"
    offset_dim: int = 0

    def __init__(self, network: Network, x_shape: Shape, out_shape: Shape | None = None) -> None:
        row_shape = as_shape(x_shape, "x_shape", least_axes=1)
        outputs = row_shape if out_shape is None else out_shape
        super().__init__(network, in_dims=1, out_shape=outputs)
        self.x_shape = row_shape

    @abstractmethod
    def forward(self, z: Tensor, y: Tensor | None = None) -> TorchDistribution:
        """Return p(x | z, y), batch shape `(*)`, event shape `x_shape`, for z of shape `(*, D)`."""

    @property
    def encoder_input(self) -> "EncoderInputFactory | None":
        """Class of encoder input that suits such x; None stands for `Standardized`."""
        return None

    @property
    def filler(self) -> float | Tensor:
        """Value inside the support, in place of missing entries of x.

        It is a number or a tensor that broadcasts to `x_shape`. It is scored under a mask, so its
        value changes no result.
        """
        return 0.0

    def check(self, x: Tensor) -> None:
        """Refuse x, `(*, *x_shape)`, that cannot be scored; by default x that is not finite.

        Raises:
            ValueError: if x cannot be scored, in one sentence.
        """
        if not torch.isfinite(x).all():
            raise ValueError(f"'x' must be finite for {type(self).__name__}, got NaN or infinity.")

    @property
    def mean_bounds(self) -> tuple[float | Tensor, float | Tensor]:
        """Lowest and highest mean of an element of x, numbers or tensors of the shape `x_shape`."""
        return -torch.inf, torch.inf

    def link(self, mean: Tensor) -> Tensor:
        """Return the network's output, `out_shape`, at which E[x | z] = mean, `x_shape`.

        Raises:
            ValueError: if the likelihood defines no link, which is the default.
        """
        raise ValueError(
            f"{type(self).__name__} defines no 'link' for initialize_bias: define it, or leave "
            "that at false."
        )

    def initialize(self, mean: Tensor, std: Tensor) -> None:
        """Start scales, dispersions and units from the data; do nothing by default.

        Arguments:
            mean: the mean of the data, `x_shape`.
            std: their standard deviation, `x_shape`.
        """

    def offsets(self, x: Tensor | None = None) -> Tensor:
        """Return the columns of y that only this likelihood takes, where y lacks them.

        A likelihood with an `offset_dim` above 0 defines it.

        Arguments:
            x: the rows, `(*, *x_shape)`; None for rows that are to be drawn.

        Returns:
            The columns of x, `(*, offset_dim)`, or those that stand for all rows, `(offset_dim,)`.

        Raises:
            ValueError: if x is None and nothing stands for all rows.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no 'offsets'.")

    def check_offsets(self, offsets: Tensor) -> None:
        """Refuse offsets, `(*, offset_dim)`, that cannot be meant; by default accept all.

        Raises:
            ValueError: if there are such offsets, in one sentence.
        """

    def initialize_offsets(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Start what depends on the offsets from training rows; do nothing by default.

        Arguments:
            batches: rows x, `(B, *x_shape)`, and their offsets, `(B, offset_dim)`; each iteration
                gives the same.
        """

    @torch.no_grad()
    def initialize_bias(self, mean: Tensor) -> None:
        """Set the network's output bias so that p(x | z) starts at the data's mean, `x_shape`.

        Raises:
            ValueError: if the network offers no `output_bias` with one number for each output, or
                no data that the likelihood scores have this mean.
        """
        bias = getattr(self.network, "output_bias", None)
        accepted = self.out_shape.numel()
        if bias is None or bias.numel() != accepted:
            raise ValueError(
                f"'network' must offer an 'output_bias' of {accepted} numbers to be initialised."
            )
        title = f"'link' of {type(self).__name__}"
        outputs = returned(self.link(self._as_mean(mean, bias)), title, "one tensor")
        if outputs.numel() != accepted:
            raise ContractError(
                f"{title} must return a tensor of the shape {tuple(self.out_shape)}, got "
                f"{tuple(outputs.shape)}."
            )
        bias.copy_(outputs.reshape(bias.shape))

    def _as_mean(self, mean: Tensor, like: Tensor) -> Tensor:
        mean = as_tensor(mean, "mean").to(like)
        if mean.shape != self.x_shape:
            raise ValueError(
                f"'mean' must have the shape {tuple(self.x_shape)} of one row, got "
                f"{tuple(mean.shape)}."
            )
        lowest, highest = (torch.as_tensor(bound).to(mean) for bound in self.mean_bounds)
        slack = _ROUNDING * (1 + mean.abs())
        if not ((mean >= lowest - slack) & (mean <= highest + slack) & mean.isfinite()).all():
            raise ValueError(
                f"'mean' must be finite and lie from {lowest.min().item():g} to "
                f"{highest.max().item():g} for {type(self).__name__}, got values from "
                f"{exactly(mean.min().item())} to {exactly(mean.max().item())}."
            )
        return mean

    def extra_repr(self) -> str:
        return f"x_shape={tuple(self.x_shape)}"


class NetworkFactory(Protocol):
    """Network class with all arguments given except the shapes of inputs and outputs."""

    def __call__(self, *, in_shape: Shape, out_shape: Shape) -> nn.Module: ...


class EncoderInput(nn.Module, ABC):
    """Network that sees x in other units: `(N, *x_shape)` to the network's output.

    A subclass defines `transform`. It defines `inverse` if a VampPrior is to start from it. It
    defines `start` if it has constants, which are buffers. Inputs can be chained: in
    `Log1p(Standardized(MLP(…), 64))` the MLP sees standardised logs. After the transform a missing
    entry of x is 0 for the network, or NaN if the network takes NaN.

    Arguments:
        network: the module that sees the transformed rows, and the context if it takes one; or a
            function that makes it from the shape of a row.
        x_shape: the shape of one row of x; it may be omitted if nothing depends on it.
        seen_shape: the shape of one row as the network sees it; `x_shape` when omitted.

    Raises:
        ValueError: if a function is given without a shape.
    """

    takes_nan = True

    def __init__(
        self, network: Network, x_shape: Shape | None = None, seen_shape: Shape | None = None
    ) -> None:
        super().__init__()
        shape = x_shape if seen_shape is None else seen_shape
        if not isinstance(network, nn.Module):
            if shape is None:
                raise ValueError(
                    f"'x_shape' of {type(self).__name__} must be given where 'network' is a "
                    "function."
                )
            network = as_network(network, as_shape(shape, "x_shape", least_axes=1))
        self.network = network
        self.context_dim = getattr(network, "context_dim", 0)

    @property
    def output_bias(self) -> nn.Parameter:
        """Output bias of the network."""
        return self.network.output_bias  # type: ignore[return-value]

    @abstractmethod
    def transform(self, x: Tensor) -> Tensor:
        """Return the values that stand for x, `(*, *x_shape)`; NaN stays NaN."""

    def inverse(self, values: Tensor) -> Tensor:
        """Return the x that these values stand for.

        Raises:
            ValueError: if the input defines no inverse, which is the default.
        """
        raise ValueError(
            f"{type(self).__name__} defines no 'inverse' for a VampPrior: define it, or take "
            "another prior."
        )

    def start(self, blocks: Iterable[Tensor]) -> None:
        """Set the constants from training rows; do nothing by default.

        Arguments:
            blocks: blocks of rows, `(B, *x_shape)`; each iteration gives the same blocks.
        """

    def seen(self, x: Tensor) -> Tensor:
        """Return the input of the network for x, `(N, *x_shape)`."""
        values = _converted(self, "transform", x)
        return values if getattr(self.network, "takes_nan", False) else filled(values, 0.0)

    def forward(self, inputs: Tensor, y: Tensor | None = None) -> Tensor:
        seen = self.seen(inputs)
        return self.network(seen) if y is None else self.network(seen, y)


def _converted(step: EncoderInput, method: str, x: Tensor) -> Tensor:
    """Return what `transform` or `inverse` of an encoder input makes of x, row by row."""
    title = f"'{method}' of {type(step).__name__}"
    values = returned(getattr(step, method)(x), title, "one tensor with as many rows as x")
    if values.shape[:1] != x.shape[:1]:
        raise ContractError(
            f"{title} must return as many rows as it is given, got {tuple(values.shape)} for "
            f"{tuple(x.shape)}."
        )
    return values


def as_seen(network: nn.Module, x: Tensor) -> Tensor:
    """Return the values that stand for x, `(*, *x_shape)`, after all inputs of a network."""
    for step in _inputs_in_front(network):
        x = _converted(step, "transform", x)
    return x


def as_given(network: nn.Module, values: Tensor) -> Tensor:
    """Return the x whose values after all inputs of a network are given."""
    for step in reversed(list(_inputs_in_front(network))):
        values = _converted(step, "inverse", values)
    return values


@torch.no_grad()
def start_inputs(network: nn.Module, blocks: Iterable[Tensor]) -> None:
    """Set the constants of all inputs of a network from training rows.

    Arguments:
        network: the network with its inputs.
        blocks: blocks of rows, `(B, *x_shape)`; each iteration gives the same blocks.

    Raises:
        ValueError: if an input turns a finite number into NaN or infinity. NaN would pass for
            missing.
    """
    for step in _inputs_in_front(network):
        step.start(blocks)
        seen = Mapped(blocks, partial(_converted, step, "transform"))
        _check_finite(step, blocks, seen)
        blocks = seen


def _check_finite(step: EncoderInput, blocks: Iterable[Tensor], seen: Iterable[Tensor]) -> None:
    for before, after in zip(blocks, seen, strict=True):
        if _num_not_finite(after) > _num_not_finite(before):
            raise ValueError(
                f"'transform' of {type(step).__name__} must make finite numbers of the training "
                "rows, got NaN or infinity."
            )


def _num_not_finite(x: Tensor) -> int:
    return int((~x.isfinite()).sum())


@shown_in_short
@dataclass(frozen=True)
class Mapped:
    """Blocks with a function applied to each, anew in each iteration."""

    blocks: Iterable[Tensor]
    function: Callable[[Tensor], Tensor]

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.function, self.blocks)


def _inputs_in_front(network: nn.Module) -> Iterator[EncoderInput]:
    """Yield the inputs in front of a network, starting with the one that sees x."""
    while isinstance(network, EncoderInput):
        yield network
        network = network.network


class EncoderInputFactory(Protocol):
    """EncoderInput class, or a function that makes an input in front of a given network."""

    def __call__(self, *, network: Network, x_shape: Shape) -> EncoderInput: ...


class LikelihoodFactory(Protocol):
    """Likelihood class with all arguments given except its network and the shape of the data."""

    def __call__(self, *, network: Network, x_shape: Shape) -> Likelihood: ...


class Posterior(_Amortised, ABC):
    """q(z | x): the amortised approximation of the posterior p(z | x).

    A subclass defines `forward`, which calls `self.call_network(x, y)` and returns a distribution
    with event shape `(D,)`. It receives 0 for missing entries of x. If its network has
    `takes_nan=True`, as an `EncoderInput` has, it receives NaN for them.

    Arguments:
        network: a module that maps x, `(N, *x_shape)`, to `(N, *out_shape)`; or a function that
            makes one from `out_shape`.
        x_shape: the shape of one row of data.
        latent_dim: the number D of latent dimensions.
        out_shape: the shape of the numbers that the network gives for one row; `(D,)` when omitted.

    Raises:
        ValueError: if an `EncoderInput` stands inside another network.
    """

    _role = "posterior"
    _given = "x"
    takes_nan: bool = False

    def __init__(
        self, network: Network, x_shape: Shape, latent_dim: int, out_shape: Shape | None = None
    ) -> None:
        dim = whole(latent_dim, "latent_dim")
        row_shape = as_shape(x_shape, "x_shape", least_axes=1)
        outputs = dim if out_shape is None else out_shape
        super().__init__(network, in_dims=len(row_shape), out_shape=outputs)
        self.latent_dim = dim
        self.x_shape = row_shape
        self.takes_nan = getattr(self.network, "takes_nan", self.takes_nan)
        has_input = any(getattr(module, "takes_nan", False) for module in self.network.modules())
        if has_input and not self.takes_nan:
            raise ValueError(
                "'network' must be an EncoderInput, such as WithMask, as a whole, got one inside "
                "another network, which would see no NaN."
            )

    def call_network(self, inputs: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the network's output as the base does, held between ±HIGHEST_OUTPUT.

        So no q(z | x) has an infinite parameter.
        """
        outputs = super().call_network(inputs, y)
        highest = min(HIGHEST_OUTPUT, torch.finfo(outputs.dtype).max)  # less in float16
        return held(outputs, highest, -highest)

    def seen(self, x: Tensor) -> Tensor:
        """Return x, `(*, *x_shape)`, as the network sees it: after its encoder inputs."""
        return as_seen(self.network, x)

    def initialize(self, blocks: Iterable[Tensor]) -> None:
        """Start the encoder inputs from training rows.

        Arguments:
            blocks: blocks of rows, `(B, *x_shape)`; each iteration gives the same blocks.
        """
        start_inputs(self.network, blocks)

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor | None = None) -> TorchDistribution:
        """Return q(z | x, y), batch shape `(*)`, event shape `(D,)`, for x `(*, *x_shape)`."""

    def extra_repr(self) -> str:
        return f"x_shape={tuple(self.x_shape)}, latent_dim={self.latent_dim}"
