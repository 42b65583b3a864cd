"""Library size of rows of counts: the sum of a row, as an offset of the log-means."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pyro_vae.data.missing import filled
from pyro_vae.parts.finite import HIGHEST_LOG_OF_DATA
from pyro_vae.support.checks import exactly

# The least sum of squared means, below which an element tells nothing of its dispersion.
_LEAST_SQUARE = 1e-8


class LogLibrary(nn.Module):
    """Log of the library size of each row, and its median over the training rows.

    Arguments:
        num_axes: the number of axes of a row.
    """

    median: Tensor

    def __init__(self, num_axes: int) -> None:
        super().__init__()
        self.num_axes = num_axes
        self.register_buffer("median", torch.tensor(torch.nan))

    def of(self, x: Tensor) -> Tensor:
        """Return log max(1, Σ x_i) of rows, `(*, 1)`, for x of shape `(*, *x_shape)`."""
        return x.flatten(-self.num_axes).sum(-1, keepdim=True).clamp(min=1).log()

    def usual(self) -> Tensor:
        """Return the median over the training rows, `(1,)`.

        Raises:
            ValueError: if it is not known.
        """
        if self.median.isnan():
            raise ValueError(
                "'y' must have the log of the library size as its last number, since its median "
                "is not known: call initialize(vae, rows) for that, or give it."
            )
        return self.median.unsqueeze(0)

    def check(self, log_library: Tensor) -> None:
        """Refuse library sizes in place of their logs, `(*, 1)`.

        Raises:
            ValueError: if a number is too high for a log.
        """
        highest = log_library.max().item() if log_library.numel() else 0.0
        if highest > HIGHEST_LOG_OF_DATA:
            raise ValueError(
                "'y' must have the log of the library size as its last number, at most "
                f"{HIGHEST_LOG_OF_DATA:g}, got {exactly(highest)}."
            )

    def start(self, logs: Iterable[Tensor]) -> None:
        """Set the median from the logs of all training rows, blocks of `(B, 1)`."""
        log_library = torch.cat(list(logs)).flatten()
        self.check(log_library)
        self.median.copy_(log_library.median())

    def log_mean(self, outputs: Tensor, log_library: Tensor) -> Tensor:
        """Return log(library size × share), where the shares are a softmax over a row.

        Arguments:
            outputs: the logits of the shares, `(*, *x_shape)`.
            log_library: the log of the library size, `(*, 1)`.
        """
        return self.log_shares(outputs) + log_library.unflatten(-1, [1] * self.num_axes)

    def log_shares(self, outputs: Tensor) -> Tensor:
        """Return the logs of shares that add up to 1 in each row, `(*, *x_shape)`."""
        row_shape = outputs.shape[outputs.dim() - self.num_axes :]
        return outputs.flatten(-self.num_axes).log_softmax(-1).unflatten(-1, row_shape)


def dispersion_around_shares(batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the dispersion of each element by moments, `x_shape`.

    With the share s of an element in all counts, and the library sizes l, it is
    Σ ((x − l s)² − l s) / Σ (l s)², over the rows in which the element is observed.

    Arguments:
        batches: rows, `(B, *x_shape)`, and the logs of their library sizes, `(B, 1)`.
    """
    counts: Tensor | float = 0.0
    library: Tensor | float = 0.0
    for x, log_library in batches:
        counts = counts + filled(x, 0.0).double().sum(0)
        library = library + _library_by_element(x, log_library).sum(0)
    share = torch.as_tensor(counts / library)
    excess = torch.zeros_like(share)
    square = torch.zeros_like(share)
    for x, log_library in batches:
        mean = _library_by_element(x, log_library) * share
        excess += ((filled(x, 0.0).double() - mean) ** 2 - mean).sum(0)
        square += (mean**2).sum(0)
    return excess / square.clamp(min=_LEAST_SQUARE)


def _library_by_element(x: Tensor, log_library: Tensor) -> Tensor:
    """Return the library size of each entry of x, and 0 for a missing entry."""
    library = log_library.double().exp().unflatten(-1, [1] * (x.dim() - 1))
    return library * ~x.isnan()
