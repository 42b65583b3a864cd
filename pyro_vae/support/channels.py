"""Which axis of an image holds its channels: the first of a row, as convolutions need it."""

from collections.abc import Sequence

from torch import Tensor

# Grey, colour, and colour with transparency: an axis of another size holds no colours.
_NUM_CHANNELS = (1, 3, 4)


def has_channels_last(shape: Sequence[int]) -> bool:
    """True if the last axis of a row of three axes looks like its channels, as in (32, 32, 3).

    The last size is 1, 3 or 4 and the first is larger. Two equal sizes in the last place are those of
    a square image of many channels.
    """
    if len(shape) != 3:
        return False
    first, second, last = shape
    return last in _NUM_CHANNELS and first > last and second != last


def check_channels_first(shape: Sequence[int], name: str, way_out: str) -> None:
    """Refuse the shape of an image whose channels are last, as `has_channels_last` finds.

    Arguments:
        shape: of one row.
        name: the argument that an error speaks of.
        way_out: what the error tells to do.

    Raises:
        ValueError: if they are.
    """
    if has_channels_last(shape):
        raise ValueError(
            f"'{name}' must have images of the shape (C, H, W), got {tuple(shape)}, whose last axis "
            f"looks like the channels: {way_out}"
        )


def channels_first(images: Tensor) -> Tensor:
    """Images `(N, H, W, C)` as `(N, C, H, W)`.

    Raises:
        ValueError: if the images have another number of axes.
    """
    if images.dim() != 4:
        raise ValueError(
            "'channels_last' must be left out except for images of the shape (rows, H, W, C), got "
            f"{tuple(images.shape)}."
        )
    return images.movedim(-1, 1).contiguous()
