"""Contexts y of rows, which are vectors or one-hot labels."""

import torch
from torch import Tensor

from pyro_vae.data.arrays import Array, as_tensor
from pyro_vae.support.checks import described


def as_context(labels: Tensor, size: int, name: str) -> Tensor:
    """Return labels as contexts, `(*, size)`: vectors as they are, and labels one-hot.

    Whole numbers with at most one axis are labels. Whole numbers get torch's default dtype.

    Arguments:
        labels: a label for each row, `()` or `(N,)`, or a vector for each row, `(*, size)`.
        size: the size Y of a context.
        name: the argument that an error names.

    Raises:
        ValueError: if labels lie outside 0 … size − 1, or vectors have another size or are not
            finite.
    """
    problem = _problem(labels, size)
    if problem is not None:
        raise ValueError(
            f"'{name}' must have labels 0 ... {size - 1}, or finite vectors of {size} numbers, "
            f"for a VAE with a context y of {size}, got {problem}."
        )
    if labels.is_floating_point():
        return labels
    has_vectors = labels.dim() > 1
    y = labels if has_vectors else torch.nn.functional.one_hot(labels.long(), size)
    return y.to(torch.get_default_dtype())


def as_y(y: Array | int | None, size: int, like: Tensor) -> Tensor | None:
    """Return contexts in the dtype and on the device of another tensor; None stays None.

    Arguments:
        y: vectors or labels of rows, as `as_context` takes them.
        size: the size Y of the context that the VAE takes; 0 for none.
        like: the other tensor.

    Raises:
        ValueError: if there is no context of this size in y.
    """
    if y is None:
        return None
    tensor = as_tensor(y, "y")
    if not size:
        raise ValueError(f"'y' must be omitted for a VAE without a context, got {described(y)}.")
    has_vectors = tensor.dim() != 1 or tensor.shape == (size,)
    if not (tensor.is_floating_point() and has_vectors):
        tensor = as_context(tensor, size, "y")
    return tensor.to(like)


def _problem(labels: Tensor, size: int) -> str | None:
    """Return in words what came, if it is neither labels nor vectors of this size."""
    is_real = labels.is_floating_point()
    if labels.dim() > 1:
        if labels.shape[-1] == size:
            is_finite = not is_real or bool(torch.isfinite(labels).all())
            return None if is_finite else "NaN or infinity"
        is_column = labels.shape[-1] == 1 and not is_real
        way_out = ": flatten them if they are labels" if is_column else ""
        return f"vectors of {labels.shape[-1]}{way_out}"
    if is_real:
        return f"real numbers of the shape {tuple(labels.shape)}: convert labels to whole numbers"
    numbers = labels.long()  # torch compares no wide unsigned integers
    if numbers.numel() and (numbers.min() < 0 or numbers.max() >= size):
        lowest = numbers.min().item()
        highest = numbers.max().item()
        return f"the label {lowest}" if lowest == highest else f"labels from {lowest} to {highest}"
    return None
