"""Modules in front of an encoder's network, which change the units of x for it.

The likelihood still scores x itself.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.data.missing import filled
from pyro_vae.data.moments import center_and_unit, moments
from pyro_vae.parts.contracts import (
    EncoderInput,
    EncoderInputFactory,
    Mapped,
    Network,
    as_given,
    as_seen,
    start_inputs,
)
from pyro_vae.support.checks import Shape, as_shape, described, real


class AsIs(EncoderInput):
    """Network that sees x as it is, which suits binary x and grey levels in [0, 1].

    Arguments:
        network: the module that takes the rows; or a function that makes it from their shape.
        x_shape: the shape of one row of x.

    Example:
        >>> AsIs(nn.Identity())(torch.tensor([[0.0, 1.0]]))
        tensor([[0., 1.]])
    """

    def transform(self, x: Tensor) -> Tensor:
        return x

    def inverse(self, values: Tensor) -> Tensor:
        return values


class Divided(EncoderInput):
    """Network that sees x / highest, which suits levels 0 … highest.

    Arguments:
        network: the module that takes the rows; or a function that makes it from their shape.
        x_shape: the shape of one row of x.
        highest: the divisor; when omitted, the largest |x| of the training rows, and 1 before
            `start`.

    Example:
        >>> Divided(nn.Identity(), highest=255)(torch.tensor([[0.0, 51.0, 255.0]]))
        tensor([[0.0000, 0.2000, 1.0000]])
    """

    highest: Tensor

    def __init__(
        self, network: Network, x_shape: Shape | None = None, highest: float | None = None
    ) -> None:
        super().__init__(network, x_shape)
        if highest is not None:
            highest = real(
                highest,
                "highest",
                of=self,
                holds=lambda number: 0 < number < float("inf"),
                accepted="be greater than 0, and finite",
            )
        self.is_given = highest is not None
        divisor = 1.0 if highest is None else float(highest)
        self.register_buffer("highest", torch.tensor(divisor))

    def transform(self, x: Tensor) -> Tensor:
        return x / self.highest

    def inverse(self, values: Tensor) -> Tensor:
        return values * self.highest

    def start(self, blocks: Iterable[Tensor]) -> None:
        if not self.is_given:
            highest = torch.stack([filled(x, 0.0).abs().max() for x in blocks]).max()
            self.highest.copy_(torch.where(highest > 0, highest, 1.0))


class Log1p(EncoderInput):
    """Network that sees log(1 + x) for x ≥ 0, and −log(1 − x) for x < 0.

    It suits counts that span orders of magnitude.

    Arguments:
        network: the module that takes the rows; or a function that makes it from their shape.
        x_shape: the shape of one row of x.

    Example:
        >>> Log1p(nn.Identity())(torch.tensor([[0.0, 1.0, 999.0]]))
        tensor([[0.0000, 0.6931, 6.9078]])
    """

    def transform(self, x: Tensor) -> Tensor:
        return x.abs().log1p().copysign(x)

    def inverse(self, values: Tensor) -> Tensor:
        return values.abs().expm1().copysign(values)


class Standardized(EncoderInput):
    """Network that sees (x − center) / unit: mean and standard deviation of the training rows.

    Each column of a table has its own center and unit. The pixels of an image, `(C, H, W)`, share
    those of their channel. With a unit of its own, a pixel that is rarely on would be a hundred
    times as bright as the others. Before `start` the network sees x as it is.

    Arguments:
        network: the module that takes the rows; or a function that makes it from their shape.
        x_shape: the shape of one row of x.

    Example:
        >>> encoder = Standardized(nn.Identity(), x_shape=1)
        >>> encoder.start([torch.tensor([[1e5], [3e5]])])
        >>> encoder(torch.tensor([[3e5], [torch.nan]]))
        tensor([[1.],
                [0.]])
    """

    center: Tensor
    unit: Tensor

    def __init__(self, network: Network, x_shape: Shape) -> None:
        super().__init__(network, x_shape)
        self.register_buffer("center", torch.zeros(as_shape(x_shape, "x_shape")))
        self.register_buffer("unit", torch.ones(as_shape(x_shape, "x_shape")))

    def transform(self, x: Tensor) -> Tensor:
        return (x - self.center) / self.unit

    def inverse(self, values: Tensor) -> Tensor:
        return self.center + values * self.unit

    def start(self, blocks: Iterable[Tensor]) -> None:
        center, unit = center_and_unit(*moments(blocks))
        self.center.copy_(center)
        self.unit.copy_(unit)


class WithMask(EncoderInput):
    """Network that sees x with 0 for missing entries, and the mask: 1 where x is observed.

    Both are stacked along the first dimension of a row: `(N, C, H, W)` to `(N, 2 C, H, W)`,
    `(N, F)` to `(N, 2 F)`. A VAE made with `missing="nan"` passes x with its NaN to such a network
    of its posterior.

    References:
        Handling incomplete heterogeneous data using VAEs, Nazábal et al., 2018. Deviation: there
            missing entries are only zeros, without a mask.

    Arguments:
        network: the module that takes the stacked rows, and the context if it takes one; or a
            function that makes it from their shape.
        x_shape: the shape of one row of x.

    Example:
        >>> WithMask(nn.Linear(4, 3))(torch.tensor([[torch.nan, 0.7]])).shape
        torch.Size([1, 3])
    """

    def __init__(self, network: Network, x_shape: Shape | None = None) -> None:
        seen_shape = None if x_shape is None else _doubled(as_shape(x_shape, "x_shape"))
        super().__init__(network, x_shape, seen_shape)

    def transform(self, x: Tensor) -> Tensor:
        return x

    def inverse(self, values: Tensor) -> Tensor:
        return values

    def seen(self, x: Tensor) -> Tensor:
        return torch.cat([filled(x, 0.0), (~x.isnan()).to(x)], dim=1)


class Composed(EncoderInput):
    """Network that sees x after a list of steps, such as Log1p, Standardized and WithMask.

    It is for settings files. In Python, chain the inputs instead: `Log1p(WithMask(…))`.

    Arguments:
        network: the module that takes the rows after the last step; or a function that makes it
            from their shape.
        x_shape: the shape of one row of x.
        steps: the classes, from the one that sees x itself to the one in front of the network.

    Example:
        >>> encoder = Composed(nn.Identity(), x_shape=2, steps=[Log1p, WithMask])
        >>> encoder(torch.tensor([[0.0, torch.nan]]))
        tensor([[0., 0., 1., 0.]])
    """

    def __init__(
        self, network: Network, x_shape: Shape, steps: Sequence[EncoderInputFactory]
    ) -> None:
        for step in reversed(_factories(steps, "steps")):
            network = _in_front(step, network)
        super().__init__(network, x_shape)

    def transform(self, x: Tensor) -> Tensor:
        return x

    def inverse(self, values: Tensor) -> Tensor:
        return values


class ByColumn(EncoderInput):
    """Network that sees each group of columns of a table through an input of its own.

    Arguments:
        network: the module that takes the rows; or a function that makes it from their shape.
        x_shape: the number of columns.
        sizes: the number of columns in each group, from left to right.
        groups: the input class of each group; it must keep the number of columns.

    Raises:
        ValueError: if the sizes do not add up to `x_shape`, or are not one for each group.

    Example:
        >>> encoder = ByColumn(nn.Identity(), 2, sizes=[1, 1], groups=[AsIs, Log1p])
        >>> encoder(torch.tensor([[1.0, 1.0]]))
        tensor([[1.0000, 0.6931]])
    """

    parts: Sequence[nn.Module]

    def __init__(
        self,
        network: Network,
        x_shape: Shape,
        sizes: Sequence[int],
        groups: Sequence[EncoderInputFactory],
    ) -> None:
        sizes = list(as_shape(sizes, "sizes"))
        groups = _factories(groups, "groups")
        if as_shape(x_shape, "x_shape") != (sum(sizes),) or len(sizes) != len(groups):
            raise ValueError(
                f"'sizes' must have a number for each of {len(groups)} groups, which add up to "
                f"x_shape = {x_shape}, got {list(sizes)}."
            )
        super().__init__(network, x_shape)
        self.sizes = list(sizes)
        parts = [
            group(network=nn.Identity(), x_shape=size)
            for size, group in zip(sizes, groups, strict=True)
        ]
        self.parts = nn.ModuleList(parts)  # type: ignore[assignment]

    def transform(self, x: Tensor) -> Tensor:
        pairs = zip(self.parts, x.split(self.sizes, dim=-1), strict=True)
        return torch.cat([as_seen(part, columns) for part, columns in pairs], dim=-1)

    def inverse(self, values: Tensor) -> Tensor:
        pairs = zip(self.parts, values.split(self.sizes, dim=-1), strict=True)
        return torch.cat([as_given(part, columns) for part, columns in pairs], dim=-1)

    def start(self, blocks: Iterable[Tensor]) -> None:
        first = 0
        for part, size in zip(self.parts, self.sizes, strict=True):
            columns = partial(torch.narrow, dim=-1, start=first, length=size)
            start_inputs(part, Mapped(blocks, columns))
            first += size


def _factories(classes: Sequence[EncoderInputFactory], name: str) -> list[EncoderInputFactory]:
    is_list = isinstance(classes, Sequence)
    others = [item for item in classes if _is_made(item)] if is_list else [classes]
    if others:
        raise ValueError(
            f"'{name}' must be a list of EncoderInput classes, such as [Log1p, Standardized], got "
            f"{described(others[0])}{' in it' if is_list else ''}."
        )
    return list(classes)


def _is_made(item: Any) -> bool:
    return isinstance(item, nn.Module) or not callable(item)


def _in_front(step: EncoderInputFactory, network: Network) -> Callable[[torch.Size], nn.Module]:
    return lambda x_shape: step(network=network, x_shape=x_shape)


def _doubled(shape: torch.Size) -> torch.Size:
    return torch.Size([2 * shape[0], *shape[1:]])
