"""Augmentation: images that are flipped and shifted at random while a VAE is trained."""

import torch
from torch import Tensor

from pyro_vae.data.transforms import Transform, prepared_by
from pyro_vae.support.checks import flag, instance, whole


class Augmented(Transform):
    """Another transform, of images that are flipped and shifted at random in steps of training.

    Each image of a batch has draws of its own, anew in every step. Evaluation, validation and tests
    see the images as they are, those of training rows too. Draws come from torch's default
    generator by operations on tensors, so that a traced step draws anew.

    Arguments:
        transform: makes x from the levels.
        horizontal_flip: true to swap left and right of every second image.
        shift: the most pixels by which an image moves, in height and in width; the pixels at its
            edge are repeated.

    Raises:
        ValueError: if a setting has another type, or `shift` is negative.

    Example:
        >>> rows = Rows(torch.eye(4)[None, None], Augmented(Identity(), shift=1), 1.0)
        >>> rows.training_x(rows.levels).shape
        torch.Size([1, 1, 4, 4])
    """

    def __init__(self, transform: Transform, horizontal_flip: bool = True, shift: int = 0) -> None:
        self.transform = instance(transform, Transform, "transform", "Identity()")
        self.horizontal_flip = flag(horizontal_flip, "horizontal_flip")
        self.shift = whole(shift, "shift", least=0)

    def check(self, levels: Tensor, max_level: float) -> None:
        """Refuse rows that are no images, or smaller than a shift, or that the transform refuses.

        Raises:
            ValueError: if they are.
        """
        if levels.dim() != 4 or min(levels.shape[2:]) <= self.shift:
            raise ValueError(
                f"'data' must have images of the shape (C, H, W) larger than 'shift' for {self!r}, "
                f"got rows of the shape {tuple(levels.shape[1:])}."
            )
        self.transform.check(levels, max_level)

    def prepare(self, levels: Tensor, max_level: float, part: int) -> tuple[Tensor, float]:
        return prepared_by(self.transform, levels, max_level, part)

    def __call__(self, levels: Tensor, max_level: float) -> Tensor:
        return self.transform(levels, max_level)

    def mean(self, levels: Tensor, max_level: float) -> Tensor:
        """Return E[x] of the images as they are."""
        return self.transform.mean(levels, max_level)

    def variance(self, levels: Tensor, max_level: float) -> Tensor:
        """Return Var[x] of the images as they are."""
        return self.transform.variance(levels, max_level)

    def augment(self, levels: Tensor) -> Tensor:
        levels = self.transform.augment(levels)
        if self.horizontal_flip:
            is_flipped = torch.rand(len(levels), 1, 1, 1, device=levels.device) < 0.5
            levels = torch.where(is_flipped, levels.flip(-1), levels)
        if self.shift:
            levels = _shifted(_shifted(levels, 2, self.shift), 3, self.shift)
        return levels


def _shifted(images: Tensor, dim: int, most: int) -> Tensor:
    """Return images that are moved by random numbers of pixels along one axis.

    Arguments:
        images: the images, `(B, C, H, W)`.
        dim: the axis.
        most: the most pixels.
    """
    size = images.shape[dim]
    steps = torch.randint(-most, most + 1, (len(images), 1), device=images.device)
    places = (torch.arange(size, device=images.device) + steps).clamp(0, size - 1)
    shape = [len(images), 1, 1, 1]
    shape[dim] = size
    return images.gather(dim, places.reshape(shape).expand_as(images))
