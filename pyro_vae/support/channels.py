"""Channels of images, which are the first axis of a row, as convolutions need them."""

from collections.abc import Sequence

from torch import Tensor

# Channels of grey, colour, and colour with transparency.
_NUM_CHANNELS = (1, 3, 4)


def has_channels_last(shape: Sequence[int]) -> bool:
    """Return True if the last of three axes looks like the channels, as in (32, 32, 3).

    The last size is then 1, 3 or 4, and the first size is larger. If the last two sizes are equal,
    the row is a square image with many channels.
    """
    if len(shape) != 3:
        return False
    first, second, last = shape
    return last in _NUM_CHANNELS and first > last and second != last


def check_channels_first(shape: Sequence[int], name: str, way_out: str) -> None:
    """Refuse the shape of an image whose channels are last, as `has_channels_last` finds.

    Arguments:
        shape: the shape of one row.
        name: the argument that an error names.
        way_out: the advice of the error.

    Raises:
        ValueError: if the channels are last.
    """
    if has_channels_last(shape):
        raise ValueError(
            f"'{name}' must have images of the shape (C, H, W), got {tuple(shape)}, whose last "
            f"axis looks like the channels: {way_out}"
        )


def channels_first(images: Tensor) -> Tensor:
    """Return images `(N, H, W, C)` as `(N, C, H, W)`.

    Raises:
        ValueError: if the images have another number of axes.
    """
    if images.dim() != 4:
        raise ValueError(
            "'channels_last' must be left out except for images of the shape (rows, H, W, C), got "
            f"{tuple(images.shape)}."
        )
    return images.movedim(-1, 1).contiguous()
